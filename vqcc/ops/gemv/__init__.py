"""gemv: matrix-vector products with quantized weights, up to 16 vectors at a time."""

from __future__ import annotations

from vqcc.ops.gemv.model import Gemv

__all__ = ["Gemv"]
