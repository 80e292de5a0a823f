"""How keys that were quantized before RoPE are rotated once they are decoded, as a spec says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROPES", "Rope", "RopeFactor"]

#: Not at all, or channels i and i + head_dim / 2, or channels 2 i and 2 i + 1, of a pair together.
Rope = Literal["none", "half", "interleaved"]

#: Enumerators of the device headers (device/attention/work.cuh).
ROPES: Mapping[Rope, str] = {
    "none": "vqcc::Rope::kNone",
    "half": "vqcc::Rope::kHalf",
    "interleaved": "vqcc::Rope::kInterleaved",
}

#: Far less, and a pair's turn from one position to the next would leave float64 once it is counted in 2^-64 of a turn.
MIN_FACTOR = 1e-6
MAX_FACTOR = 1e12

#: The base of frequencies, or what positions are divided by.
RopeFactor = Annotated[float, Field(ge=MIN_FACTOR, le=MAX_FACTOR, allow_inf_nan=False)]
