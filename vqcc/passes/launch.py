"""Launch: grid, block and dynamic shared memory, once the compiler has said what a thread needs.

Blocks that decode stay resident and walk consecutive rows, so a codebook is loaded once per block, not once per row
block; the grid is what the GPU holds at a time, by the exact occupancy rules. A tile whose items need a block each has
as many blocks as items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.gpus.occupancy import OCCUPANCY_FACTS, blocks_per_sm, carveout_percent
from vqcc.plan import Decision, Launch

if TYPE_CHECKING:
    from vqcc.codegen.toolchain import Resources
    from vqcc.gpus.model import Gpu
    from vqcc.gpus.occupancy import Occupancy
    from vqcc.plan import KernelPlan
    from vqcc.problem import KernelProblem

__all__ = ["occupancy_of", "plan_launch"]

#: Any op's plan: passes return what they take.
AnyPlan = TypeVar("AnyPlan", bound="KernelPlan")


def occupancy_of(
    gpu: Gpu, kernel: str, threads: int, shared_bytes: int, resources: Resources, remedy: str
) -> Occupancy:
    """Blocks of a compiled kernel that an SM holds, with `shared_bytes` of dynamic shared memory each.

    Raises VQ0405 if it holds none; `remedy` is what else may help then.
    """
    occupancy = blocks_per_sm(
        gpu,
        threads=threads,
        registers_per_thread=resources.registers,
        shared_bytes=shared_bytes + resources.static_shared_bytes,
    )
    if occupancy.blocks == 0:
        raise VqccError(
            Diagnostic(
                "VQ0405",
                f"no block of {kernel} fits an SM of {gpu.name}: {threads} threads with "
                f"{resources.registers} registers each and {shared_bytes} bytes of shared memory exceed its "
                f"{occupancy.limited_by}",
                help=f"check the limits of the GPU, or use {remedy}",
            )
        )
    return occupancy


def plan_launch(problem: KernelProblem, plan: AnyPlan, resources: Resources) -> AnyPlan:
    """Fill the GPU once, or less if there is less work."""
    assert plan.tile is not None
    threads = 32 * plan.tile.warps
    shared = plan.dynamic_shared_bytes
    remedy = "an algorithm with smaller vectors or fewer rows of x"
    occupancy = occupancy_of(problem.gpu, plan.kernel, threads, shared, resources, remedy)
    resident = occupancy.blocks * problem.gpu.sm_count.integer
    grid = plan.tile.blocks if plan.tile.one_item_per_block else min(plan.tile.blocks, resident)
    return plan.decide(
        Decision(
            "grid",
            grid,
            "items" if plan.tile.one_item_per_block else "min(items, blocks per SM * SMs)",
            {
                "items": plan.tile.blocks,
                "blocks_per_sm": occupancy.blocks,
                "sm_count": problem.gpu.sm_count.integer,
                "registers": resources.registers,
                "shared_bytes": shared,
            },
            f"occupancy is limited by {occupancy.limited_by}; "
            + (
                "each block has one item"
                if plan.tile.one_item_per_block
                else "resident blocks walk consecutive items"
            ),
            "V-B, Fig. 10",
            facts=("sm_count", *OCCUPANCY_FACTS),
        ),
        launch=Launch(
            grid,
            threads,
            shared,
            occupancy.blocks,
            occupancy.limited_by,
            plan.tile.workspace_bytes,
            carveout_percent(problem.gpu, occupancy) if shared + resources.static_shared_bytes else 0,
            plan.tile.panel_rows,
        ),
        resources=resources,
    )
