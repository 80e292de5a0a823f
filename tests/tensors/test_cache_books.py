from __future__ import annotations

import numpy as np
import pytest

from vqcc.cache_layouts import EntryRows
from vqcc.tensors.cache_books import pack_books, pack_row_books
from vqcc.tensors.entry_rows import pack_entry_rows


def books(heads: int, groups: int, *, stages: int = 1, entries: int = 256, size: int = 4) -> np.ndarray:
    rng = np.random.default_rng(heads * 100 + groups)
    return rng.standard_normal((heads, groups, stages, entries, size)).astype(np.float16)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_books_that_are_decoded_are_padded_to_what_blocks_copy_at_a_time(size: int) -> None:
    codebooks = books(2, 8, stages=2, entries=4, size=size)
    packed = pack_books(codebooks)
    assert packed.shape == (16, -(-16 * size // 16) * 16)
    book = packed[8 + 3]
    np.testing.assert_array_equal(
        book[: 16 * size].copy().view(np.float16).reshape(2, 4, size), codebooks[1, 3]
    )
    assert not book[16 * size :].any()


def test_books_by_rows_are_those_of_every_channel_group() -> None:
    keys, values = books(2, 1), books(2, 32)
    packed = pack_row_books(keys, values, 128)
    rows = EntryRows(128, 4)
    expected = np.broadcast_to(keys[:, :, 0], (2, 32, 256, 4))
    np.testing.assert_array_equal(packed.keys, pack_entry_rows(expected, rows))
    exact = values[:, :, 0].astype(np.float64) / packed.facts[:, 1, None, None, None]
    np.testing.assert_array_equal(packed.values, pack_entry_rows(exact.astype(np.float16), rows))


def test_facts_bound_scores_and_undo_the_scale_of_values() -> None:
    keys, values = books(2, 16), books(2, 16) * np.float16(1000.0)
    facts = pack_row_books(keys, values, 64).facts
    for head in range(2):
        largest = np.abs(keys[head].astype(np.float64)).sum(axis=-1).max()
        assert facts[head, 0] == np.float32(largest)
        scaled = np.abs(values[head].astype(np.float64)).max() / facts[head, 1]
        assert 8 < scaled <= 16
        assert np.frexp(facts[head, 1])[0] == 0.5  # a power of two: nothing is rounded


def test_shared_books_are_repeated_where_the_others_are_of_a_head() -> None:
    packed = pack_row_books(books(1, 1), books(3, 16), 64)
    assert packed.keys.shape[0] == packed.values.shape[0] == len(packed.facts) == 3
    assert all((packed.keys[head] == packed.keys[0]).all() for head in range(3))
    both = pack_row_books(books(1, 1), books(1, 1), 64)
    assert both.keys.shape[0] == len(both.facts) == 1
