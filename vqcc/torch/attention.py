"""A layer's codebooks and its quantized KV cache, and the layer that appends to the cache and attends to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.torch.errors import refuse_operands
from vqcc.torch.host_view import check_cache, touched_tokens
from vqcc.torch.kinds import ATTENTION, check_library, check_packed
from vqcc.torch.packed import PackedModule

if TYPE_CHECKING:
    from vqcc.codegen.contract import StatusName
    from vqcc.torch.attention_library import AttentionLibrary

__all__ = ["Attention", "Books", "Cache"]


class Books(PackedModule):
    """Codebooks of a layer's keys and values, as `AttentionLibrary.books` reads them."""

    library_kind = ATTENTION
    PARTS = ("key_books", "value_books", "append_key_books", "append_value_books", "book_facts", "rotations")
    library: AttentionLibrary
    key_books: Tensor
    value_books: Tensor
    append_key_books: Tensor
    append_value_books: Tensor
    book_facts: Tensor | None
    rotations: Tensor | None

    def operands(self) -> tuple[tuple[Tensor | None, ...], Tensor | None]:
        """What attending reads, in the operator's order, and the workspace; as `Weight.operands` does."""
        buffers = self._buffers
        attending = (buffers[name] for name in ("key_books", "value_books", "book_facts", "rotations"))
        return tuple(attending), buffers["workspace"]


class Cache(nn.Module):
    """Codes of a layer's keys and values: `pages` uint8 [pages, page bytes], and windows of the newest tokens.

    Windows, of libraries that have them, are [batch, kv_heads, window, head_dim]. Nothing of it is in a state.
    """

    pages: Tensor
    key_window: Tensor | None
    value_window: Tensor | None

    def __init__(
        self,
        library: AttentionLibrary,
        *,
        batch: int,
        pages: int | None,
        page_tokens: int | None = None,
        dtype: torch.dtype | None,
        device: torch.device,
    ) -> None:
        super().__init__()
        check_library("Cache", library, ATTENTION)
        compiled = library.compiled
        op, layout = compiled.op, compiled.layout
        if not 1 <= batch <= max(op.batch):
            raise ValueError(f"library {library.name} serves 1 to {max(op.batch)} sequences, not {batch}")
        tokens = _tokens_of_page(library, page_tokens)
        if (pages is None) == op.paged:
            needs = f"pages of {tokens} tokens: say how many" if op.paged else "a page for each sequence"
            raise ValueError(f"the cache of library {library.name} has {needs}")
        if dtype is None and len(library.dtypes) > 1:
            raise ValueError(
                f"library {library.name} has kernels for {library.dtypes}: say the cache's dtype"
            )
        self.library = library
        shape = (batch if pages is None else pages, layout.page_bytes(tokens))
        self.register_buffer("pages", torch.zeros(shape, dtype=torch.uint8, device=device), persistent=False)
        for side in ("key_window", "value_window"):
            window = (
                torch.zeros(
                    (batch, op.kv_heads, op.window, op.head_dim),
                    dtype=dtype or library.dtypes[0],
                    device=device,
                )
                if op.window
                else None
            )
            self.register_buffer(side, window, persistent=False)

    def operands(self) -> tuple[Tensor | None, ...]:
        """Pages and windows in the operators' order."""
        buffers = self._buffers
        return buffers["pages"], buffers["key_window"], buffers["value_window"]

    def check(
        self, lengths: Tensor, page_table: Tensor | None = None, *, new_tokens: int | None = None
    ) -> None:
        """Raise ValueError for lengths or pages that are not this cache's; copies both to the host, and waits for them.

        What is checked is what launches with these would touch that append `new_tokens`, and attend with as many query
        tokens as the library takes at most, which are the new ones too if left out. Pages before a sliding window may
        be anything, as in the C header. Not to be called while a CUDA graph is captured.
        """
        op, layout = self.library.compiled.op, self.library.compiled.layout
        _check_integers(self.library, lengths, page_table)
        blocks = self.pages.shape[1] // (layout.heads * layout.block_bytes)
        table = None if page_table is None else page_table.tolist()
        span = touched_tokens(op, op.query_tokens if new_tokens is None else new_tokens)
        status = check_cache(op, lengths.tolist(), table, self.pages.shape[0], blocks, span)
        texts: dict[StatusName, str] = {
            "ERROR_LENGTH": f"a length is negative or more than {op.context}",
            "ERROR_CAPACITY": "a sequence has more tokens than its pages hold",
            "ERROR_PAGE": f"a page is named that is not one of the cache's {self.pages.shape[0]}",
            "ERROR_NULL_POINTER": "a paged cache needs a page_table",
        }
        if status != "OK":
            raise ValueError(texts[status])


def _tokens_of_page(library: AttentionLibrary, page_tokens: int | None) -> int:
    """Tokens of a cache's page: as many as are asked for, which may be left out where there is one size.

    A contiguous cache has pages of the op's context. Raises ValueError for a size that the library has not.
    """
    op = library.compiled.op
    if not op.paged:
        if page_tokens is None:
            return -(-op.context // BLOCK_TOKENS) * BLOCK_TOKENS
        raise ValueError(f"the cache of library {library.name} is contiguous: leave page_tokens out")
    tokens = op.page_tokens if page_tokens is None else page_tokens
    if tokens in op.page_sizes:
        return tokens
    legal = " or ".join(map(str, op.page_sizes))
    given = "say page_tokens" if page_tokens is None else f"not of {page_tokens}"
    raise ValueError(f"library {library.name} has kernels for pages of {legal} tokens: {given}")


def _check_integers(library: AttentionLibrary, lengths: Tensor, page_table: Tensor | None) -> None:
    """Refuse lengths and a page table, on any device, whose types and shapes no launch takes."""
    if not (isinstance(lengths, Tensor) and (page_table is None or isinstance(page_table, Tensor))):
        raise refuse_operands(library, lengths=lengths, page_table=page_table)
    check, rows = library._runtime.check_integers, tuple(lengths.shape[:1]) or (1,)
    check("lengths", lengths, rows, lengths.device)
    if page_table is not None:
        columns = page_table.shape[-1] if page_table.dim() else 1
        check("page_table", page_table, (*rows, columns), page_table.device)


class Attention(nn.Module):
    """Attention of a layer in decoding and prefill: appends new tokens to a cache, and attends to it."""

    def __init__(self, library: AttentionLibrary, books: Books | None = None) -> None:
        super().__init__()
        check_library("Attention", library, ATTENTION)
        if books is not None:
            check_packed(library, books)
        self.library = library
        self.books = Books.empty(library) if books is None else books

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        cache: Cache,
        lengths: Tensor,
        page_table: Tensor | None = None,
    ) -> Tensor:
        """Append keys and values, then attend: outputs [batch, query_tokens, q_heads, head_dim].

        `lengths` count the new tokens, as many of each sequence as queries have.
        """
        self.library.append(cache, self.books, keys, values, lengths, page_table=page_table)
        return self.library.attend(queries, cache, self.books, lengths, page_table=page_table)
