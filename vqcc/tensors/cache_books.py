"""Codebooks of a KV cache as kernels read them: each by itself where entries are decoded, by rows where looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.book_shapes import BOOK_ALIGNMENT
from vqcc.cache_layouts import EntryRows
from vqcc.tensors.entry_rows import pack_entry_rows, value_exponents

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BOOK_ALIGNMENT", "RowBooks", "pack_books", "pack_row_books"]


@dataclass(frozen=True, eq=False)
class RowBooks:
    """Books by rows: keys and values [heads, tables, 256, 256] of bytes, and facts [heads, 2] of float32.

    A head's facts: the largest sum of an entry's absolute elements, of keys, which bounds scores; and what sums of
    values are multiplied with, whose books are scaled by a power of two. `heads` is 1 where all share their books.
    """

    keys: NDArray[np.uint8]
    values: NDArray[np.uint8]
    facts: NDArray[np.float32]


def pack_books(codebooks: NDArray[Any]) -> NDArray[np.uint8]:
    """Codebooks [kv_heads, groups, residuals, entries, x] to [books, bytes]: heads first, then channel groups."""
    books = codebooks.shape[0] * codebooks.shape[1]
    raw = np.ascontiguousarray(codebooks).reshape(books, -1).view(np.uint8)
    padding = -raw.shape[1] % BOOK_ALIGNMENT
    packed: NDArray[np.uint8] = np.pad(raw, ((0, 0), (0, padding)))
    return packed


def pack_row_books(keys: NDArray[Any], values: NDArray[Any], head_dim: int) -> RowBooks:
    """Codebooks [kv_heads or 1, groups or 1, 1, 256, x] of float16, of keys and of values, by rows.

    A kernel takes the books of both by head or of neither, so books that all heads share are repeated if the others
    are not.
    """
    heads = max(keys.shape[0], values.shape[0])
    whole_keys, whole_values = (_of_all_groups(books, heads, head_dim) for books in (keys, values))
    exponents = value_exponents(whole_values)
    scaled = np.ldexp(whole_values, exponents[:, None, None, None].astype(np.int32)).astype(np.float16)
    bounds = np.abs(whole_keys.astype(np.float64)).sum(axis=-1).max(axis=(1, 2))
    return RowBooks(
        pack_entry_rows(whole_keys, EntryRows(head_dim, whole_keys.shape[-1])),
        pack_entry_rows(scaled, EntryRows(head_dim, whole_values.shape[-1])),
        np.stack([bounds, np.ldexp(1.0, -exponents)], axis=-1).astype(np.float32),
    )


def _of_all_groups(books: NDArray[Any], heads: int, head_dim: int) -> NDArray[np.float16]:
    """Entries [heads, head_dim / x, 256, x] of books whose stage is the only one."""
    entries, size = books.shape[-2:]
    return np.broadcast_to(books[:, :, 0], (heads, head_dim // size, entries, size)).astype(np.float16)
