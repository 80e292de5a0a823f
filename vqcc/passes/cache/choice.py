"""Choice: strategies that may make the kernels of a library of attention, the most promising first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.levels import DATAFLOW_WORDS, STRATEGIES, Strategy
from vqcc.passes.cache.dataflow import cache_refusals
from vqcc.plan import Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.problem import CacheProblem

    #: Predicted microseconds of a problem's kernel of a strategy, before it is compiled; None if it has no tile.
    Estimate = Callable[[CacheProblem, Strategy], float | None]

__all__ = ["CacheChoice", "cache_choices", "name_of_strategy"]

#: What a library may be made of for `best`.
_BEST = (
    Strategy("none", dataflow="fragment"),
    Strategy("none", dataflow="score"),
    STRATEGIES["o2"],
    STRATEGIES["gc"],
)


@dataclass(frozen=True)
class CacheChoice:
    """A strategy for all kernels of a library, and why not another: nothing to say where the level leaves no choice."""

    strategy: Strategy
    decisions: tuple[Decision, ...] = ()


def cache_choices(problems: Sequence[CacheProblem], estimate: Estimate) -> tuple[CacheChoice, ...]:
    """What the level allows that all kernels of a library can have, those of least predicted time in all first."""
    level = problems[0].level
    if level != "best":
        return (CacheChoice(STRATEGIES[level]),)
    told: dict[str, str] = {}
    totals: dict[Strategy, float] = {}
    for strategy in _BEST:
        reason = next((why for each in problems for why in _refusals(each, strategy)), None)
        times = [] if reason else [estimate(problem, strategy) for problem in problems]
        known = [time for time in times if time is not None]
        if reason is None and len(known) == len(problems):
            totals[strategy] = sum(known)
            told[name_of_strategy(strategy)] = f"{sum(known):.1f} us predicted"
        else:
            told[name_of_strategy(strategy)] = reason or "no tile fits the shared memory of a GPU"
    ranked = sorted(totals, key=lambda strategy: totals[strategy])
    return tuple(CacheChoice(strategy, (_explained(strategy, totals, told),)) for strategy in ranked)


def _refusals(problem: CacheProblem, strategy: Strategy) -> list[str]:
    return [f"{problem.gpu.name}: {reason}" for reason in cache_refusals(problem, strategy.dataflow)]


def name_of_strategy(strategy: Strategy) -> str:
    """A strategy in a few words."""
    if strategy.dataflow != "decode":
        return DATAFLOW_WORDS[strategy.dataflow]
    return next(f"decoding as at {level}" for level, own in STRATEGIES.items() if own == strategy)


def _explained(strategy: Strategy, totals: Mapping[Strategy, float], told: Mapping[str, str]) -> Decision:
    name = name_of_strategy(strategy)
    return Decision(
        "strategy",
        name,
        "least predicted time of all kernels of the library, which read one cache",
        {"predicted_us": round(totals[strategy], 2)},
        "the kernels of all GPUs and bounds can have it",
        rejected=tuple(Rejected(other, why) for other, why in told.items() if other != name),
    )
