"""Tile: what a warp and a block of the op's kernel work on.

The op proposes tiles, the most promising first; `attempt` counts those whose compiled kernel needed a stack
frame or spilled registers, and were therefore dropped.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["plan_tile"]


def plan_tile(problem: Problem, plan: Plan, attempt: int = 0) -> Plan | None:
    """Take the op's proposal number `attempt`; None when there are no more."""
    assert plan.layout is not None
    assert plan.placement is not None
    proposals = problem.op.tiles(problem.variant, problem.algorithm, plan.layout, problem.gpu, plan.placement)
    chosen = next(islice(proposals, attempt, None), None)
    if chosen is None:
        return None
    tile, decisions = chosen
    return plan.decide(*decisions, tile=tile)
