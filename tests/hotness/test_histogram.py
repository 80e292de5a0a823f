"""Histograms against np.bincount, at the sizes where pieces, pairs and keys begin and end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.hotness import histogram
from vqcc.hotness.histogram import Histogram, OutOfRangeError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 64 codes, pairs and tiles alone from 32 codes on: every boundary is met with few codes."""
    monkeypatch.setattr(histogram, "_PIECE", 64)
    monkeypatch.setattr(histogram, "_PAIRS_FROM", 32)
    monkeypatch.setattr(histogram, "_ALONE_FROM", 32)


def random_codes(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 1 << bits, shape).astype(np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("bits", [1, 4, 8, 9, 12, 16])
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130, 1000])
def test_a_run_of_codes(bits: int, size: int) -> None:
    codes = random_codes(np.random.default_rng(size), bits, (size,))
    counts = Histogram(1 << bits).count(codes)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, np.bincount(codes, minlength=1 << bits))


@pytest.mark.parametrize("size", [(1 << 17) - 1, 1 << 17, (1 << 17) + 1, (1 << 20) + 3])
@pytest.mark.parametrize("bits", [3, 8, 12])
def test_runs_of_real_size(bits: int, size: int) -> None:
    codes = random_codes(np.random.default_rng(0), bits, (size,))
    assert np.array_equal(Histogram(1 << bits).count(codes), np.bincount(codes, minlength=1 << bits))


@pytest.mark.usefixtures("small")
@settings(max_examples=60)
@given(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 16))
def test_tiles_side_by_side(rows: int, widths: list[int], bits: int) -> None:
    rng = np.random.default_rng([rows, bits, *widths])
    # A view into wider rows, as a window of a file is.
    codes = random_codes(rng, bits, (rows, sum(widths) + 3))[:, : sum(widths)]
    ends = np.cumsum(widths).tolist()
    columns = [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]
    counts = Histogram(1 << bits).count_tiles(codes, columns)
    for tile, found in zip(columns, counts, strict=True):
        assert np.array_equal(found, np.bincount(codes[:, tile].reshape(-1), minlength=1 << bits))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1, 40, 64, 200])
@pytest.mark.parametrize(("dtype", "entries"), [(np.uint8, 16), (np.uint8, 128), (np.uint16, 4096)])
def test_a_code_too_large_is_noticed(dtype: type, entries: int, size: int) -> None:
    codes = np.zeros((size, 2), dtype)
    codes[size // 2, 1] = entries
    for count in (
        lambda: Histogram(entries).count(codes),
        lambda: Histogram(entries).count_tiles(codes, [slice(0, 1), slice(1, 2)]),
    ):
        with pytest.raises(OutOfRangeError):
            count()
    codes[size // 2, 1] = entries - 1
    assert Histogram(entries).count(codes)[entries - 1] == 1


def test_unaligned_codes() -> None:
    raw = np.random.default_rng(0).integers(0, 256, 300_001, dtype=np.uint8)
    codes = np.ndarray((150_000,), np.uint16, raw, offset=1)
    assert not codes.flags.aligned
    assert np.array_equal(Histogram(1 << 16).count(codes), np.bincount(codes.copy(), minlength=1 << 16))
    assert np.array_equal(Histogram(256).count(raw[1:]), np.bincount(raw[1:], minlength=256))
