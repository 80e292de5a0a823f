from __future__ import annotations

import numpy as np
import pytest

from vqcc.cache_layouts import EntryRows
from vqcc.tensors.entry_rows import pack_entry_rows, value_exponents


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_every_lane_finds_its_entries_and_no_two_meet(head_dim: int, size: int) -> None:
    rows = EntryRows(head_dim, size)
    books = np.random.default_rng(0).standard_normal((2, rows.groups, 256, size)).astype(np.float16)
    packed = pack_entry_rows(books, rows)
    assert packed.shape == (2, rows.tables, 256, 256)
    slots = rows.groups // rows.team_lanes
    for slot in range(slots):
        places = []
        for lane in range(32):
            own = lane % rows.slot_lanes
            first = slot % rows.table_slots * (256 // rows.table_slots) + own * rows.word_bytes
            places.append(first)
            group = slot * rows.team_lanes + lane % rows.team_lanes
            table = packed[1, slot // rows.table_slots]
            starts = [
                first + word * rows.slot_lanes * rows.word_bytes
                for word in range(rows.entry_bytes // rows.word_bytes)
            ]
            entry = np.concatenate([table[:, start : start + rows.word_bytes] for start in starts], axis=1)
            np.testing.assert_array_equal(entry.view(np.float16), books[1, group])
        # Lanes that are served together, by 128 bytes at a time, have banks of their own in every row.
        together = 128 // rows.word_bytes
        for first_lane in range(0, 32, together):
            banks = {place // 4 % 32 for place in places[first_lane : first_lane + together]}
            assert len(banks) == len(set(places[first_lane : first_lane + together]))


def test_scaled_values_stay_below_sixteen() -> None:
    books = np.array([[1.0, -3.0], [1000.0, 0.0], [0.0, 0.0], [16.0, 1.0], [2.0**-20, 0.0]], np.float16)
    exponents = value_exponents(books)
    scaled = np.ldexp(np.abs(books.astype(np.float64)).max(axis=1), exponents)
    assert all(8 <= value <= 16 for value in np.delete(scaled, 2))
    assert scaled[2] == 0
