"""Launches of attention to validate: what kernels that attend and that append are given, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.ops.attention.reference import attend, rotate
from vqcc.tensors.vq_tensor import numpy_dtype
from vqcc.verify.host_cache import draw_cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.cache_library import AppendKernel, CacheLibrary
    from vqcc.ops.attention.reference import Attended
    from vqcc.ops.base import Variant
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.verify.host_cache import HostCache

    Sides = tuple[CacheTensor, CacheTensor]

__all__ = ["CacheLaunch", "append_case", "attend_case", "attended", "lengths_of", "strides_of"]

#: Elements between heads of queries and outputs beyond a head's own: kernels follow strides, and leave the rest alone.
PADDING = 8
#: Lengths beside the longest, in turn: none, one token, the ends of blocks and what follows them.
_LENGTHS = (0, 1, 33, 32, 65, 31)
#: Tokens that sequences have and get in a launch that appends many: into new blocks, across their ends, none.
_HELD, _NEW = (31, 0, 40, 7), (3, 2, 0, 1)
SOFTCAP = 20.0


@dataclass(frozen=True)
class CacheLaunch:
    """Arrays and scalars of one launch by argument name, and the cache that it reads, or writes.

    `outputs` are overwritten; arrays that are read as well are among them.
    """

    sizes: Mapping[str, int]
    cache: HostCache
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    scalars: Mapping[str, float] = field(default_factory=dict)


def lengths_of(batch: int, context: int, query_tokens: int, tokens: int) -> list[int]:
    """Lengths of `batch` sequences, `tokens` in all at most as far as that leaves the longest its query tokens.

    The first is the longest, others are those at which kernels may err; none is between 0 and the query tokens.
    """
    lengths = [min(context, max(query_tokens, tokens // 2))]
    for number in range(1, batch):
        length = min(context, _LENGTHS[(number - 1) % len(_LENGTHS)])
        lengths.append(length if length == 0 or length >= query_tokens else query_tokens)
    return lengths


def attend_case(
    library: CacheLibrary,
    variant: Variant,
    tensors: Sides,
    lengths: Sequence[int],
    query_tokens: int,
    rng: np.random.Generator,
) -> CacheLaunch:
    """Draw queries and a cache of sequences of `lengths`, in pages of the variant's size."""
    op, element, layout = library.op, numpy_dtype(variant.dtype), library.layout_of(variant)
    cache = draw_cache(rng, layout, op.window, element, tensors, lengths, max(*lengths, 1))
    shape = (len(lengths), query_tokens, op.q_heads, op.head_dim + PADDING)
    queries = rng.standard_normal(shape, dtype=np.float32).astype(element)
    inputs = {"queries": queries, **_cache_arrays(cache), "lengths": cache.lengths}
    if cache.table is not None:
        inputs["page_table"] = cache.used_table()
    outputs = {
        "outputs": np.full(shape, -1.5).astype(element),
        "log_sums": np.full(shape[:-1], np.nan, np.float32),
    }
    scalars: dict[str, float] = {
        "batch": len(lengths),
        "query_tokens": query_tokens,
        **_page_scalars(cache),
        "softmax_scale": op.head_dim**-0.5,
        "softcap": SOFTCAP if op.softcap else 0.0,
        **strides_of("q", queries),
        **strides_of("out", queries),
    }
    sizes = {"batch": len(lengths), "longest": max(lengths), "query_tokens": query_tokens}
    return CacheLaunch(sizes, cache, inputs, outputs, scalars)


def attended(library: CacheLibrary, case: CacheLaunch, tensors: Sides) -> Attended:
    """The exact result of a launch that attends."""
    op, cache = library.op, case.cache
    keys = [cache.decoded(tensors[0], sequence, keys=True) for sequence in range(len(cache.lengths))]
    values = [cache.decoded(tensors[1], sequence, keys=False) for sequence in range(len(cache.lengths))]
    rotated = [
        rotate(each, np.arange(each.shape[1]), op.rope, op.rope_base, op.rope_scaling) for each in keys
    ]
    return attend(
        case.inputs["queries"][..., : op.head_dim],
        rotated,
        values,
        scale=case.scalars["softmax_scale"],
        softcap=case.scalars["softcap"],
        sliding_window=op.sliding_window,
        rope=op.rope,
    )


def append_case(
    library: CacheLibrary, kernel: AppendKernel, tensors: Sides, batch: int, rng: np.random.Generator
) -> tuple[CacheLaunch, HostCache]:
    """Draw a cache and new tokens for `batch` of its sequences: a launch, and the cache that it must leave."""
    op, element = library.op, numpy_dtype(kernel.variant.dtype)
    new = [1 if kernel.single else _NEW[number % len(_NEW)] for number in range(batch)]
    most = max(new)
    held = [min(_HELD[number % len(_HELD)] + op.window // 2, op.context - most) for number in range(batch)]
    held = [max(0, each) for each in held]
    layout = library.layout_of(kernel.variant)
    cache = draw_cache(rng, layout, op.window, element, tensors, held, op.window + 64 + most)
    shape = (batch, most, op.kv_heads, op.head_dim)
    keys, values = (rng.standard_normal(shape, dtype=np.float32).astype(element) for _ in "kv")
    wanted = cache.appended(tensors, (keys, values), new)
    inputs = {"keys": keys, "values": values, "lengths": wanted.lengths}
    if not kernel.single:
        inputs["counts"] = np.array(new, np.int32)
    arrays = _cache_arrays(cache)
    if "page_table" in arrays:
        inputs["page_table"] = arrays.pop("page_table")
    scalars: dict[str, float] = {
        "batch": batch,
        "new_tokens": most,
        **_page_scalars(cache),
        **strides_of("key", keys),
        **strides_of("value", values),
    }
    written = {name: array.copy() for name, array in arrays.items()}
    return CacheLaunch({"batch": batch, "new_tokens": most}, cache, inputs, written, scalars), wanted


def _cache_arrays(cache: HostCache) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"pages": cache.pages.view(np.uint8)}
    if cache.table is not None:
        arrays["page_table"] = cache.table
    if cache.window:
        arrays |= {"key_window": cache.key_window, "value_window": cache.value_window}
    return arrays


def _page_scalars(cache: HostCache) -> dict[str, int]:
    return {
        "page_table_stride": 0 if cache.table is None else cache.table.shape[1],
        "page_blocks": cache.page_blocks,
    }


def strides_of(prefix: str, array: NDArray[Any]) -> dict[str, int]:
    """Strides of [sequences, tokens, heads, channels], in elements."""
    steps = (stride // array.itemsize for stride in array.strides[:3])
    return {
        f"{prefix}_{axis}_stride": step
        for axis, step in zip(("sequence", "token", "head"), steps, strict=True)
    }
