"""Scales of a weight: chosen before its vectors are quantized, refitted by least squares after.

A scale is the root mean square of what it covers. On trained weights that leaves a lower error than the
largest magnitude does (k-means VQ<4,8,1> with row scales: 0.316 against 0.320 relative), because one
outlier does not squeeze its whole row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.fields import Scales

    Array = NDArray[Any]

# Elements worked on at a time, so that float64 intermediates of a large weight stay small.
_BLOCK = 1 << 20


def root_mean_square(scales: Scales, weights: NDArray[np.float32]) -> Array | None:
    """Return a scale per tensor, row or group of `weights` [n, k] in its stored type; 0 where all is 0."""
    import numpy as np

    shape = scales.shape(*weights.shape)
    if shape is None:
        return None
    squares = _sums(scales, weights.shape, lambda rows: weights[rows].astype(np.float64) ** 2)
    counts = _sums(scales, weights.shape, lambda rows: np.ones_like(weights[rows], np.float64))
    return _stored(scales, np.sqrt(squares / counts))


def divide(scales: Scales, values: Array | None, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `weights` over their stored scales; a scale of 0 gives 0."""
    import numpy as np

    divisors = scales.expand(values, weights.shape[1])
    inverse = np.divide(1, divisors, out=np.zeros_like(divisors), where=divisors != 0)
    return np.multiply(weights, inverse, dtype=np.float32, casting="same_kind")


def unit(values: NDArray[np.float32]) -> np.float32:
    """Return the power of two nearest the size of `values`: dividing by it is exact, squares stay finite."""
    import numpy as np

    norm = np.sqrt(sum(float((block.astype(np.float64) ** 2).sum()) for block in values) / values.size)
    return np.float32(2.0 ** np.clip(np.rint(np.log2(norm)), -120, 120)) if norm > 0 else np.float32(1)


def refit(
    scales: Scales, values: Array | None, weights: NDArray[np.float32], decoded: NDArray[np.float32]
) -> Array | None:
    """Return the scales that bring scale x `decoded` (unscaled) nearest to `weights`, in their stored type.

    A scale that least squares would make zero or negative keeps its value.
    """
    import numpy as np

    if values is None:
        return None
    shape = weights.shape
    cross = _sums(scales, shape, lambda rows: weights[rows].astype(np.float64) * decoded[rows])
    square = _sums(scales, shape, lambda rows: decoded[rows].astype(np.float64) ** 2)
    fitted = np.divide(cross, square, out=np.zeros_like(cross), where=square > 0)
    return np.where(fitted > 0, _stored(scales, fitted), values).astype(values.dtype)


def importance(scales: Scales, values: Array | None, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return what a squared error of each scaled weight counts for in the weight itself, [n, k] broadcast."""
    import numpy as np

    return np.broadcast_to(scales.expand(values, shape[1]) ** 2, shape)


def _stored(scales: Scales, values: Array) -> Array:
    import numpy as np

    dtype = np.dtype(scales.dtype)
    return values.clip(0, float(np.finfo(dtype).max)).astype(dtype)


def _sums(scales: Scales, shape: tuple[int, ...], rows_of: Callable[[slice], Array]) -> Array:
    """Sum what `rows_of` gives for a slice of rows, over all that shares a scale."""
    import numpy as np

    n, k = shape
    starts = np.arange(0, k, scales.group or k)
    sums = [np.add.reduceat(rows_of(rows), starts, axis=1) for rows in _row_blocks(n, k)]
    by_row = np.concatenate(sums)
    if scales.kind == "group":
        return by_row
    return by_row.sum(axis=(0, 1)).reshape(1) if scales.kind == "tensor" else by_row[:, 0]


def _row_blocks(n: int, k: int) -> Iterator[slice]:
    step = max(1, _BLOCK // k)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
