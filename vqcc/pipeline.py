"""The passes in order: from a problem to a plan. `vqcc.search` runs them, and the compiler between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.passes.cost import plan_cost
from vqcc.passes.exchange import plan_exchange
from vqcc.passes.hotness import plan_hotness
from vqcc.passes.launch import plan_launch
from vqcc.passes.layout import plan_layout
from vqcc.passes.placement import place_all, place_none, place_slack
from vqcc.passes.slack import plan_slack
from vqcc.passes.split import plan_split
from vqcc.passes.tile import plan_tile
from vqcc.plan import Plan

if TYPE_CHECKING:
    from vqcc.codegen.toolchain import Resources
    from vqcc.levels import Strategy
    from vqcc.problem import Problem

__all__ = ["analyze", "plan_base", "plan_compiled", "plan_kernel"]


def analyze(problem: Problem, strategy: Strategy) -> Plan:
    """Everything that needs no tile: layout, hotness, exchange, split."""
    plan = Plan(problem.kernel, problem.level, strategy)
    plan = plan_layout(problem, plan)
    plan = plan_hotness(problem, plan)
    plan = plan_exchange(problem, plan)
    return plan_split(problem, plan)


def plan_base(problem: Problem, strategy: Strategy, attempt: int = 0) -> Plan | None:
    """Up to the tile; the cache empty unless the strategy fills it whatever the slack. None: no more tiles."""
    plan = analyze(problem, strategy)
    if strategy.caching == "all":
        return plan_tile(problem, place_all(problem, plan), attempt)
    tiled = plan_tile(problem, plan, attempt)
    if tiled is None or strategy.caching == "slack":
        return tiled
    return place_none(problem, tiled)


def plan_kernel(
    problem: Problem, base: Plan, resources: Resources | None, cut: int = 0, *, hold: bool = True
) -> Plan:
    """Fill the cache from the slack that the compiled base kernel leaves; a plan that needs none is returned as is.

    `cut` halves what registers hold so often; with `hold` the compiler keeps the base kernel's occupancy.
    """
    if base.strategy.caching == "slack":
        assert base.tile is not None
        assert resources is not None
        threads, shared = 32 * base.tile.warps, base.tile.shared_bytes + resources.static_shared_bytes
        base = plan_slack(problem, base, threads=threads, registers=resources.registers, shared_bytes=shared)
        base = place_slack(problem, base, cut)
        if hold:
            base = keep_occupancy(base)
    return base


def plan_compiled(problem: Problem, plan: Plan, resources: Resources) -> Plan:
    """Launch the kernel with what the compiler says it needs, and predict its time."""
    return plan_cost(problem, plan_launch(problem, plan, resources))


def keep_occupancy(plan: Plan) -> Plan:
    """Have the compiler hold the kernel to the base kernel's blocks per SM, whatever the cache adds."""
    assert plan.slack is not None
    assert plan.tile is not None
    blocks = max(plan.tile.minimum_blocks, plan.slack.blocks_per_sm)
    return replace(plan, tile=replace(plan.tile, minimum_blocks=blocks))  # type: ignore[type-var]
