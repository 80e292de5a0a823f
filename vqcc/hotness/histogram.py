"""Histograms of codes at memory speed with NumPy alone.

np.add.at takes two thirds of a nanosecond per element, whatever its size, where np.bincount takes one: it adds into
counts that are there already, and looks for codes out of range no more than once. Both index by 64-bit integers: so
codes are widened a piece at a time, within the cache. Long runs of bytes are counted two at a time in a histogram of
65,536 pairs that is folded at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Histogram", "OutOfRangeError"]

# Elements widened at a time: 4 MB of 64-bit integers.
_PIECE = 1 << 19
# Bytes from which counting pairs pays for folding their histogram (measured: equal at 100 KB).
_PAIRS_FROM = 1 << 17
# Mean codes of a tile from which a call of its own costs less than the keys that tiles side by side share.
_ALONE_FROM = 1 << 12


class OutOfRangeError(ValueError):
    """A code names no entry; its place is found by VQTensor.check_codes."""


class Histogram:
    """Counts uint8 or uint16 codes of tables of `entries`; not for several threads at a time."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._wide = np.empty(_PIECE, np.intp)

    def count(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """Count codes of any shape: int64 [entries]. Raises OutOfRangeError."""
        if codes.dtype == np.uint8 and codes.size >= _PAIRS_FROM:
            return self._count_pairs(codes)
        counts = np.zeros(self._entries, np.int64)
        self._add(counts, codes)
        return counts

    def count_tiles(self, codes: NDArray[Any], columns: Sequence[slice]) -> NDArray[np.int64]:
        """Count rows of codes [rows, vectors] by tile, tile t being `columns[t]`: int64 [tiles, entries].

        The columns follow one another without gaps. Raises OutOfRangeError.
        """
        counts = np.empty((len(columns), self._entries), np.int64)
        # Small tiles side by side are counted together, by keys (tile, code).
        alone = codes.size >= _ALONE_FROM * len(columns)
        together = 1 if alone else max(1, (1 << 16) // self._entries)
        for first in range(0, len(columns), together):
            group = columns[first : first + together]
            part = codes[:, group[0].start : group[-1].stop]
            found = self.count(part) if len(group) == 1 else self._count_keys(part, group)
            counts[first : first + together] = found.reshape(len(group), self._entries)
        return counts

    def _count_keys(self, codes: NDArray[Any], tiles: Sequence[slice]) -> NDArray[np.int64]:
        """Count codes [rows, vectors] of several tiles: int64 [tiles * entries]."""
        if self._entries <= np.iinfo(codes.dtype).max and codes.size and int(codes.max()) >= self._entries:
            raise OutOfRangeError
        widths = [tile.stop - tile.start for tile in tiles]
        offsets = np.repeat(np.arange(len(tiles)) * self._entries, widths)
        counts = np.zeros(len(tiles) * self._entries, np.int64)
        height = max(1, _PIECE // len(offsets))
        for top in range(0, len(codes), height):
            self._add(counts, codes[top : top + height], offsets)
        return counts

    def _count_pairs(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Count bytes two at a time: int64 [entries]."""
        run = np.ascontiguousarray(codes).reshape(-1)
        even = run.size // 2 * 2
        pairs = np.zeros(1 << 16, np.int64)
        self._add(pairs, run[:even].view(np.uint16))
        square = pairs.reshape(256, 256)
        counts: NDArray[np.int64] = square.sum(axis=0) + square.sum(axis=1)
        counts[run[even:]] += 1
        if counts[self._entries :].any():
            raise OutOfRangeError
        return counts[: self._entries]

    def _add(
        self, counts: NDArray[np.int64], codes: NDArray[Any], offsets: NDArray[np.intp] | None = None
    ) -> None:
        """Count `codes` of any shape, `offsets` added along the last axis. Raises OutOfRangeError."""
        if codes.size > _PIECE and offsets is None:
            run = codes.reshape(-1)
            for start in range(0, run.size, _PIECE):
                self._add(counts, run[start : start + _PIECE])
            return
        if codes.size > self._wide.size:
            # One row of keys may be longer than a piece.
            self._wide = np.empty(codes.size, np.intp)
        # A strided block is widened where it lies: no copy besides.
        flat = self._wide[: codes.size]
        wide = flat.reshape(codes.shape)
        wide[...] = codes
        if offsets is not None:
            wide += offsets
        try:
            np.add.at(counts, flat, 1)
        except IndexError:
            raise OutOfRangeError from None
