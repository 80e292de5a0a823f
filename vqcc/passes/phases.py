"""Phases: placement and cost of kernels whose shared memory and cycles their op counts itself.

Dataflows past the paper's have kernels of their own: what they keep in shared memory is part of their tile, and what
they do follows one another in phases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.passes.cost import plan_cost
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import RATES, machine_of, workload_of
from vqcc.plan import Decision

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["place_nothing", "plan_phase_cost", "plan_time"]


def place_nothing(problem: Problem, plan: Plan) -> Plan:
    """Cache no entries apart from the tile: what a block holds is the tile's own."""
    return replace(plan, placement=certain_placement(problem, plan))


def plan_phase_cost(problem: Problem, plan: Plan) -> Plan:
    """Note the predicted time: the op counts the cycles of a block's phases, which follow one another."""
    assert plan.tile is not None
    work = workload_of(problem, plan, certain_placement(problem, plan))
    cycles = problem.op.phase_cycles(plan.tile, work, machine_of(problem.gpu))
    hertz = float(problem.gpu.sustained_hertz.value)
    launch = float(problem.gpu.launch_seconds.value)
    seconds = launch + sum(cycles.values()) / hertz
    return plan.decide(
        Decision(
            "predicted_us",
            round(1e6 * seconds, 2),
            "launch + phases, from their cycles at the clock under load",
            {
                "launch_us": round(1e6 * launch, 2),
                **{f"{name}_us": round(1e6 * value / hertz, 2) for name, value in cycles.items()},
                "sustained_hertz": hertz,
            },
            f"bound by {max(cycles, key=lambda name: cycles[name])}",
            facts=("sm_count", *RATES, "launch_seconds"),
        ),
        predicted_us=round(1e6 * seconds, 2),
    )


def plan_time(problem: Problem, plan: Plan) -> Plan:
    """Note the predicted time, as the plan's dataflow counts it."""
    return (plan_cost if plan.strategy.dataflow == "decode" else plan_phase_cost)(problem, plan)
