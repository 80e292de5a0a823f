"""gemm: products of a quantized weight with many rows of x, on tensor cores."""

from __future__ import annotations

from vqcc.ops.gemm.model import Gemm

__all__ = ["Gemm"]
