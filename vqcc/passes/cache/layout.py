"""Layout: how the codes of a cache lie, the same for every kernel of a library but for pages (packed-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.passes.cache.dataflow import KEY_ORDERS
from vqcc.plan import Decision, Rejected

if TYPE_CHECKING:
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["plan_cache_layout"]

_WHY = {
    "plain": "a lane decodes the channel groups of its token in order",
    "rotated": "lanes, a token each, look tables of different channel groups up at a time: no two meet in a bank",
    "fragment": "lanes look up what they hold of an operand of tensor cores, in turns that meet in no bank",
}


def plan_cache_layout(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Lay codes out for the dataflow of the plan's strategy."""
    order = KEY_ORDERS[plan.strategy.dataflow]
    layout = problem.op.layout(problem.keys, problem.values, order)
    layout = layout.in_pages(problem.variant.sizes["page_tokens"])
    return plan.decide(
        Decision(
            "cache_layout",
            f"token blocks of {layout.block_bytes} bytes, keys {order}",
            f"codes of {BLOCK_TOKENS} tokens together: keys lane by token, values lane by channel group",
            {
                "key_groups": layout.key_groups,
                "value_groups": layout.value_groups,
                "page_tokens": layout.page_tokens,
            },
            _WHY[order],
            rejected=tuple(Rejected(other, "another dataflow's") for other in _WHY if other != order),
        ),
        layout=layout,
    )
