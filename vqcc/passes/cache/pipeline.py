"""The passes of attention in order: from a problem to a plan, with the compiler between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.diagnostics import VqccError
from vqcc.ops.attention.tile import AttentionTile
from vqcc.passes.bounds import plan_bounds
from vqcc.passes.cache.cost import plan_cache_cost
from vqcc.passes.cache.exchange import plan_cache_exchange
from vqcc.passes.cache.layout import plan_cache_layout
from vqcc.passes.cache.placement import place_all_books, place_no_books, place_rows, place_slack_books
from vqcc.passes.cache.split import plan_cache_split
from vqcc.passes.cache.tile import plan_cache_tile, plan_cache_tiles
from vqcc.passes.launch import plan_launch
from vqcc.passes.slack import plan_slack
from vqcc.plan import CachePlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.codegen.resources import Resources
    from vqcc.levels import Strategy
    from vqcc.picks import TileIdentity
    from vqcc.problem import CacheProblem

__all__ = ["base_kernel", "estimate", "plan_base", "plan_compiled", "plan_kernel", "proposals"]


def plan_base(
    problem: CacheProblem, strategy: Strategy, attempt: int = 0, pinned: TileIdentity | None = None
) -> CachePlan | None:
    """Up to the tile, the op's proposal number `attempt`, or the one that is `pinned`. None: no more tiles."""
    return plan_cache_tile(problem, _analyze(problem, strategy), attempt, pinned)


def base_kernel(problem: CacheProblem, base: CachePlan) -> CachePlan:
    """The kernel with an empty codebook cache, which is compiled to see what it leaves."""
    return plan_bounds(problem, _empty(problem, base))


def plan_kernel(
    problem: CacheProblem, base: CachePlan, resources: Resources | None, *, hold: bool = True
) -> CachePlan:
    """Fill the codebook cache as the strategy says: from the slack of the base kernel that took `resources`, or not.

    With `hold` the compiler keeps the base kernel's occupancy.
    """
    if base.strategy.caching == "slack":
        assert base.tile is not None
        assert resources is not None
        threads, shared = 32 * base.tile.warps, base.tile.shared_bytes + resources.static_shared_bytes
        plan = plan_slack(problem, base, threads=threads, registers=resources.registers, shared_bytes=shared)
        plan = place_slack_books(problem, plan)
    elif base.strategy.caching == "all":
        plan = place_all_books(problem, base)
    else:
        plan = _empty(problem, base)
    return plan_bounds(problem, plan, hold=hold)


def plan_compiled(problem: CacheProblem, plan: CachePlan, resources: Resources) -> CachePlan:
    """Launch the kernel with what the compiler says it needs, and predict its time with the blocks that it then has."""
    plan = plan_launch(problem, plan, resources)
    assert isinstance(plan.tile, AttentionTile)
    assert plan.launch is not None
    launched = replace(plan, tile=replace(plan.tile, blocks=plan.launch.grid))
    return replace(plan_cache_cost(problem, launched), tile=plan.tile)


def estimate(
    problem: CacheProblem, strategy: Strategy, pinned: TileIdentity | None = None
) -> CachePlan | None:
    """A strategy's most promising tile, or the one that is `pinned`, with its predicted time; None if there is none.

    Nor is there one for whole books that do not fit beside it.
    """
    base = plan_base(problem, strategy, pinned=pinned)
    return None if base is None or not _books_fit(problem, base) else plan_cache_cost(problem, base)


def proposals(problem: CacheProblem, strategy: Strategy) -> Iterator[CachePlan]:
    """Every tile of a strategy with its predicted time, less those beside which a head's whole books do not fit."""
    for base in plan_cache_tiles(problem, _analyze(problem, strategy)):
        if _books_fit(problem, base):
            yield plan_cache_cost(problem, base)


def _analyze(problem: CacheProblem, strategy: Strategy) -> CachePlan:
    """Everything that needs no tile."""
    plan = plan_cache_split(problem, CachePlan(problem.kernel, problem.level, strategy))
    return plan_cache_layout(problem, plan_cache_exchange(problem, plan))


def _books_fit(problem: CacheProblem, base: CachePlan) -> bool:
    """Whether a head's books fit beside the tile, if the strategy caches them whole."""
    if base.strategy.caching != "all":
        return True
    try:
        place_all_books(problem, base)
    except VqccError:  # VQ0403, for a level that is asked for
        return False
    return True


def _empty(problem: CacheProblem, base: CachePlan) -> CachePlan:
    if base.strategy.dataflow == "decode":
        return place_no_books(problem, base)
    return place_rows(base)
