"""Planned kernels of attention on the emulator: what the rig of device tests has to know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caches import LENGTHS
from device.attention import Books, Case

from vqcc.codegen.render_cache import render_cache_source
from vqcc.ops.attention.cluster_tile import ClusterTile
from vqcc.ops.attention.tile import AttentionTile
from vqcc.passes.cache.append import plan_appends

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["books_of", "case_of", "render"]


def render(problem: CacheProblem, plan: CachePlan, *, appends: bool = True) -> str:
    """The source of a library of one kernel that attends, and those that append: they take most of its compilation."""
    return render_cache_source([problem], [plan], plan_appends([problem], [plan]) if appends else ())


def books_of(algorithm: Algorithm, head_dim: int) -> Books:
    """An algorithm as the rig has it."""
    heads, groups = algorithm.scope.cache_books(2, head_dim // algorithm.vector_size)
    scope = "group" if groups > 1 else "head" if heads > 1 else "layer"
    return Books(algorithm.vector_size, algorithm.code_bits, algorithm.residuals, scope)


def case_of(problem: CacheProblem, plan: CachePlan, **other: Any) -> Case:
    """What the emulator's rig has to know of a planned kernel."""
    op, tile, launch, layout = problem.op, plan.tile, plan.launch, plan.layout
    assert isinstance(tile, AttentionTile)
    assert launch is not None
    assert layout is not None
    fields: dict[str, Any] = {
        "keys": books_of(problem.keys, op.head_dim),
        "values": books_of(problem.values, op.head_dim),
        "query_heads": op.q_heads,
        "heads": op.kv_heads,
        "head_dim": op.head_dim,
        "window": op.window,
        "sliding_window": op.sliding_window,
        "softcap": 5.0 if op.softcap else 0.0,
        "rope": op.rope,
        "page_tokens": layout.page_tokens,
        "key_order": layout.key_order,
        "dtype": problem.variant.dtype,
        "query_tokens": op.query_tokens,
        "lengths": LENGTHS,
        "warps": tile.warps,
        "rows": tile.rows,
        "row_sets": tile.row_sets,
        "grid": min(launch.grid, 7),  # enough for shares of any kind
        "kernel": plan.strategy.dataflow,
        "shared_bytes": launch.dynamic_shared_bytes,
        "own_arrival_bytes": tile.arrival_bytes,
    }
    if isinstance(tile, ClusterTile):
        fields |= {
            "kernel": f"cluster {plan.strategy.dataflow}",
            "cluster": tile.cluster,
        }
        other = {**other, "grid": tile.cluster * min(other.get("grid", 3), launch.grid // tile.cluster)}
    return Case(**{**fields, **other})
