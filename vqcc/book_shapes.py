"""Shapes of the packed codebooks of a KV cache: what an engine allocates beside the cache itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.cache_layouts import EntryRows

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.ops.attention.model import AttentionDecode

__all__ = ["BOOK_ALIGNMENT", "book_shapes"]

#: Bytes that a book is padded to: blocks copy it 16 bytes at a time.
BOOK_ALIGNMENT = 16


def book_shapes(
    keys: Algorithm, values: Algorithm, op: AttentionDecode, *, by_rows: bool
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each array that kernels read beside the cache; `by_rows` where attention looks rows up."""
    heads, head_dim = op.kv_heads, op.head_dim
    plain = {
        side: _plain_shape(algorithm, heads, head_dim)
        for side, algorithm in (("key", keys), ("value", values))
    }
    parts: dict[str, tuple[str, tuple[int, ...]]] = {
        f"append_{side}_books": ("uint8", shape) for side, shape in plain.items()
    }
    if by_rows:
        own = max(
            algorithm.scope.cache_books(heads, head_dim // algorithm.vector_size)[0]
            for algorithm in (keys, values)
        )
        for side, algorithm in (("key", keys), ("value", values)):
            rows = EntryRows(head_dim, algorithm.vector_size)
            parts[f"{side}_books"] = ("uint8", (own, rows.tables, 256, 256))
        parts["book_facts"] = ("float32", (own, 2))
    else:
        parts |= {f"{side}_books": ("uint8", shape) for side, shape in plain.items()}
    if op.rope != "none":
        parts["rotations"] = ("uint64", (head_dim // 2,))
    return parts


def _plain_shape(algorithm: Algorithm, kv_heads: int, head_dim: int) -> tuple[int, int]:
    heads, groups = algorithm.scope.cache_books(kv_heads, head_dim // algorithm.vector_size)
    return heads * groups, -(-algorithm.table_bytes // BOOK_ALIGNMENT) * BOOK_ALIGNMENT
