"""Bounds: the blocks that an SM must be able to hold, by which the compiler caps the registers of a thread.

The tile says how many registers it is made for, the placement how much shared memory is left; a kernel that fills its
base kernel's slack is held to that kernel's occupancy (VQ-LLM, Sec. V-B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vqcc.gpus.model import WARP_SIZE
from vqcc.gpus.occupancy import OCCUPANCY_FACTS, blocks_per_sm
from vqcc.plan import Decision

if TYPE_CHECKING:
    from vqcc.plan import KernelPlan
    from vqcc.problem import KernelProblem

__all__ = ["held_blocks", "plan_bounds", "promised_registers"]

#: Any op's plan: passes return what they take.
AnyPlan = TypeVar("AnyPlan", bound="KernelPlan")


def plan_bounds(problem: KernelProblem, plan: AnyPlan, *, hold: bool = True) -> AnyPlan:
    """Fill `minimum_blocks` of a plan that has its tile and placement.

    Without `hold` the compiler may take what the tile is made for, whatever occupancy the base kernel has.
    """
    assert plan.tile is not None
    threads, shared = WARP_SIZE * plan.tile.warps, plan.dynamic_shared_bytes
    own = max(1, blocks_per_sm(problem.gpu, threads, plan.tile.register_cap, shared).blocks)
    held = held_blocks(problem, plan) if hold and plan.slack is not None else 0
    blocks = max(own, held)
    inputs = {"threads": threads, "register_cap": plan.tile.register_cap, "shared_bytes": shared}
    formula = "blocks per SM of threads with register_cap registers and of shared_bytes"
    reason = "the compiler gives a thread no more registers than so many blocks leave it"
    if held:
        assert plan.slack is not None
        inputs["base_blocks"] = plan.slack.blocks_per_sm
        formula += ", but no less than the base kernel's as far as shared memory has room for them"
    if held > own:
        reason = "the kernel is held to its base kernel's occupancy, whatever its cache adds"
    return plan.decide(
        Decision("minimum_blocks", blocks, formula, inputs, reason, "V-B", facts=OCCUPANCY_FACTS),
        minimum_blocks=blocks,
    )


def held_blocks(problem: KernelProblem, plan: KernelPlan) -> int:
    """Blocks per SM that a kernel with a slack is to keep: its base kernel's, or what shared memory leaves of them.

    Only entries that a spec asks for take more than the slack.
    """
    assert plan.tile is not None
    assert plan.slack is not None
    by_shared = blocks_per_sm(problem.gpu, WARP_SIZE * plan.tile.warps, 0, plan.dynamic_shared_bytes)
    return min(plan.slack.blocks_per_sm, by_shared.blocks)


def promised_registers(problem: KernelProblem, plan: KernelPlan) -> int:
    """The most registers of a thread that the launch bounds leave it, before anything is compiled."""
    assert plan.tile is not None
    gpu = problem.gpu
    unit = gpu.register_allocation_unit.integer // WARP_SIZE  # of a thread
    left = gpu.registers_per_sm.integer // (WARP_SIZE * plan.tile.warps * plan.minimum_blocks)
    return int(min(left // unit * unit, gpu.registers_per_thread.integer))
