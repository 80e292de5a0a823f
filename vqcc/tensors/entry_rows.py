"""A head's codebooks by rows, as kernels look them up without bank conflicts (device/attention/entry_rows.cuh)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EntryRows", "pack_entry_rows", "value_exponents"]

ROWS, ROW_BYTES, WARP_SIZE = 256, 256, 32
#: Values are scaled until the largest element is in (8, 16]: eight of them, times weights up to 2^8, stay below 2^15.
VALUE_EXPONENT = 4


@dataclass(frozen=True)
class EntryRows:
    """Tables of 256 rows of 256 bytes. Row e holds entry e of a head's channel groups, for the lanes that look it up.

    Group g is lane g % team_lanes of slot g / team_lanes; where there is room teams of lanes have copies of their own.
    Entries of more than `word_bytes` are cut into such words, each beside those of the other lanes.
    """

    head_dim: int
    vector_size: int

    @property
    def groups(self) -> int:
        """Channel groups of a head."""
        return self.head_dim // self.vector_size

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry of float16."""
        return 2 * self.vector_size

    @property
    def word_bytes(self) -> int:
        """Bytes that a lane loads at once."""
        return min(16, self.entry_bytes)

    @property
    def team_lanes(self) -> int:
        """Lanes that look different groups of a token up at once."""
        return min(self.groups, WARP_SIZE, ROW_BYTES // self.entry_bytes)

    @property
    def copies(self) -> int:
        """Copies of a slot, for teams of lanes."""
        return min(WARP_SIZE // self.team_lanes, ROW_BYTES // (self.team_lanes * self.entry_bytes))

    @property
    def slot_lanes(self) -> int:
        """Entries of a slot, copies included."""
        return self.copies * self.team_lanes

    @property
    def table_slots(self) -> int:
        """Slots of a row."""
        return ROW_BYTES // (self.entry_bytes * self.slot_lanes)

    @property
    def tables(self) -> int:
        """Tables of a head."""
        return -(-self.groups // (self.team_lanes * self.table_slots))

    @property
    def bytes(self) -> int:
        """Bytes of a head's tables."""
        return self.tables * ROWS * ROW_BYTES


def pack_entry_rows(books: NDArray[Any], rows: EntryRows) -> NDArray[np.uint8]:
    """Books [heads, groups, 256, x] of float16 to tables [heads, tables, 256, 256]."""
    heads = len(books)
    packed = np.zeros((heads, rows.tables, ROWS, ROW_BYTES), np.uint8)
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
