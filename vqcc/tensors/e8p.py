"""Quantization of a weight to E8P entries: a search for the scale, then the nearest entry of each vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.tensors import scaling
from vqcc.tensors.lattice import encode
from vqcc.tensors.vq_tensor import VQTensor

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.e8p import E8P

# Root mean square of the entries: weights of that size use them best if they are normal.
_GRID_SIZE = math.sqrt(1.1963)
_SAMPLE = 4096
_BLOCK = 1 << 16
# Factors on a scale that are tried: heavy tails need larger ones than the normal distribution's 0.97.
_FACTORS = tuple(0.5 * 2 ** (step / 4) for step in range(17))
_REFINEMENTS = 8
_GOLDEN = (math.sqrt(5) - 1) / 2


def learn_e8p(
    algorithm: E8P,
    name: str,
    weights: NDArray[np.float32],
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> VQTensor:
    """Quantize finite `weights` [n, k]; the same arguments give the same tensor.

    Scales are the root mean square times one factor, found on a sample of vectors by relative error, and
    are refitted by least squares once the codes are known. Scales none leaves the weights as they are.
    """
    import numpy as np

    n, k = weights.shape
    size, stages = algorithm.vector_size, algorithm.residuals
    blocks = range(0, n * k // size, _BLOCK)
    scales = scaling.root_mean_square(algorithm.scales, weights)
    if scales is not None:
        vectors = scaling.divide(algorithm.scales, scales, weights).reshape(-1, size)
        importance = scaling.importance(algorithm.scales, scales, (n, k))[:, ::size].reshape(-1)
        factor = _best_factor(vectors, importance, stages, seed)
        scales = (scales * factor).astype(scales.dtype)
    progress(1, len(blocks) + 1)
    scaled = scaling.divide(algorithm.scales, scales, weights).reshape(-1, size)
    codes = np.empty((stages, len(scaled)), np.uint16)
    for done, start in enumerate(blocks, 2):
        block = slice(start, start + _BLOCK)
        codes[:, block], scaled[block] = encode(scaled[block], stages)
        progress(done, len(blocks) + 1)
    return VQTensor(
        name=name,
        algorithm=algorithm,
        shape=(n, k),
        dtype="float32",
        codes=codes.reshape(stages, n, k // size),
        scales=scaling.refit(algorithm.scales, scales, weights, scaled.reshape(n, k)),
    )


def _best_factor(
    vectors: NDArray[np.float32], importance: NDArray[np.float64], residuals: int, seed: int
) -> float:
    """Return the factor on the scales of `vectors` (of unit size) that leaves the least error."""
    import numpy as np

    if len(vectors) > _SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(vectors), _SAMPLE, replace=False)
        vectors, importance = vectors[chosen], importance[chosen]

    def error(factor: float) -> float:
        scale = np.float32(factor / _GRID_SIZE)
        _, decoded = encode(vectors / scale, residuals)
        return float((((vectors - decoded * scale) ** 2).sum(axis=1) * importance).sum())

    errors = [error(factor) for factor in _FACTORS]
    best = errors.index(min(errors))
    low, high = _FACTORS[max(best - 1, 0)], _FACTORS[min(best + 1, len(_FACTORS) - 1)]
    return _golden_section(error, low, high) / _GRID_SIZE


def _golden_section(error: Callable[[float], float], low: float, high: float) -> float:
    """Return about where `error` is least between `low` and `high`."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = error(left), error(right)
    for _ in range(_REFINEMENTS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = error(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = error(right)
    return left if at_left <= at_right else right
