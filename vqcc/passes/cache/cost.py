"""Cost: how long a kernel of attention takes, by its tile's counts and the GPU's rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.attention.cluster_tile import ClusterTile
from vqcc.ops.attention.tile import AttentionTile
from vqcc.passes.cache.placement import head_bytes
from vqcc.passes.tile import RATES, machine_of
from vqcc.plan import Decision

if TYPE_CHECKING:
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["plan_cache_cost"]

#: Token blocks of kernels that decode, relative to those whose books lie in shared memory as a whole: fitted to kernels
#: of an H200 (docs/performance.md). Where a part of the books does, the lanes of a warp part ways at most look-ups.
NO_BOOKS, PART_OF_BOOKS, WHOLE_BOOKS = 1.1, 1.35, 1.0


def plan_cache_cost(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Note the predicted time of a launch of as many sequences as the bound, each as long as the context."""
    assert isinstance(plan.tile, AttentionTile)
    cycles = dict(plan.tile.phase_cycles(machine_of(problem.gpu)))
    if plan.strategy.dataflow == "decode":
        cycles["token_blocks"] *= _cached(problem, plan)
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


def _cached(problem: CacheProblem, plan: CachePlan) -> float:
    """What a token block takes by where look-ups find entries; before books are placed, where the strategy may."""
    assert isinstance(plan.tile, AttentionTile)
    sides = (plan.keys, problem.keys), (plan.values, problem.values)
    held = [placement.n_shared / algorithm.entries for placement, algorithm in sides if placement is not None]
    if not held:
        held = [0.0 if plan.strategy.caching == "global" else 1.0 if _books_fit(problem, plan.tile) else 0.5]
    return NO_BOOKS if max(held) == 0 else WHOLE_BOOKS if min(held) == 1 else PART_OF_BOOKS


def _books_fit(problem: CacheProblem, tile: AttentionTile) -> bool:
    """Whether shared memory holds the books of all blocks that the grid leaves to an SM."""
    machine = machine_of(problem.gpu)
    resident = -(-tile.blocks // machine.sm_count)
    books = head_bytes(problem) // (tile.cluster if isinstance(tile, ClusterTile) else 1)
    return (
        resident * (tile.shared_bytes + books + machine.shared_bytes_reserved) <= machine.shared_bytes_per_sm
    )
