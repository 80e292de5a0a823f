"""Exact nearest entries of the E8P codebook, without looking at all 65,536.

An entry is a row of absolute values with signs whose flips are even in number (counted from the row's
own), shifted by a quarter up or down. For one shift and one row the best signs are those of the vector;
if their number is of the wrong parity, one flip has to be undone, where it costs least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.algorithms.e8p import VECTOR_SIZE, absolute_rows, element_nibbles, grid, odd_rows, stage_divisor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHIFT = 0.25
# Vectors at a time: their costs against 256 rows stay within a core's cache.
_BLOCK = 1024
# No entry is longer than 5; farther out than this, squares might overflow.
_FAR = 1e15


def nearest_codes(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the code of the entry nearest to each of `vectors` [count, 8]."""
    import numpy as np

    codes = np.empty(len(vectors), np.uint16)
    for start in range(0, len(vectors), _BLOCK):
        block: NDArray[np.float32] = vectors[start : start + _BLOCK].clip(np.float32(-_FAR), np.float32(_FAR))
        costs, found = zip(
            *(_nearest_shifted(block - shift, shift) for shift in (_SHIFT, -_SHIFT)), strict=True
        )
        codes[start : start + _BLOCK] = np.where(costs[0] <= costs[1], found[0], found[1])
    return codes


def encode(vectors: NDArray[np.float32], residuals: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return codes [residuals, count], each stage on what the earlier left, and what they decode to."""
    import numpy as np

    codes = np.empty((residuals, len(vectors)), np.uint16)
    decoded = np.zeros_like(vectors)
    for stage in range(residuals):
        divisor = np.float32(stage_divisor(stage))
        codes[stage] = nearest_codes((vectors - decoded) * divisor)
        decoded += grid()[codes[stage]] / divisor
    return codes, decoded


def _nearest_shifted(
    vectors: NDArray[np.float32], shift: float
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return squared distance and code of the best unshifted entry for vectors that have been unshifted."""
    import numpy as np

    rows = absolute_rows().astype(np.float32)
    size = np.abs(vectors)
    negative = vectors < 0
    # Undoing the flip of element i costs 4 |v_i| row_i; the least over i.
    undo = size[:, :1] * rows[:, 0]
    for element in range(1, VECTOR_SIZE):
        np.minimum(undo, size[:, element : element + 1] * rows[:, element], out=undo)
    wrong_parity = (negative.sum(axis=1) % 2 == 1)[:, None] ^ odd_rows()
    cost = (rows**2).sum(axis=1) - 2 * (size @ rows.T)
    cost += np.where(wrong_parity, 4 * undo, 0)
    best = cost.argmin(axis=1)
    every = np.arange(len(vectors))
    cheapest = (size * rows[best]).argmin(axis=1)
    negative[every, cheapest] ^= wrong_parity[every, best]
    distance = cost[every, best] + (size**2).sum(axis=1)
    return distance, _pack(best, negative, shift)


def _pack(rows: NDArray[Any], negative: NDArray[np.bool_], shift: float) -> NDArray[np.uint16]:
    """Write codes: the row in the high byte, in the low byte the flips, of odd parity for a shift down."""
    import numpy as np

    flips = negative.copy()
    # The table's odd rows hold one negative value already, in the last element.
    flips[:, -1] ^= odd_rows()[rows]
    bits = np.zeros(len(rows), np.uint16)
    for element, nibble in enumerate(element_nibbles()):
        bits |= flips[:, element].astype(np.uint16) << np.uint16(nibble)
    if shift < 0:
        # The decoder flips bit 0 back when it meets odd parity.
        bits ^= np.uint16(1)
    return (rows.astype(np.uint16) << np.uint16(8)) | bits
