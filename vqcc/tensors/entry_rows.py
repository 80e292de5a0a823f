"""A head's codebooks by rows, as kernels look them up without bank conflicts (device/attention/entry_rows.cuh)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.cache_layouts import ROW_BYTES, TABLE_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqcc.cache_layouts import EntryRows

__all__ = ["pack_entry_rows", "value_exponents"]

#: Values are scaled until the largest element is in (8, 16]: eight of them, times weights up to 2^8, stay below 2^15.
VALUE_EXPONENT = 4


def pack_entry_rows(books: NDArray[Any], rows: EntryRows) -> NDArray[np.uint8]:
    """Books [heads, groups, 256, x] of float16 to tables [heads, tables, 256, 256]."""
    heads = len(books)
    packed = np.zeros((heads, rows.tables, TABLE_ROWS, ROW_BYTES), np.uint8)
    held = np.ascontiguousarray(books, np.float16).view(np.uint8)
    slot_bytes = ROW_BYTES // rows.table_slots
    for group in range(rows.groups):
        slot, lane = divmod(group, rows.team_lanes)
        for copy in range(rows.copies):
            for word in range(rows.entry_bytes // rows.word_bytes):
                place = (word * rows.slot_lanes + copy * rows.team_lanes + lane) * rows.word_bytes
                first = slot % rows.table_slots * slot_bytes + place
                part = slice(word * rows.word_bytes, (word + 1) * rows.word_bytes)
                packed[:, slot // rows.table_slots, :, first : first + rows.word_bytes] = held[
                    :, group, :, part
                ]
    return packed


def value_exponents(books: NDArray[Any]) -> NDArray[np.int64]:
    """Exponents [heads] of the powers of two that books of values [heads, ...] are multiplied with."""
    largest = np.abs(books.astype(np.float64)).reshape(len(books), -1).max(axis=1)
    past = np.frexp(np.where(largest > 0, largest, 1.0))[1]
    exponents: NDArray[np.int64] = VALUE_EXPONENT - past.astype(np.int64)
    return exponents
