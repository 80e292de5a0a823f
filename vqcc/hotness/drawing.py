"""Random weights whose codes look entries up as often as a profile says, for timing without the weights themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.hotness.model import TensorProfile
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["draw_tensor", "shares_by_rank"]


def shares_by_rank(profile: Sequence[TensorProfile]) -> NDArray[np.float64]:
    """The share of look-ups of each table's entries, the most frequent first, the mean of books and tensors.

    Float64 [tables, entries]; each row adds up to 1.
    """
    counts = np.concatenate([tensor.counts for tensor in profile]).astype(np.float64)
    ordered = -np.sort(-counts, axis=-1)
    ordered += ordered.sum(axis=-1, keepdims=True) == 0  # a book that no code uses: evenly
    mean = (ordered / ordered.sum(axis=-1, keepdims=True)).mean(axis=0)
    return np.asarray(mean / mean.sum(axis=-1, keepdims=True))


def draw_tensor(
    rng: np.random.Generator, algorithm: Algorithm, shape: tuple[int, int], shares: NDArray[Any]
) -> VQTensor:
    """A random tensor [n, k]; `shares` [tables, entries] are those of entries by rank. Which entry has one is drawn."""
    tensor = algorithm.random_tensor(rng, "random", *shape)
    limits = np.cumsum(shares, axis=-1)[:, :-1]
    entry_of_rank = [rng.permutation(algorithm.table_entries) for _ in range(algorithm.table_count)]
    codes = np.empty_like(tensor.codes)
    for stage, old in enumerate(tensor.codes):
        table = min(stage, algorithm.table_count - 1)
        ranks = np.searchsorted(limits[table], rng.random(old.shape), side="right")
        codes[stage] = algorithm.replace_rows(old, entry_of_rank[table][ranks].astype(codes.dtype))
    return replace(tensor, codes=codes)
