"""Attention on the CPU: launches of the emulator over tensors that it reads and writes where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.tensors.cache_packed_file import expected_parts
from vqcc.torch.arrays import array_of
from vqcc.torch.errors import reported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vqcc.torch.attention_op import Append, Attend
    from vqcc.torch.attention_runtime import AttentionRuntime, CacheTensors

__all__ = ["emulate_append", "emulate_attend"]


def emulate_attend(call: Attend) -> None:
    """Run the kernel that attends, into the call's outputs."""
    runtime, cache = call.runtime, call.cache
    launches, runner = runtime.emulated()
    queries = call.queries.contiguous()
    number = launches.select(call.dtype, queries.shape[0])
    assert number is not None
    kernel = runtime.library.builds[runtime.library.gpus[0]].kernels[number]
    inputs = {"queries": array_of(queries, call.dtype), **_indices(cache), **_stored(cache, call.dtype)}
    for name, (dtype, _) in expected_parts(runtime.library).items():
        if (books := call.books.get(name)) is not None:
            inputs[name] = array_of(books, dtype)
    outputs = {"outputs": array_of(call.outputs, call.dtype)}
    if call.log_sums.dim() > 1:
        outputs["log_sums"] = array_of(call.log_sums, "float32")
    scalars = {
        "batch": queries.shape[0],
        "query_tokens": queries.shape[1],
        **_page_numbers(runtime, cache),
        "softmax_scale": call.softmax_scale,
        "softcap": call.softcap,
        **_strides("q", queries),
        **_strides("out", call.outputs),
    }
    with reported():
        runner.run(kernel, inputs, outputs, scalars, np.zeros(kernel.launch.workspace_bytes, np.uint8))


def emulate_append(call: Append) -> None:
    """Run the kernel that appends, over the call's pages and windows."""
    runtime, cache = call.runtime, call.cache
    launches, runner = runtime.emulated()
    keys, values = call.keys.contiguous(), call.values.contiguous()
    build = runtime.library.builds[runtime.library.gpus[0]]
    number = launches.select_append(call.dtype, keys.shape[1])
    assert number is not None
    inputs = {
        "keys": array_of(keys, call.dtype),
        "values": array_of(values, call.dtype),
        "key_books": array_of(cache.key_books, "uint8"),
        "value_books": array_of(cache.value_books, "uint8"),
        **_indices(cache),
    }
    if call.counts is not None:
        inputs["counts"] = array_of(call.counts.contiguous(), "int32")
    scalars = {
        "batch": keys.shape[0],
        "new_tokens": keys.shape[1],
        **_page_numbers(runtime, cache),
        **_strides("key", keys),
        **_strides("value", values),
    }
    with reported():
        kernel = build.in_cubin[number]
        runner.run(kernel, inputs, _stored(cache, call.dtype), scalars, np.zeros(0, np.uint8))


def _stored(cache: CacheTensors, dtype: str) -> dict[str, NDArray[Any]]:
    """Pages and windows."""
    arrays = {"pages": array_of(cache.pages, "uint8")}
    if cache.key_window is not None and cache.value_window is not None:
        arrays["key_window"] = array_of(cache.key_window, dtype)
        arrays["value_window"] = array_of(cache.value_window, dtype)
    return arrays


def _indices(cache: CacheTensors) -> dict[str, NDArray[Any]]:
    """Lengths, and the page table of a paged cache."""
    arrays = {"lengths": array_of(cache.lengths.contiguous(), "int32")}
    if cache.page_table is not None:
        arrays["page_table"] = array_of(cache.page_table.contiguous(), "int32")
    return arrays


def _page_numbers(runtime: AttentionRuntime, cache: CacheTensors) -> dict[str, int]:
    table = None if cache.page_table is None else cache.page_table.contiguous()
    stride, blocks = runtime.page_numbers(cache._replace(page_table=table))
    return {"page_table_stride": stride, "page_blocks": blocks}


def _strides(prefix: str, tensor: Tensor) -> dict[str, int]:
    axes = ("sequence", "token", "head")
    return {f"{prefix}_{axis}_stride": step for axis, step in zip(axes, tensor.stride()[:3], strict=True)}
