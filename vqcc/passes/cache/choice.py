"""Choice: strategies that may make the kernels of a library of attention, the most promising first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.levels import STRATEGIES, Strategy
from vqcc.passes.cache.dataflow import cache_refusals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.problem import CacheProblem

__all__ = ["cache_strategies"]

#: By cycles of issue and shared memory that a token takes, as the emulator counts them
#: (docs/decisions/011-attention.md): tensor cores where rows share a cache, then score tables; decoding takes several
#: times as many.
_BEST = (
    Strategy("none", dataflow="fragment"),
    Strategy("none", dataflow="score"),
    STRATEGIES["o2"],
    STRATEGIES["gc"],
)


def cache_strategies(problems: Sequence[CacheProblem]) -> tuple[Strategy, ...]:
    """What the level allows that all kernels of a library can have: they read the same codes."""
    level = problems[0].level
    if level != "best":
        return (STRATEGIES[level],)
    return tuple(
        strategy
        for strategy in _BEST
        if not any(reason for problem in problems for reason in cache_refusals(problem, strategy.dataflow))
    )
