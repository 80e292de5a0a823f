"""Tile: what a block and a warp of an attention kernel work on."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from vqcc.ops.attention.proposals import propose_tiles
from vqcc.ops.attention.tile import AttentionWork
from vqcc.passes.cache.placement import head_bytes
from vqcc.passes.tile import LIMITS, RATES, machine_of
from vqcc.picks import tile_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.picks import TileIdentity
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["plan_cache_tile", "plan_cache_tiles", "work_of"]


def work_of(problem: CacheProblem, plan: CachePlan) -> AttentionWork:
    """A launch of the problem in numbers."""
    assert plan.layout is not None
    op, variant = problem.op, problem.variant
    return AttentionWork(
        layout=plan.layout,
        dtype=variant.dtype,
        batch=variant.sizes["batch"],
        context=op.context,
        query_rows=op.query_rows,
        # Row sets are no more than rows: so many counters do for every tile and bound of the library.
        counters=op.q_heads * op.query_tokens * max(op.batch),
        rotated=op.rope != "none",
        window=op.window,
        exchange=plan.exchange,
    )


def plan_cache_tile(
    problem: CacheProblem, plan: CachePlan, attempt: int = 0, pinned: TileIdentity | None = None
) -> CachePlan | None:
    """Take the op's proposal number `attempt` of those of `plan_cache_tiles`. None when there are no more."""
    return next(islice(plan_cache_tiles(problem, plan, pinned), attempt, None), None)


def plan_cache_tiles(
    problem: CacheProblem, plan: CachePlan, pinned: TileIdentity | None = None
) -> Iterator[CachePlan]:
    """The plan with each of the op's proposals for its dataflow; with `pinned`, those that are that tile."""
    if plan.strategy.codebook_centric and plan.strategy.dataflow != "decode" and not plan.clusters:
        return
    work, machine = work_of(problem, plan), machine_of(problem.gpu)
    # Of clusters each block has room for its books, or as much of them; else what the base kernel leaves is for books,
    # and only whole ones take from how many blocks an SM holds.
    dataflow, caching = plan.strategy.dataflow, plan.strategy.caching
    cached = dataflow == "decode" and (caching == "all" or (caching == "slack" and bool(plan.clusters)))
    proposed = propose_tiles(dataflow, work, machine, plan.clusters, head_bytes(problem) if cached else 0)
    for tile, decisions in proposed:
        if pinned is None or tile_identity(tile) == pinned:
            own = (replace(decision, facts=(*LIMITS, *RATES)) for decision in decisions)
            yield plan.decide(*own, tile=tile)
