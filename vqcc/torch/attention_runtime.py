"""An attention library in this process, and what its operands must be."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vqcc.tensors.cache_packed_file import expected_parts
from vqcc.torch.arrays import carrier_of
from vqcc.torch.attention_launch import AttentionLaunches
from vqcc.torch.errors import refuse_gradients
from vqcc.torch.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

    from vqcc.cache_library import CacheLibrary
    from vqcc.ops.base import Dtype

__all__ = ["AppendPacked", "AttendPacked", "AttentionRuntime"]


class AttendPacked(NamedTuple):
    """Codebooks and the cache as kernels that attend read them, and the workspace: what is checked once."""

    key_books: Tensor
    value_books: Tensor
    book_facts: Tensor | None
    rotations: Tensor | None
    pages: Tensor
    key_window: Tensor | None
    value_window: Tensor | None
    workspace: Tensor | None


class AppendPacked(NamedTuple):
    """Codebooks as kernels that append read them, and the cache: what is checked once."""

    append_key_books: Tensor
    append_value_books: Tensor
    pages: Tensor
    key_window: Tensor | None
    value_window: Tensor | None


class AttentionRuntime(Runtime[AttentionLaunches]):
    """A library over a KV cache; checks raise TypeError, ValueError or RuntimeError for operands that do not fit."""

    library: CacheLibrary

    @cached_property
    def workspace_bytes(self) -> int:
        """Device memory that a launch of any batch needs, on any GPU; 0: launches need none."""
        return max(build.workspace_bytes for build in self.library.builds.values())

    @cached_property
    def most_sequences(self) -> int:
        """Of a launch."""
        return max(self.library.op.batch)

    @cached_property
    def block_bytes(self) -> int:
        """Of a token block, for all kv-heads."""
        return self.library.layout.heads * self.library.layout.block_bytes

    @cached_property
    def heads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Heads and channels of queries, and of keys and values."""
        op = self.library.op
        return (op.q_heads, op.head_dim), (op.kv_heads, op.head_dim)

    def check_tokens(self, what: str, tokens: Tensor, heads: tuple[int, int], most_tokens: int) -> Dtype:
        """The name of the type of queries, keys or values [batch, tokens, heads, head_dim]."""
        name, shape = self.library.name, tokens.shape
        dtype = self.types.get(tokens.dtype)
        if dtype is None:
            legal = " or ".join(map(str, self.types))
            raise TypeError(
                f"{what} are {tokens.dtype}; library {name} has kernels for {legal}: convert them"
            )
        if len(shape) != 4 or shape[2:] != heads:
            raise ValueError(
                f"{what} are {list(shape)}; library {name} takes [batch, tokens, {heads[0]}, {heads[1]}]"
            )
        if shape[0] > self.most_sequences:
            raise ValueError(
                f"{what} are of {shape[0]} sequences; library {name} serves {self.most_sequences} at most: compile "
                "the spec for more, or split the batch"
            )
        if shape[1] > most_tokens:
            raise ValueError(
                f"{what} are {shape[1]} tokens of each sequence; library {name} takes {most_tokens} at most"
            )
        if tokens.requires_grad and torch.is_grad_enabled():
            raise refuse_gradients(what, plural=True)
        return dtype

    def check_places(
        self, tokens: Tensor, packed: AttendPacked | AppendPacked, lengths: Tensor, page_table: Tensor | None
    ) -> None:
        """What places `tokens` in a cache: lengths, pages and windows of their sequences."""
        device, batch, name = tokens.device, tokens.shape[0], self.library.name
        self.verify(packed, device)
        self.check_integers("lengths", lengths, (batch,), device)
        if not self.library.op.paged:
            if page_table is not None:
                raise ValueError(f"the cache of library {name} is contiguous, and takes no page_table")
            if packed.pages.shape[0] < batch:
                raise ValueError(f"the cache is of {packed.pages.shape[0]} sequences, and {batch} are given")
        elif page_table is None:
            raise ValueError(f"the cache of library {name} is of pages, and needs a page_table")
        else:
            columns = page_table.shape[-1] if page_table.dim() else 1
            self.check_integers("page_table", page_table, (batch, columns), device)
        if (window := packed.key_window) is not None:
            self._check_windows_fit(window, packed.value_window, tokens)

    @staticmethod
    def _check_windows_fit(keys: Tensor, values: Tensor | None, tokens: Tensor) -> None:
        batch = tokens.shape[0]
        if keys.shape[0] < batch or keys.dtype != tokens.dtype:
            raise ValueError(
                f"the cache has windows of {keys.shape[0]} sequences in {keys.dtype}, given are {batch} in "
                f"{tokens.dtype}: say batch and dtype of library.cache()"
            )
        # At each launch: a tensor may come to require a gradient after it was checked.
        if (keys.requires_grad or (values is not None and values.requires_grad)) and torch.is_grad_enabled():
            raise refuse_gradients("the cache's windows", plural=True)

    def check_integers(self, what: str, tensor: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
        """Lengths, counts or pages of sequences."""
        if tensor.dtype != torch.int32 or tensor.shape != shape:
            raise ValueError(f"{what} are {tensor.dtype} {list(tensor.shape)}, not torch.int32 {list(shape)}")
        if tensor.device != device:
            raise RuntimeError(f"{what} are on {tensor.device}, tokens on {device}: move them with .to()")

    def check_packed(self, packed: Any, device: torch.device) -> None:
        """Codebooks by the names that a packed file has for them, pages and windows."""
        for part, (dtype, shape) in expected_parts(self.library).items():
            if part not in packed._fields:
                continue
            tensor, carrier = getattr(packed, part), carrier_of(dtype)
            if tensor is None or tensor.dtype != carrier or tensor.shape != shape:
                raise ValueError(
                    f"{part} are not {carrier} {list(shape)}, which library {self.library.name} reads: take them "
                    "from library.books()"
                )
        self._check_pages(packed.pages)
        if self.library.op.window:
            self._check_windows(packed.key_window, packed.value_window)
        if isinstance(packed, AttendPacked):
            self.check_workspace(packed.workspace)
        self.check_memory("tokens are", packed, device)

    def check_workspace(self, workspace: Tensor | None) -> None:
        """Refuse one that is not bytes enough for every launch. None is legal on the CPU, and refused by launches."""
        super().check_workspace(workspace)
        if workspace is not None and workspace.numel() < self.workspace_bytes:
            raise self.needs_workspace()

    def needs_workspace(self) -> ValueError:
        """For a workspace that is missing or too small."""
        return ValueError(
            f"attention needs a workspace of {self.workspace_bytes} bytes: take it from library.workspace(device)"
        )

    def _check_pages(self, pages: Tensor) -> None:
        op, layout = self.library.op, self.library.layout
        size = pages.shape[1] if pages.dim() == 2 else -1
        if op.paged:
            sizes = [layout.page_bytes(tokens) for tokens in op.page_sizes]
            whole, legal = size in sizes, " or ".join(map(str, sizes))
        else:
            whole, legal = size % self.block_bytes == 0, f"multiples of {self.block_bytes}"
        if pages.dtype != torch.uint8 or not whole:
            raise ValueError(
                f"pages are {pages.dtype} {list(pages.shape)}; library {self.library.name} has pages of "
                f"{legal} bytes: take them from library.cache()"
            )

    def _check_windows(self, keys: Tensor | None, values: Tensor | None) -> None:
        op = self.library.op
        shape = (op.kv_heads, op.window, op.head_dim)
        if (
            keys is None
            or values is None
            or keys.shape[1:] != shape
            or (keys.shape, keys.dtype) != (values.shape, values.dtype)
        ):
            raise ValueError(
                f"windows of keys and values are not both [sequences, {', '.join(map(str, shape))}]: take them from "
                "library.cache()"
            )
