"""Compute ops: one package each. `AnyOp` is what a spec's `op:` may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from vqcc.ops.attention.model import AttentionDecode
from vqcc.ops.gemm import Gemm
from vqcc.ops.gemv import Gemv
from vqcc.ops.linear.model import Linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.ops.base import Op

__all__ = ["OPS", "WEIGHT_OPS", "AnyOp", "AttentionDecode", "Gemm", "Gemv", "Linear"]

#: Ops over a quantized weight.
WEIGHT_OPS: Mapping[str, type[Op]] = {"gemv": Gemv, "gemm": Gemm, "linear": Linear}
OPS: Mapping[str, type[Op | AttentionDecode]] = {**WEIGHT_OPS, "attention_decode": AttentionDecode}

AnyOp = Annotated[Gemv | Gemm | Linear | AttentionDecode, Field(discriminator="kind")]
