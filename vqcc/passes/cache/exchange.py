"""Exchange: how decoded values reach the lanes that multiply them (VQ-LLM, Sec. VI-B, Algorithm 1).

Keys are summed over channels: a lane that has a token's multiplies what it decodes. Values are summed over tokens, and
their vectors lie along what is not summed: a lane decodes several channels, where multiply-adds want one. A lane reads
the codes of one channel group, so it costs nothing whichever group Algorithm 1 deals it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.passes.exchange import choose_exchange
from vqcc.plan import Decision, Exchange

if TYPE_CHECKING:
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["plan_cache_exchange"]


def plan_cache_exchange(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Decide for a strategy that exchanges, once it is known how many blocks share a head's channels out."""
    if plan.strategy.fusion == "none":
        return plan
    exchange, of_values = _of_values(problem, *plan.clusters)
    return plan.decide(_of_keys(problem), of_values, exchange=exchange)


def _of_keys(problem: CacheProblem) -> Decision:
    return Decision(
        "key_fusion",
        "none",
        "a sum over channels may run in any order",
        {"vector_size": problem.keys.vector_size},
        "a lane has a token, and adds up the products of what it decodes of it; no element moves",
        "VI-B",
    )


def _of_values(problem: CacheProblem, blocks: int = 1) -> tuple[Exchange, Decision]:
    """Of the channel groups that each of `blocks` blocks has."""
    size = problem.values.vector_size
    compute = problem.op.value_layout(size, blocks)
    if compute.lanes > 1:
        return choose_exchange(size, compute, float(problem.gpu.shared_roundtrip_per_shuffle.value))
    return Exchange(), Decision(
        "fusion",
        "none",
        "lanes = channel groups of a block, at most those of a warp",
        {"vector_size": size, "lanes": compute.lanes, "blocks": blocks},
        "a lane has all channels that the block has of a token: there is no other to exchange with",
        "VI-B, Algorithm 1",
    )
