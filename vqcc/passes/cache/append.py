"""The kernels that append to a cache: one pair for each element type and page size, in every library of attention.

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

    @property
    def page_tokens(self) -> int:
        """Tokens of the pages that it writes; 0: of a contiguous cache."""
        return self.tile.layout.page_tokens


def plan_appends(
    problems: Sequence[CacheProblem], plans: Sequence[CachePlan], mark: str = ""
) -> tuple[AppendPlan, ...]:
    """Two kernels for each element type and page size of a library, in that order; `mark` ends their names."""
    layout, library, op = plans[0].layout, problems[0].library, problems[0].op
    assert layout is not None
    found = {(problem.variant.dtype, problem.variant.sizes["page_tokens"]) for problem in problems}
    return tuple(
        AppendPlan(
            "_".join(
                filter(None, (library, op.append_variant(dtype, page_tokens, single=single).suffix, mark))
            ),
            single,
            propose_append_tile(
                layout.in_pages(page_tokens), dtype, max(op.batch), problems[0].gpu.sm_count.integer
            ),
        )
        for dtype, page_tokens in sorted(found)
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
