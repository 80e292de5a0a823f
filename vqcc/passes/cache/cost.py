"""Cost: how long a kernel of attention takes, by its tile's counts and the GPU's rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.attention.tile import AttentionTile
from vqcc.passes.tile import RATES, machine_of
from vqcc.plan import Decision

if TYPE_CHECKING:
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["plan_cache_cost"]


def plan_cache_cost(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Note the predicted time of a launch of as many sequences as the bound, each as long as the context."""
    assert isinstance(plan.tile, AttentionTile)
    cycles = plan.tile.phase_cycles(machine_of(problem.gpu))
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
            f"most of it {max(cycles, key=lambda name: cycles[name]).replace('_', ' ')}",
            facts=("sm_count", *RATES, "launch_seconds"),
        ),
        predicted_us=round(1e6 * seconds, 2),
    )
