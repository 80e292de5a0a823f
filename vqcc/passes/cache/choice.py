"""Choice: the dataflow of a library of attention, and the strategies that may make each of its kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.levels import STRATEGIES, Strategy
from vqcc.passes.agreement import DOUBT, Agreed, of_kernels, weigh
from vqcc.passes.cache.dataflow import CACHE_DATAFLOWS, cache_refusals
from vqcc.passes.choice import predicted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.levels import Dataflow
    from vqcc.passes.choice import Contenders
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

    #: A strategy's most promising plan, with its predicted time, before it is compiled; None if it has no tile.
    Estimate = Callable[[CacheProblem, Strategy], CachePlan | None]

__all__ = ["CACHE_STRATEGIES", "agree_on_cache", "cache_contenders", "refusals_of_library"]

#: Strategies of each dataflow, of equals the first: all read the same codes and books. Level o4 is none of them: a sum
#: over tokens needs no order of channels, and an exchange takes time.
CACHE_STRATEGIES: Mapping[Dataflow, tuple[Strategy, ...]] = {
    "decode": (STRATEGIES["sc"], STRATEGIES["o3"], STRATEGIES["o2"], STRATEGIES["gc"]),
    "score": (
        Strategy("none", dataflow="score"),
        Strategy("none", dataflow="score", codebook_centric=True),
    ),
    "fragment": (Strategy("none", dataflow="fragment"),),
}


def agree_on_cache(problems: Sequence[CacheProblem], estimate: Estimate) -> tuple[Agreed, ...]:
    """The dataflows that all kernels of a library can have, on all of its GPUs, the fastest in sum first.

    All of them read one cache and its books. Levels of the paper decode.
    """
    if problems[0].level != "best":
        return (Agreed("decode"),)
    reasons: dict[Dataflow, str] = {}
    totals: dict[Dataflow, float] = {}
    for dataflow in CACHE_DATAFLOWS:
        found = refusals_of_library(problems, dataflow)
        if found:
            reasons[dataflow] = "; ".join(found)
            continue
        ranked = [cache_contenders(problem, estimate, dataflow) for problem in problems]
        if all(ranked):
            totals[dataflow] = DOUBT.get(dataflow, 1.0) * sum(times[0][0] for times in ranked)
        else:
            without = sorted(
                {each.gpu.name for each, times in zip(problems, ranked, strict=True) if not times}
            )
            reasons[dataflow] = f"no tile of it fits {', '.join(without)}"
    # Where not even decoding has a tile, the compiler's search says so.
    return weigh(totals, reasons, of_kernels(problems)) or (Agreed("decode"),)


def refusals_of_library(problems: Sequence[CacheProblem], dataflow: Dataflow) -> list[str]:
    """Why kernels of a library cannot have a dataflow; nothing if all can."""
    return list(dict.fromkeys(why for problem in problems for why in cache_refusals(problem, dataflow)))


def cache_contenders(problem: CacheProblem, estimate: Estimate, dataflow: Dataflow) -> Contenders:
    """Estimated microseconds and strategies of a dataflow, the most promising first; a level's own alone.

    To decode without a cache is left if nothing else has a tile.
    """
    if problem.level != "best":
        return [(0.0, STRATEGIES[problem.level])]
    found = [
        (plan, strategy) for strategy in CACHE_STRATEGIES[dataflow] if (plan := estimate(problem, strategy))
    ]
    ranked = sorted(((predicted(plan), strategy) for plan, strategy in found), key=lambda pair: pair[0])
    return ranked or [(math.inf, each) for each in CACHE_STRATEGIES[dataflow] if each == STRATEGIES["gc"]]
