"""A packed weight, and the layer that multiplies by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vqcc.torch.kinds import LINEAR, check_library, check_packed
from vqcc.torch.packed import PackedModule

if TYPE_CHECKING:
    from vqcc.torch.linear_library import LinearLibrary

__all__ = ["Linear", "Weight"]


class Weight(PackedModule):
    """A weight [n, k] packed for a linear library: `LinearLibrary.weight` makes it of a file.

    Buffers are `codes`, `books`, and, if the algorithm has them, `stage_scales` and `scales`.
    """

    library_kind = LINEAR
    PARTS = ("codes", "books", "stage_scales", "scales")
    library: LinearLibrary
    codes: Tensor
    books: Tensor
    stage_scales: Tensor | None
    scales: Tensor | None

    def operands(self) -> tuple[Tensor | None, ...]:
        """The arrays in the operator's order; from the module's own table, which is faster than its attributes."""
        buffers = self._buffers
        return (
            buffers["codes"],
            buffers["books"],
            buffers["stage_scales"],
            buffers["scales"],
            buffers["workspace"],
        )

    def extra_repr(self) -> str:
        """Shape and library, for printed models."""
        return f"{list(self.library.shape)}, library={self.library.name}"


class Linear(nn.Module):
    """y = x W^T (+ bias), in the place of torch.nn.Linear for inference.

    `weight` is a Weight of `library`; without one it is zeros until a state is loaded. `bias` [n] has the type of x.
    """

    bias: Tensor | None

    def __init__(
        self,
        library: LinearLibrary,
        weight: Weight | None = None,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_library("Linear", library, LINEAR)
        if weight is not None:
            check_packed(library, weight)
        self.library = library
        self.weight = Weight.empty(library) if weight is None else weight
        self.register_buffer("bias", None if bias is None else torch.as_tensor(bias).detach())

    def forward(self, x: Tensor) -> Tensor:
        """Rows x [..., k] times the weight: [..., n] of the same type."""
        return self.library.linear(x, self.weight, self.bias)
