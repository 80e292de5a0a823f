"""Compute ops: one package each. `AnyOp` is what a spec's `op:` may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.gemv import Gemv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.ops.base import Op

__all__ = ["OPS", "AnyOp"]

OPS: Mapping[str, type[Op]] = {"gemv": Gemv}

# A union discriminated by `kind` once there is a second op.
AnyOp = Gemv
