"""A linear library in this process, and what its operands must be."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from vqcc.tensors.packed_file import expected_parts
from vqcc.torch.arrays import carrier_of
from vqcc.torch.errors import refuse_gradients
from vqcc.torch.linear_launch import LinearLaunches
from vqcc.torch.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

    from vqcc.library import Library
    from vqcc.ops.base import Dtype

__all__ = ["LinearRuntime", "Packed"]


class Packed(NamedTuple):
    """The arrays of a packed weight, and its workspace: what is checked once."""

    codes: Tensor
    books: Tensor
    stage_scales: Tensor | None
    scales: Tensor | None
    workspace: Tensor | None


class LinearRuntime(Runtime[LinearLaunches]):
    """A linear library, and what its operands must be."""

    library: Library

    @cached_property
    def n(self) -> int:
        """Rows of the weight."""
        return self.library.op.weight_shape[0]

    @cached_property
    def k(self) -> int:
        """Columns of the weight."""
        return self.library.op.weight_shape[1]

    @cached_property
    def parts(self) -> dict[str, tuple[torch.dtype, int | None]]:
        """Type and number of elements of each packed array; None: any number."""
        return {
            name: (carrier_of(dtype), None if shape is None else math.prod(shape))
            for name, (dtype, shape) in expected_parts(self.library).items()
        }

    def check(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Dtype:
        """The name of x's type. Raises TypeError, ValueError or RuntimeError for operands that do not fit."""
        dtype = self.types.get(x.dtype)
        name, shape = self.library.name, x.shape
        if dtype is None:
            legal = " or ".join(map(str, self.types))
            raise TypeError(f"x is {x.dtype}; library {name} has kernels for {legal}: convert x")
        if not shape or shape[-1] != self.k:
            raise ValueError(
                f"x is {list(shape)}; library {name} multiplies rows of {self.k}: x must be [..., {self.k}]"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise refuse_gradients("x")
        if bias is not None:
            self._check_bias(x, bias)
        self.verify(packed, x.device)
        return dtype

    def _check_bias(self, x: Tensor, bias: Tensor) -> None:
        wanted = (x.dtype, (self.n,), x.device, True)
        if (bias.dtype, tuple(bias.shape), bias.device, bias.is_contiguous()) != wanted:
            raise ValueError(
                f"bias is {bias.dtype} {list(bias.shape)} on {bias.device}; library {self.library.name} adds a "
                f"contiguous {x.dtype} [{self.n}] on {x.device}"
            )
        if bias.requires_grad and torch.is_grad_enabled():
            raise refuse_gradients("bias")

    def check_packed(self, packed: Packed, device: torch.device) -> None:
        """The weight's arrays, and the workspace but for its size, which depends on the rows of x."""
        for part, (dtype, count) in self.parts.items():
            tensor = getattr(packed, part)
            if tensor is None or tensor.dtype != dtype or (count is not None and tensor.numel() != count):
                shown = "missing" if tensor is None else f"{tensor.dtype} of {tensor.numel()} elements"
                elements = "" if count is None else f" of {count} elements"
                raise ValueError(
                    f"{part} is {shown}, library {self.library.name} reads {dtype}{elements}: take them from "
                    "library.weight()"
                )
        self.check_workspace(packed.workspace)
        self.check_memory("x is", packed, device)
