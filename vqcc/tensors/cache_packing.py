"""What the kernels of a library of attention read beside the cache: codebooks as they look them up, and rotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.tensors.cache_books import pack_books, pack_row_books

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqcc.tensors.cache_tensor import CacheTensor

__all__ = ["PackedBooks", "pack_cache"]


@dataclass(frozen=True, eq=False)
class PackedBooks:
    """Arrays of a layer's cache by the kernels' arguments.

    Kernels that attend read `key_books` and `value_books`, bytes [books, bytes] if they decode, by rows otherwise (and
    then `book_facts` float32 [heads, 2]); those that append read `append_key_books` and `append_value_books` [books,
    bytes]. `rotations` uint64 [head_dim / 2] are there if keys are rotated after decoding.
    """

    key_books: NDArray[np.uint8]
    value_books: NDArray[np.uint8]
    append_key_books: NDArray[np.uint8]
    append_value_books: NDArray[np.uint8]
    book_facts: NDArray[np.float32] | None
    rotations: NDArray[np.uint64] | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, those present."""
        named: dict[str, NDArray[Any] | None] = {
            "key_books": self.key_books,
            "value_books": self.value_books,
            "append_key_books": self.append_key_books,
            "append_value_books": self.append_value_books,
            "book_facts": self.book_facts,
            "rotations": self.rotations,
        }
        return {name: array for name, array in named.items() if array is not None}


def pack_cache(
    keys: CacheTensor, values: CacheTensor, *, by_rows: bool, rotations: NDArray[np.uint64] | None = None
) -> PackedBooks:
    """Books of valid `keys` and `values` of one layer; `by_rows` where a library looks entries up by rows."""
    plain_keys, plain_values = _in_type_of(keys), _in_type_of(values)
    own = pack_books(plain_keys), pack_books(plain_values)
    if not by_rows:
        return PackedBooks(*own, *own, None, rotations)
    rows = pack_row_books(plain_keys, plain_values, keys.shape[2])
    return PackedBooks(rows.keys, rows.values, *own, rows.facts, rotations)


def _in_type_of(tensor: CacheTensor) -> NDArray[Any]:
    """Codebooks with entries padded as the device has them: a power of two of elements."""
    size, stored = tensor.algorithm.vector_size, tensor.algorithm.entry_stride // tensor.codebooks.itemsize
    if stored == size:
        return tensor.codebooks
    padding = [(0, 0)] * (tensor.codebooks.ndim - 1) + [(0, stored - size)]
    return np.pad(tensor.codebooks, padding)
