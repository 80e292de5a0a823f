"""The kernels that append to a cache: one pair for each element type, in every library of attention.

One kernel takes a token of each sequence (decode), the other any number of them (prefill). They write codes in the
layout that the library's other kernels read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.gpus.model import WARP_SIZE
from vqcc.gpus.occupancy import carveout_percent
from vqcc.ops.attention.append_tile import propose_append_tile
from vqcc.passes.launch import occupancy_of
from vqcc.plan import Launch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.codegen.resources import Resources
    from vqcc.ops.attention.append_tile import AppendTile
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["MANY_TOKENS", "AppendPlan", "launch_append", "plan_appends"]

#: New tokens of a sequence that a grid for many is made for: blocks take the rest in turn.
MANY_TOKENS = 4096


@dataclass(frozen=True)
class AppendPlan:
    """A kernel that appends a token to each sequence (`single`), or many; with what it is once it has been compiled."""

    kernel: str
    single: bool
    tile: AppendTile
    launch: Launch | None = None
    resources: Resources | None = None


def plan_appends(
    problems: Sequence[CacheProblem], plans: Sequence[CachePlan], mark: str = ""
) -> tuple[AppendPlan, ...]:
    """Two kernels for each element type of a library, in the order of their types; `mark` ends their names."""
    layout, library, op = plans[0].layout, problems[0].library, problems[0].op
    assert layout is not None
    return tuple(
        AppendPlan(
            "_".join(filter(None, (library, "append", "one" if single else "many", dtype, mark))),
            single,
            propose_append_tile(layout, dtype, max(op.batch), problems[0].gpu.sm_count.integer),
        )
        for dtype in sorted({problem.variant.dtype for problem in problems})
        for single in (True, False)
    )


def launch_append(problem: CacheProblem, plan: AppendPlan, resources: Resources) -> AppendPlan:
    """A grid of as many blocks as a token for each sequence takes; for many tokens, one that fills the GPU, or less.

    Raises VQ0405 if no block fits an SM.
    """
    threads, shared = WARP_SIZE * plan.tile.warps, plan.tile.shared_bytes
    remedy = "an algorithm with wider vectors or fewer stages"
    occupancy = occupancy_of(problem.gpu, plan.kernel, threads, shared, resources, remedy)
    resident = occupancy.blocks * problem.gpu.sm_count.integer
    grid = plan.tile.grid(1 if plan.single else MANY_TOKENS, resident)
    launch = Launch(
        grid,
        threads,
        shared,
        occupancy.blocks,
        occupancy.limited_by,
        carveout_percent=carveout_percent(problem.gpu, occupancy),
    )
    return replace(plan, launch=launch, resources=resources)
