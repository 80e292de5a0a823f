"""The C header of a library of attention: functions that attend and append, and that check a cache (docs/header.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vqcc.book_shapes import book_shapes
from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.codegen.contract import contract_values
from vqcc.codegen.header import HeaderLaunch, gpu_names, header_kernel, library_values
from vqcc.codegen.render import environment
from vqcc.codegen.render_cache import describe_cache
from vqcc.codegen.text import hexadecimal, integers, literal
from vqcc.workspaces import sufficient_of_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.cache_layouts import CacheLayout
    from vqcc.codegen.header import HeaderKernel
    from vqcc.levels import Dataflow
    from vqcc.ops.attention.model import AttentionDecode
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["render_cache_header"]

#: What a kernel does, as the header's table of kernels says it.
ATTENDS, APPENDS_ONE, APPENDS_MANY = 0, 1, 2


def render_cache_header(
    name: str,
    problems: Sequence[Sequence[CacheProblem]],
    plans: Sequence[Sequence[CachePlan]],
    appends: Sequence[Sequence[AppendPlan]],
    build_id: str,
    layout_id: str,
    portable: Sequence[bool],
) -> str:
    """The header of library `name`; `problems`, `plans` and `appends` are one row of kernels per GPU, in order.

    `portable` says of each GPU whether its code has no instructions of that architecture alone.
    """
    problem, plan = problems[0][0], plans[0][0]
    assert plan.layout is not None
    # Books are packed once for all kernels: by rows or entry by entry, codes in one order.
    assert len({_shared(each) for row in plans for each in row}) == 1
    op, variant = problem.op, problem.variant
    choices = ("page_blocks",) if len(op.page_sizes) > 1 else ()
    rows = [
        (*map(_kernel, *pair), *(_append_kernel(pair[0][0], each) for each in of_gpu))
        for pair, of_gpu in zip(zip(problems, plans, strict=True), appends, strict=True)
    ]
    variants = [each.variant for each in problems[0]]
    workspaces = sufficient_of_kernels(variants, "batch", [row[: len(variants)] for row in rows])
    gpus = [row[0].gpu for row in problems]
    return (
        environment()
        .get_template(op.header_template)
        .render(
            **library_values(
                name, problem.library, f"{describe_cache(problem)}, level {plan.level}", gpus, portable
            ),
            **contract_values("cache", gpus=gpu_names(gpus), max_batch=max(op.batch), max_context=op.context),
            build_id=hexadecimal(build_id),
            layout_id=hexadecimal(layout_id),
            kernel_count=len(rows[0]),
            kernels=tuple(rows),
            # Kernels that append come after those that attend, and have none.
            workspace_bytes=(*workspaces, *(0 for _ in appends[0])),
            launches=(
                HeaderLaunch.of(
                    "launch", "args", "supports", "select", "batch", op.arguments(variant), choices
                ),
                HeaderLaunch.of(
                    "append",
                    "append_args",
                    "supports_append",
                    "select_append",
                    "new_tokens",
                    op.append_arguments(variant),
                    choices,
                ),
            ),
            q_heads=op.q_heads,
            kv_heads=op.kv_heads,
            head_dim=op.head_dim,
            max_batch=max(op.batch),
            max_query_tokens=op.query_tokens,
            max_context=op.context,
            window=op.window,
            sliding_window=op.sliding_window,
            paged=int(op.paged),
            page_tokens=op.page_tokens,
            page_sizes=integers(op.page_sizes),
            page_size_count=len(op.page_sizes),
            block_tokens=BLOCK_TOKENS,
            block_bytes=plan.layout.block_bytes,
            **_rope(op),
            **_books(problem, by_rows=plan.strategy.dataflow != "decode"),
            needs_facts=int(plan.strategy.dataflow != "decode"),
            needs_rotations=int(op.rope != "none"),
            needs_softcap=int(op.softcap),
        )
    )


def _rope(op: AttentionDecode) -> dict[str, Any]:
    """How keys are rotated, as the header's macros say it."""
    return {
        "rope": {"none": 0, "half": 1, "interleaved": 2}[op.rope],
        "rope_base": literal(repr(float(op.rope_base))),
        "rope_scaling": literal(repr(float(op.rope_scaling))),
    }


def _books(problem: CacheProblem, *, by_rows: bool) -> dict[str, int]:
    """Bytes of the packed books, by rows or entry by entry."""
    shapes = book_shapes(problem.keys, problem.values, problem.op, by_rows=by_rows)
    sizes = {"float32": 4, "uint8": 1, "uint64": 8}
    held = {name: sizes[dtype] * math.prod(shape) for name, (dtype, shape) in shapes.items()}
    names = ("key_books", "value_books", "append_key_books", "append_value_books", "book_facts")
    return {"books_by_rows": int(by_rows), **{f"{name}_bytes": held.get(name, 0) for name in names}}


def _shared(plan: CachePlan) -> tuple[CacheLayout, Dataflow]:
    """What all kernels of a library have: their layout less the size of pages, and their dataflow."""
    assert plan.layout is not None
    return plan.layout.in_pages(0), plan.strategy.dataflow


def _kernel(problem: CacheProblem, plan: CachePlan) -> HeaderKernel:
    assert plan.launch is not None
    variant = problem.variant
    bounds = (variant.sizes["batch"], ATTENDS, variant.sizes["page_tokens"] // BLOCK_TOKENS)
    return header_kernel(plan.kernel, variant.dtype, bounds, plan.launch, problem.gpu)


def _append_kernel(problem: CacheProblem, plan: AppendPlan) -> HeaderKernel:
    assert plan.launch is not None
    task = APPENDS_ONE if plan.single else APPENDS_MANY
    bounds = (plan.tile.batch, task, plan.page_tokens // BLOCK_TOKENS)
    return header_kernel(plan.kernel, plan.tile.dtype, bounds, plan.launch, problem.gpu)
