"""Workspaces that suffice: who asks once, for its largest launch, has enough for smaller ones (docs/header.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Served", "sufficient_bytes"]


@dataclass(frozen=True)
class Served:
    """What a kernel serves: a kind of launches (its type), up to `bound` rows or sequences, with so many bytes."""

    kind: str
    bound: int
    workspace_bytes: int


def sufficient_bytes(kernels: Sequence[Served]) -> tuple[int, ...]:
    """Of each kernel the bytes that it and all kernels of its kind for less need, which may be more than its own."""
    return tuple(
        max(
            other.workspace_bytes
            for other in kernels
            if other.kind == kernel.kind and other.bound <= kernel.bound
        )
        for kernel in kernels
    )
