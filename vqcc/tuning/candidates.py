"""Candidates: the ways to make a kernel that the cost model thinks most of, by dataflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.passes.choice import DATAFLOWS, legal_strategies, predicted, refusals_of_all
from vqcc.picks import Pick, tile_identity
from vqcc.pipeline import estimate, plan_base

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.levels import Dataflow
    from vqcc.problem import Problem

__all__ = ["Candidate", "candidates_of", "possible_dataflows"]

#: Tiles of a strategy that are looked at: its op has the most promising first.
TILES = 24


@dataclass(frozen=True)
class Candidate:
    """A way to make a kernel, and the microseconds that the model gives it."""

    pick: Pick
    predicted_us: float


def possible_dataflows(problems: Sequence[Problem]) -> tuple[Dataflow, ...]:
    """Dataflows that all of a library's kernels can have, on all of its GPUs: they share packed codes."""
    return tuple(dataflow for dataflow in DATAFLOWS if not refusals_of_all(problems, dataflow))


def candidates_of(problem: Problem, dataflow: Dataflow, most: int) -> tuple[Candidate, ...]:
    """The `most` promising ways to make a kernel with a dataflow, by predicted time; each kernel once."""
    found: dict[object, Candidate] = {}
    for strategy in legal_strategies(problem, dataflow):
        for candidate, identity in _tiles_of(problem, Pick(strategy, ())):
            found.setdefault(identity, candidate)
    return tuple(sorted(found.values(), key=lambda each: each.predicted_us)[:most])


def _tiles_of(problem: Problem, pick: Pick) -> Iterator[tuple[Candidate, object]]:
    """Candidates of one strategy, and what tells their kernels apart."""
    for attempt in range(TILES):
        base = plan_base(problem, pick.strategy, attempt, every=True)
        if base is None or base.tile is None:
            return
        identity = tile_identity(base.tile)
        plan = estimate(problem, pick.strategy, pinned=identity)
        if plan is not None:
            candidate = Candidate(Pick(pick.strategy, identity), predicted(plan))
            yield candidate, (identity, plan.placement, plan.minimum_blocks, plan.split, plan.exchange)
