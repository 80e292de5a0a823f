"""How consistent parts are: by hand, and on parts made to agree or not."""

from __future__ import annotations

import numpy as np
import pytest

from vqcc.hotness.consistency import measure


def parts_of(*rows: list[int]) -> np.ndarray:
    """Counts [parts, 1, entries] of one table."""
    return np.array(rows, np.int64)[:, None]


def test_parts_that_agree() -> None:
    found = measure([parts_of([90, 5, 5], [45, 3, 2], [18, 1, 1])])
    assert found is not None
    assert (found.parts, found.hottest, found.overlap, found.kept) == (3, 1, 1, 1)
    assert found.correlation == pytest.approx(1, abs=1e-3)


def test_parts_that_do_not() -> None:
    """Each part's hottest entry is cold in the other: 10 of the 90 look-ups it could serve are left."""
    found = measure([parts_of([90, 10], [10, 90])])
    assert found is not None
    assert (found.overlap, found.correlation) == (0, pytest.approx(-1))
    assert found.kept == pytest.approx(20 / 180)


def test_a_part_is_not_compared_with_itself() -> None:
    """Against the sum of all, the first part, which has most look-ups, would agree with itself."""
    found = measure([parts_of([900, 0, 0], [0, 5, 0], [0, 5, 0])])
    assert found is not None
    # Part 0 meets entry 1; parts 1 and 2 meet entry 0.
    assert found.overlap == 0


def test_ties_share_places() -> None:
    """Where nothing is known, nothing is claimed: entries that tie count by their chance to be chosen."""
    found = measure([parts_of([1] * 20, [2] * 20)])
    assert found is not None
    assert (found.hottest, found.overlap) == (2, pytest.approx(0.1))
    assert found.kept == pytest.approx(1)
    assert found.correlation is None


def test_chance_alone_overlaps_by_a_tenth() -> None:
    rng = np.random.default_rng(0)
    found = measure([rng.poisson(50, (16, 2, 1000))])
    assert found is not None
    assert (found.parts, found.hottest) == (32, 100)
    assert found.overlap == pytest.approx(0.1, abs=0.02)
    assert found.correlation == pytest.approx(0, abs=0.03)


def test_tables_and_books_are_averaged() -> None:
    agreeing, opposed = parts_of([9, 1], [8, 2]), parts_of([9, 1], [2, 8])
    both = np.concatenate([agreeing, opposed], axis=1)
    for books in ([agreeing, opposed], [both]):
        found = measure(books)
        assert found is not None
        assert (found.parts, found.overlap) == (4, 0.5)


def test_one_part_has_nothing_to_be_compared_with() -> None:
    assert measure([parts_of([1, 2, 3])]) is None
    assert measure([]) is None
    found = measure([parts_of([1, 2, 3]), parts_of([4, 1], [4, 1])])
    assert found is not None
    assert found.parts == 2
