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

    from vqcc.torch.attention_op import AppendCall, AttendCall

__all__ = ["emulate_append", "emulate_attend"]


def emulate_attend(call: AttendCall) -> None:
    """Run the kernel that attends, into the call's outputs."""
    runtime, packed = call.runtime, call.packed
    launches, runner = runtime.emulated()
    queries = call.queries.contiguous()
    page_numbers = _page_numbers(call)
    number = launches.select(call.dtype, queries.shape[0], page_numbers["page_blocks"])
    assert number is not None
    kernel = runtime.library.builds[runtime.library.gpus[0]].kernels[number]
    inputs = {"queries": array_of(queries, call.dtype), **_indices(call), **_stored(call)}
    for name, (dtype, _) in expected_parts(runtime.library).items():
        if (books := getattr(packed, name, None)) is not None:
            inputs[name] = array_of(books, dtype)
    outputs = {"outputs": array_of(call.outputs, call.dtype)}
    if call.log_sums is not None:
        outputs["log_sums"] = array_of(call.log_sums, "float32")
    scalars = {
        "batch": queries.shape[0],
        "query_tokens": queries.shape[1],
        **page_numbers,
        "softmax_scale": call.softmax_scale,
        "softcap": call.softcap,
        **_strides("q", queries),
        **_strides("out", call.outputs),
    }
    with reported():
        runner.run(kernel, inputs, outputs, scalars, np.zeros(kernel.launch.workspace_bytes, np.uint8))


def emulate_append(call: AppendCall) -> None:
    """Run the kernel that appends, over the call's pages and windows."""
    runtime, packed = call.runtime, call.packed
    launches, runner = runtime.emulated()
    keys, values = call.keys.contiguous(), call.values.contiguous()
    build = runtime.library.builds[runtime.library.gpus[0]]
    page_numbers = _page_numbers(call)
    number = launches.select_append(call.dtype, keys.shape[1], page_numbers["page_blocks"])
    assert number is not None
    inputs = {
        "keys": array_of(keys, call.dtype),
        "values": array_of(values, call.dtype),
        "key_books": array_of(packed.append_key_books, "uint8"),
        "value_books": array_of(packed.append_value_books, "uint8"),
        **_indices(call),
    }
    if call.counts is not None:
        inputs["counts"] = array_of(call.counts.contiguous(), "int32")
    scalars = {
        "batch": keys.shape[0],
        "new_tokens": keys.shape[1],
        **page_numbers,
        **_strides("key", keys),
        **_strides("value", values),
    }
    with reported():
        kernel = build.in_cubin[number]
        runner.run(kernel, inputs, _stored(call), scalars, np.zeros(0, np.uint8))


def _stored(call: AttendCall | AppendCall) -> dict[str, NDArray[Any]]:
    """Pages and windows."""
    packed = call.packed
    arrays = {"pages": array_of(packed.pages, "uint8")}
    if packed.key_window is not None and packed.value_window is not None:
        arrays["key_window"] = array_of(packed.key_window, call.dtype)
        arrays["value_window"] = array_of(packed.value_window, call.dtype)
    return arrays


def _indices(call: AttendCall | AppendCall) -> dict[str, NDArray[Any]]:
    """Lengths, and the page table of a paged cache."""
    arrays = {"lengths": array_of(call.lengths.contiguous(), "int32")}
    if call.page_table is not None:
        arrays["page_table"] = array_of(call.page_table.contiguous(), "int32")
    return arrays


def _page_numbers(call: AttendCall | AppendCall) -> dict[str, int]:
    return {
        "page_table_stride": 0 if call.page_table is None else call.page_table.shape[1],
        "page_blocks": call.packed.pages.shape[1] // call.runtime.block_bytes,
    }


def _strides(prefix: str, tensor: Tensor) -> dict[str, int]:
    axes = ("sequence", "token", "head")
    return {f"{prefix}_{axis}_stride": step for axis, step in zip(axes, tensor.stride()[:3], strict=True)}
