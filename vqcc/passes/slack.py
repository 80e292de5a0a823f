"""Slack: what a kernel can still take at the occupancy it has (VQ-LLM, Sec. V-B, Fig. 10).

The limits by registers and by shared memory do not depend on each other, so both may be used up together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vqcc.gpus.occupancy import OCCUPANCY_FACTS, blocks_per_sm
from vqcc.plan import Decision, Rejected, Slack

if TYPE_CHECKING:
    from collections.abc import Callable

    from vqcc.gpus.model import Gpu
    from vqcc.plan import KernelPlan
    from vqcc.problem import KernelProblem

__all__ = ["find_slack", "plan_slack"]

#: Any op's plan: passes return what they take.
AnyPlan = TypeVar("AnyPlan", bound="KernelPlan")


def find_slack(gpu: Gpu, *, threads: int, registers: int, shared_bytes: int) -> Slack:
    """The most registers per thread and shared bytes per block that leave the blocks per SM as they are.

    Of a kernel with `threads` per block, `registers` per thread, `shared_bytes` of static and dynamic shared
    memory. A kernel that does not fit the GPU at all has no slack. Raises ValueError for negative resources.
    """
    blocks = blocks_per_sm(gpu, threads, registers, shared_bytes).blocks
    if blocks == 0:
        return Slack(0, 0, 0)

    def holds(more_registers: int, more_shared: int) -> bool:
        found = blocks_per_sm(gpu, threads, registers + more_registers, shared_bytes + more_shared)
        return found.blocks >= blocks

    most_registers = gpu.registers_per_thread.integer - registers
    most_shared = gpu.shared_bytes_per_block.integer - shared_bytes
    return Slack(
        blocks,
        _largest(most_registers, lambda more: holds(more, 0)),
        _largest(most_shared, lambda more: holds(0, more)),
    )


def plan_slack(
    problem: KernelProblem, plan: AnyPlan, *, threads: int, registers: int, shared_bytes: int
) -> AnyPlan:
    """Note the slack of the base kernel, compiled with an empty codebook cache, that has these resources."""
    gpu = problem.gpu
    slack = find_slack(gpu, threads=threads, registers=registers, shared_bytes=shared_bytes)
    more_registers = slack.registers + 1
    more_shared = slack.shared_bytes + gpu.shared_allocation_unit.integer
    beyond = (
        (
            f"{more_registers} registers",
            blocks_per_sm(gpu, threads, registers + more_registers, shared_bytes),
        ),
        (f"{more_shared} bytes", blocks_per_sm(gpu, threads, registers, shared_bytes + more_shared)),
    )
    decision = Decision(
        "slack",
        f"{slack.registers} registers, {slack.shared_bytes} bytes",
        "the most registers a thread and shared bytes a block that keep the blocks per SM",
        {
            "blocks_per_sm": slack.blocks_per_sm,
            "threads": threads,
            "base_registers": registers,
            "base_shared_bytes": shared_bytes,
        },
        "what the base kernel leaves unused costs no occupancy",
        "V-B, Fig. 10",
        tuple(
            Rejected(
                value,
                f"{found.blocks} blocks per SM instead of {slack.blocks_per_sm}"
                if found.blocks
                else "no block fits the SM",
            )
            for value, found in beyond
        ),
        OCCUPANCY_FACTS,
    )
    return plan.decide(decision, slack=slack)


def _largest(most: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `most` that holds; 0 does, and none does beyond one that does not."""
    low, high = 0, max(0, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
