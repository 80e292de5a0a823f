"""Candidates: the ways to make a kernel that the cost model thinks most of, by dataflow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from vqcc.passes.choice import DATAFLOWS, predicted
from vqcc.picks import Pick, tile_identity
from vqcc.plan import KernelPlan
from vqcc.problem import KernelProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.flow import Flow
    from vqcc.levels import Dataflow

__all__ = ["Candidate", "candidates_of", "possible_dataflows"]

AnyProblem = TypeVar("AnyProblem", bound=KernelProblem)
AnyPlan = TypeVar("AnyPlan", bound=KernelPlan)

#: Tiles of a strategy that are looked at: its op has the most promising first.
TILES = 24


@dataclass(frozen=True)
class Candidate:
    """A way to make a kernel, and the microseconds that the model gives it."""

    pick: Pick
    predicted_us: float


def possible_dataflows(
    flow: Flow[AnyProblem, AnyPlan], problems: Sequence[AnyProblem]
) -> tuple[Dataflow, ...]:
    """Dataflows that all of a library's kernels can have, on all of its GPUs: they share packed codes."""
    possible = {dataflow for agreed in flow.agree(problems) for dataflow in agreed.dataflows}
    return tuple(dataflow for dataflow in DATAFLOWS if dataflow in possible)


def candidates_of(
    flow: Flow[AnyProblem, AnyPlan], problem: AnyProblem, dataflow: Dataflow, most: int, *, tiles: int = TILES
) -> tuple[Candidate, ...]:
    """The `most` promising ways to make a kernel with a dataflow, by predicted time; each kernel once.

    Of each strategy `tiles` tiles are looked at. Of equally promising ones those come first whose tiles the op proposes
    first, of one strategy after another.
    """
    found: dict[object, tuple[float, int, Candidate]] = {}
    for strategy in flow.strategies(problem, dataflow):
        for number, plan in enumerate(islice(flow.proposals(problem, strategy), tiles)):
            assert plan.tile is not None
            tile, us = tile_identity(plan.tile), predicted(plan)
            candidate = Candidate(Pick(strategy, tile), us)
            found.setdefault((tile, flow.traits(plan)), (us, number, candidate))
    ranked = sorted(found.values(), key=lambda each: each[:2])
    return tuple(candidate for _, _, candidate in ranked[:most])
