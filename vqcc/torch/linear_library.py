"""A library of products with a quantized weight, as a PyTorch user calls it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from vqcc.tensors import packed_file
from vqcc.torch.errors import refuse_operands, reported
from vqcc.torch.kinds import LINEAR, refuse_packed
from vqcc.torch.library import TorchLibrary, check_layout, picked, usable
from vqcc.torch.linear import Weight
from vqcc.torch.linear_op import linear
from vqcc.torch.linear_runtime import LinearRuntime

if TYPE_CHECKING:
    import os

    import torch

__all__ = ["LinearLibrary"]


class LinearLibrary(TorchLibrary[LinearRuntime]):
    """A library of products with a quantized weight: ops gemv, gemm and linear."""

    kind = LINEAR

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [n, k] of the weight."""
        return self._runtime.library.op.weight_shape

    @property
    def max_rows(self) -> int:
        """The most rows of x that a launch takes."""
        return self._runtime.any_launches.max_m

    def expected_parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each packed array; no shape: one dimension of any length."""
        return packed_file.expected_parts(self._runtime.library)

    def workspace_bytes(self) -> int:
        """Device memory that launches of up to `rows` rows need, of any type."""
        launches = self._runtime.any_launches
        rows = self._rows or launches.max_m
        return max(launches.workspace_bytes(dtype, rows) for dtype in self._runtime.types.values())

    def weight(
        self, path: str | os.PathLike[str], name: str | None = None, *, device: torch.device | str = "cuda"
    ) -> Weight:
        """Read a weight that `vqcc pack` wrote for this library, onto a device.

        `name` picks one of a file with several. Raises ValueError for a file that is damaged, was packed for another
        layout, or has no such weight, and RuntimeError for a GPU where there is none.
        """
        place = usable(device)
        with reported():
            packed = packed_file.load_packed(Path(path), self._runtime.library)
        return Weight.from_arrays(self, packed[picked(path, packed, name)], place)

    def linear(self, x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
        """Multiply, y = x W^T (+ bias): x [..., k] and bias [n] float16 or bfloat16 as the library has it, y [..., n].

        The kernel is chosen by the number of rows. Rows that lie apart are read where they are; x is copied if they are
        not aligned as the kernels need. Raises TypeError, ValueError and RuntimeError for operands that do not fit, and
        RuntimeError if x requires a gradient.
        """
        if not isinstance(weight, Weight):
            raise refuse_packed(self, weight)
        if not isinstance(x, Tensor) or not (bias is None or isinstance(bias, Tensor)):
            raise refuse_operands(self, x=x, bias=bias)
        if weight.library is not self:
            check_layout(self, weight)
        codes, books, stage_scales, scales, workspace = weight.operands()
        result: Tensor = linear(x, codes, books, stage_scales, scales, bias, workspace, self._identity)
        return result
