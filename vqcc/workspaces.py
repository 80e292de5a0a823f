"""Workspaces that suffice: who asks once, for its largest launch, has enough for smaller ones (docs/header.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vqcc.ops.base import Variant

__all__ = ["Served", "sufficient_bytes", "sufficient_of_kernels"]


class Launched(Protocol):
    """A launch of a kernel, or what a header says of it."""

    @property
    def workspace_bytes(self) -> int:
        """What it needs itself."""
        ...


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


def sufficient_of_kernels(
    variants: Iterable[Variant], size: str, launches: Sequence[Sequence[Launched]]
) -> tuple[int, ...]:
    """The same of a library's kernels of these `variants`, on any GPU: `launches` has a row of them for each.

    `size` is what bounds their launches: m, or batch.
    """
    return sufficient_bytes(
        [
            Served(variant.dtype, variant.sizes[size], max(each.workspace_bytes for each in column))
            for variant, column in zip(variants, zip(*launches, strict=True), strict=True)
        ]
    )
