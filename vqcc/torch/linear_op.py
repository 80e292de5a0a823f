"""torch.ops.vqcc.linear: y = x W^T (+ bias) over a packed weight, on CUDA, on the CPU by emulation, and on meta.

The operator is functional. Its workspace is no output: a launch leaves there what it found (docs/torch.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vqcc.codegen.header import WORKSPACE_ALIGNMENT
from vqcc.tensors.packed_file import expected_parts
from vqcc.torch.arrays import address, array_of
from vqcc.torch.errors import reported
from vqcc.torch.linear_launch import LinearArguments
from vqcc.torch.linear_runtime import LinearRuntime, Packed
from vqcc.torch.operators import OPERATORS
from vqcc.torch.runtime import current_stream, on_device, registered

if TYPE_CHECKING:
    from torch import Tensor

    from vqcc.codegen.contract import StatusName
    from vqcc.torch.linear_launch import LinearLaunches

__all__ = ["launch_linear", "linear"]

OPERATORS.define(
    "linear(Tensor x, Tensor codes, Tensor books, Tensor? stage_scales, Tensor? scales, Tensor? bias, "
    "Tensor? workspace, str library) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
linear: Any = torch.ops.vqcc.linear.default


def launch_linear(
    runtime: LinearRuntime,
    x: Tensor,
    packed: Packed,
    bias: Tensor | None,
    device: int,
) -> Tensor:
    """Launch on the current stream of CUDA device number `device`, where all tensors are."""
    dtype = runtime.check(x, packed, bias)
    launches, loaded = runtime.loaded(device)
    n, k = runtime.n, runtime.k
    y = x.new_empty((*x.shape[:-1], n))
    m = y.numel() // n
    if m == 0:
        return y
    x, x_stride = _rows(x, k, launches.x_alignment)
    codes, books, stage_scales, scales, workspace = packed
    if workspace is not None and workspace.numel() < (needed := launches.workspace_bytes(dtype, m)):
        raise _too_small(runtime, workspace, m, needed)
    args = LinearArguments(
        codes.data_ptr(),
        books.data_ptr(),
        address(stage_scales),
        address(scales),
        x.data_ptr(),
        address(bias),
        y.data_ptr(),
        address(workspace),
        m,
        x_stride,
        n,
        dtype,
        runtime.overlap,
    )
    status = on_device(device, launches.launch, loaded, args, current_stream(device))
    if status != "OK":
        raise _refusal(runtime, launches, status, m)
    return y


def _rows(x: Tensor, k: int, alignment: int) -> tuple[Tensor, int]:
    """Rows of x where they lie, and elements between them; a copy where kernels cannot read them there."""
    if x.is_contiguous():
        return (x if x.data_ptr() % alignment == 0 else x.clone()), k
    rows = x.reshape(-1, k)
    stride = rows.stride(0)
    if (
        rows.stride(1) != 1
        or (len(rows) > 1 and (stride < k or stride % (alignment // 2)))
        or rows.data_ptr() % alignment
    ):
        return rows.clone(memory_format=torch.contiguous_format), k
    return rows, stride


def _too_small(runtime: LinearRuntime, workspace: Tensor, m: int, needed: int) -> ValueError:
    return ValueError(
        f"a launch of {m} rows of library {runtime.library.name} needs a workspace of {needed} bytes, and has one of "
        f"{workspace.numel()}: load the library with rows={m} or more, and its weights anew"
    )


def _refusal(runtime: LinearRuntime, launches: LinearLaunches, status: StatusName, m: int) -> Exception:
    """What a status of the C header says of tensors that have been checked."""
    name = runtime.library.name
    if status == "ERROR_SIZE":
        return ValueError(
            f"x has {m} rows; kernels of library {name} take at most {launches.max_m}: compile the spec for more "
            "(op kind linear has kernels for any number), or split x"
        )
    if status == "ERROR_NULL_POINTER":
        return ValueError(f"library {name} needs a workspace: take it from library.workspace(device)")
    return ValueError(
        f"library {name} refuses the launch ({status}): packed arrays must be aligned to 16 bytes, the workspace "
        f"to {WORKSPACE_ALIGNMENT}"
    )


def _on_cuda(
    x: Tensor,
    codes: Tensor,
    books: Tensor,
    stage_scales: Tensor | None,
    scales: Tensor | None,
    bias: Tensor | None,
    workspace: Tensor | None,
    library: str,
) -> Tensor:
    packed = Packed(codes, books, stage_scales, scales, workspace)
    return launch_linear(registered(library), x, packed, bias, x.device.index)


def _on_cpu(
    x: Tensor,
    codes: Tensor,
    books: Tensor,
    stage_scales: Tensor | None,
    scales: Tensor | None,
    bias: Tensor | None,
    workspace: Tensor | None,
    library: str,
) -> Tensor:
    import numpy as np

    runtime: LinearRuntime = registered(library)
    packed = Packed(codes, books, stage_scales, scales, workspace)
    dtype = runtime.check(x, packed, bias)
    launches, runner = runtime.emulated()
    m = x.numel() // launches.k
    y = x.new_empty((*x.shape[:-1], launches.n))
    if m == 0:
        return y
    number = launches.select(dtype, m)
    if number is None:
        raise _refusal(runtime, launches, "ERROR_SIZE", m)
    kernel = runtime.library.builds[runtime.library.gpus[0]].kernels[number]
    inputs = {
        name: array_of(tensor, element)
        for name, (element, _) in expected_parts(runtime.library).items()
        if (tensor := getattr(packed, name)) is not None
    }
    inputs["x"] = array_of(x.contiguous().view(m, launches.k), dtype)
    if bias is not None:
        inputs["bias"] = array_of(bias, dtype)
    scalars = {"m": m, "x_stride": launches.k, "y_stride": launches.n}
    # A new one for each launch: what lies past it is watched.
    scratch = np.zeros(kernel.launch.workspace_bytes, np.uint8)
    with reported():
        runner.run(kernel, inputs, {"y": array_of(y.view(m, launches.n), dtype)}, scalars, scratch)
    return y


def _on_meta(
    x: Tensor,
    codes: Tensor,
    books: Tensor,
    stage_scales: Tensor | None,
    scales: Tensor | None,
    bias: Tensor | None,
    workspace: Tensor | None,
    library: str,
) -> Tensor:
    runtime: LinearRuntime = registered(library)
    runtime.check(x, Packed(codes, books, stage_scales, scales, workspace), bias)
    return x.new_empty((*x.shape[:-1], runtime.n))


OPERATORS.impl("linear", _on_cuda, "CUDA")
OPERATORS.impl("linear", _on_cpu, "CPU")
OPERATORS.impl("linear", torch.library.fallthrough_kernel, "Autograd")
torch.library.register_fake("vqcc::linear", _on_meta, lib=OPERATORS)
