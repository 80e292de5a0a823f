"""Histograms of codes at memory speed with NumPy alone.

np.bincount takes about a nanosecond per element whatever its size, and works on 64-bit integers: so codes are
widened a piece at a time, within the cache, and long runs of bytes are counted two at a time in a histogram of
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
            counts = self._count_pairs(codes)
        else:
            counts = self._count(codes, self._entries)
        if counts[self._entries :].any():
            raise OutOfRangeError
        return counts[: self._entries]

    def count_tiles(self, codes: NDArray[Any], columns: Sequence[slice]) -> NDArray[np.int64]:
        """Count rows of codes [rows, vectors] by tile, tile t being `columns[t]`: int64 [tiles, entries].

        The columns follow one another without gaps. Raises OutOfRangeError.
        """
        counts = np.empty((len(columns), self._entries), np.int64)
        # Tiles side by side are counted together, by 16-bit keys (tile, code).
        together = max(1, (1 << 16) // self._entries)
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
        offsets = np.repeat(np.arange(len(tiles)) * self._entries, widths).astype(np.uint16)
        counts = np.zeros(len(tiles) * self._entries, np.int64)
        height = max(1, _PIECE // len(offsets))
        for top in range(0, len(codes), height):
            keys = codes[top : top + height].astype(np.uint16)
            keys += offsets
            counts += self._count(keys, counts.size)
        return counts

    def _count_pairs(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Count bytes two at a time: int64 [256]."""
        run = np.ascontiguousarray(codes).reshape(-1)
        even = run.size // 2 * 2
        pairs = self._count(run[:even].view(np.uint16), 1 << 16).reshape(256, 256)
        counts: NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
        counts[run[even:]] += 1
        return counts

    def _count(self, codes: NDArray[Any], bins: int) -> NDArray[np.int64]:
        """Count into at least `bins` bins, more where a code is larger."""
        if codes.size <= _PIECE:
            # A strided block is widened where it lies: no copy besides.
            wide = self._wide[: codes.size]
            wide.reshape(codes.shape)[...] = codes
            return np.bincount(wide, minlength=bins)
        run = codes.reshape(-1)
        total = np.zeros(bins, np.int64)
        for start in range(0, run.size, _PIECE):
            found = self._count(run[start : start + _PIECE], total.size)
            if found.size > total.size:
                total = np.pad(total, (0, found.size - total.size))
            total += found
        return total
