"""Packed arrays as tensors: bits in integers, so that no conversion of a model's type touches them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vqcc.tensors.vq_tensor import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["CARRIERS", "TYPES", "address", "array_of", "carrier_of", "tensor_of"]

#: Element types of inputs and outputs by their names in a spec.
TYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
#: By the bytes of an element: `model.half()` converts what is of a floating type, and these are not.
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def carrier_of(dtype: str) -> torch.dtype:
    """The type of the tensor that holds elements of a packed array's type."""
    return CARRIERS[numpy_dtype(dtype).itemsize]


def tensor_of(array: NDArray[Any], device: torch.device) -> Tensor:
    """A packed array on a device, its bits in integers."""
    size = array.dtype.itemsize
    # A copy: arrays of a file are mapped read-only, and PyTorch knows no such tensors.
    bits = np.array(array).view(f"i{size}" if size > 1 else np.uint8)
    return torch.from_numpy(bits).to(device)


def array_of(tensor: Tensor, dtype: str) -> NDArray[Any]:
    """A tensor on the CPU as an array of a packed array's type, sharing its memory."""
    element = numpy_dtype(dtype)
    bits: NDArray[Any] = tensor.detach().view(CARRIERS[element.itemsize]).numpy()
    return bits.view(element)


def address(tensor: Tensor | None) -> int:
    """Where a tensor's elements are; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()
