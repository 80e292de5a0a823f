"""16-bit elements as registers hold them, for tests of what tensor cores multiply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPES = ("kFloat16", "kBfloat16")


def bits_of(type_: str, values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The 16 bits of each value, which must be one of the type's."""
    with np.errstate(over="ignore"):
        if type_ == "kFloat16":
            half = values.astype(np.float16)
            assert np.array_equal(half.astype(np.float64), values, equal_nan=True)
            return half.view(np.uint16).astype(np.uint32)
        single = values.astype(np.float32).view(np.uint32)
    assert not (single & 0xFFFF).any()
    return single >> 16


def rounded(type_: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the type near these."""
    if type_ == "kFloat16":
        return values.astype(np.float16).astype(np.float64)
    bits = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


def packed(pairs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """[..., 2] 16-bit values to registers, the first in the low half."""
    return pairs[..., 0] | pairs[..., 1] << np.uint32(16)
