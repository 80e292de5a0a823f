"""An attention library in this process, and what its operands must be."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from vqcc.tensors.cache_packed_file import expected_parts
from vqcc.torch.arrays import carrier_of
from vqcc.torch.attention_launch import AttentionLaunches
from vqcc.torch.errors import refuse_gradients
from vqcc.torch.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vqcc.cache_library import CacheLibrary
    from vqcc.ops.base import Dtype

__all__ = ["AttentionRuntime", "CacheTensors"]


class CacheTensors(NamedTuple):
    """What kernels that attend and that append are both given."""

    pages: Tensor
    key_books: Tensor
    value_books: Tensor
    lengths: Tensor
    page_table: Tensor | None
    key_window: Tensor | None
    value_window: Tensor | None


class AttentionRuntime(Runtime[AttentionLaunches]):
    """A library over a KV cache; checks raise TypeError, ValueError or RuntimeError for operands that do not fit."""

    library: CacheLibrary

    @cached_property
    def _parts(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        parts = expected_parts(self.library)
        return {name: (carrier_of(dtype), shape) for name, (dtype, shape) in parts.items()}

    @cached_property
    def workspace_bytes(self) -> int:
        """Device memory that a launch of any batch needs, on any GPU; some, where kernels would need none."""
        return max(1, *(build.workspace_bytes for build in self.library.builds.values()))

    def check_tokens(self, what: str, tokens: Tensor, heads: int, most_tokens: int) -> Dtype:
        """The name of the type of queries, keys or values [batch, tokens, heads, head_dim]."""
        op, name = self.library.op, self.library.name
        dtype = self.types.get(tokens.dtype)
        if dtype is None:
            legal = " or ".join(map(str, self.types))
            raise TypeError(
                f"{what} are {tokens.dtype}; library {name} has kernels for {legal}: convert them"
            )
        if tokens.dim() != 4 or tokens.shape[2:] != (heads, op.head_dim):
            raise ValueError(
                f"{what} are {list(tokens.shape)}; library {name} takes [batch, tokens, {heads}, {op.head_dim}]"
            )
        if tokens.shape[0] > max(op.batch):
            raise ValueError(
                f"{what} are of {tokens.shape[0]} sequences; library {name} serves {max(op.batch)} at most: compile "
                "the spec for more, or split the batch"
            )
        if tokens.shape[1] > most_tokens:
            raise ValueError(
                f"{what} are {tokens.shape[1]} tokens of each sequence; library {name} takes {most_tokens} at most"
            )
        if tokens.requires_grad and torch.is_grad_enabled():
            raise refuse_gradients(what)
        return dtype

    def check_books(self, books: Mapping[str, Tensor | None], device: torch.device) -> None:
        """Codebooks by the names that a packed file has for them."""
        for part, tensor in books.items():
            wanted = self._parts.get(part)
            if wanted is None:
                continue
            if tensor is None or (tensor.dtype, tuple(tensor.shape)) != wanted:
                raise ValueError(
                    f"{part} are not {wanted[0]} {list(wanted[1])}, which library {self.library.name} reads: take them "
                    "from library.books()"
                )
            _check_device(part, tensor, device)

    def check_cache(self, tokens: Tensor, cache: CacheTensors) -> None:
        """Pages, windows, lengths and page table of the sequences of `tokens`."""
        op, layout, batch = self.library.op, self.library.layout, tokens.shape[0]
        pages = cache.pages
        block = layout.heads * layout.block_bytes
        size = layout.page_bytes(op.page_size) if op.page_size else block
        if (
            pages.dtype != torch.uint8
            or pages.dim() != 2
            or pages.shape[1] % size
            or (op.page_size and pages.shape[1] != size)
        ):
            raise ValueError(
                f"pages are {pages.dtype} {list(pages.shape)}; library {self.library.name} has pages of "
                f"{'' if op.page_size else 'multiples of '}{size} bytes: take them from library.cache()"
            )
        if not op.page_size and pages.shape[0] < batch:
            raise ValueError(f"the cache is of {pages.shape[0]} sequences, and {batch} are given")
        self.check_integers("lengths", cache.lengths, (batch,))
        if (cache.page_table is None) == bool(op.page_size):
            needs = "needs a page_table" if op.page_size else "is contiguous, and takes no page_table"
            raise ValueError(f"the cache of library {self.library.name} {needs}")
        if cache.page_table is not None:
            self.check_integers("page_table", cache.page_table, (batch, cache.page_table.shape[-1]))
        for side in ("key_window", "value_window"):
            self._check_window(side, getattr(cache, side), tokens)
        for what, tensor in zip(cache._fields, cache, strict=True):
            if tensor is not None:
                _check_device(what, tensor, tokens.device)

    def check_integers(self, what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        """Lengths, counts or pages of sequences."""
        if tensor.dtype != torch.int32 or tuple(tensor.shape) != shape:
            raise ValueError(f"{what} are {tensor.dtype} {list(tensor.shape)}, not torch.int32 {list(shape)}")

    def _check_window(self, what: str, window: Tensor | None, tokens: Tensor) -> None:
        op = self.library.op
        if not op.window:
            return
        shape = (op.kv_heads, op.window, op.head_dim)
        if window is None or tuple(window.shape[1:]) != shape or window.shape[0] < tokens.shape[0]:
            shown = "missing" if window is None else f"{list(window.shape)}"
            raise ValueError(
                f"{what} is {shown}, not [{tokens.shape[0]} or more, {op.kv_heads}, {op.window}, {op.head_dim}]: take "
                "it from library.cache()"
            )
        if window.dtype != tokens.dtype:
            raise TypeError(
                f"{what} is {window.dtype}, and tokens are {tokens.dtype}: give library.cache() a dtype"
            )

    def page_numbers(self, cache: CacheTensors) -> tuple[int, int]:
        """The header's page_table_stride and page_blocks."""
        layout = self.library.layout
        stride = 0 if cache.page_table is None else cache.page_table.stride(0)
        return stride, cache.pages.shape[1] // (layout.heads * layout.block_bytes)


def _check_device(what: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise RuntimeError(f"{what} are on {tensor.device}, tokens on {device}: move them with .to()")
