"""Weights whose codes follow Zipf's law, and their profile: what codes drawn evenly leave unmeasured.

Evenly drawn codes have no hot entries, and level o2 then caches none in registers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vqcc.hotness import profile_tensor, save_profile

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.algorithms.base import Algorithm
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["save_zipf_profile", "zipf_tensor"]

#: The i-th most frequent entry is looked up in proportion to 1 / i^EXPONENT: of 256 entries 3 are hot, of 4096 16.
EXPONENT = 1.0


def zipf_tensor(algorithm: Algorithm, n: int, k: int, *, seed: int = 0) -> VQTensor:
    """A random tensor [n, k] of which each table's look-ups follow Zipf's law; which entries are hot is drawn."""
    rng = np.random.default_rng(seed)
    tensor = algorithm.random_tensor(rng, "random", n, k)
    entries = algorithm.table_entries
    weights = np.arange(1, entries + 1) ** -EXPONENT
    limits = np.cumsum(weights / weights.sum())[:-1]
    entry_of_rank = [rng.permutation(entries) for _ in range(algorithm.table_count)]
    codes = np.empty_like(tensor.codes)
    for stage, old in enumerate(tensor.codes):
        ranks = np.searchsorted(limits, rng.random(old.shape), side="right")
        rows = entry_of_rank[min(stage, algorithm.table_count - 1)][ranks]
        codes[stage] = algorithm.replace_rows(old, rows.astype(codes.dtype))
    return replace(tensor, codes=codes)


def save_zipf_profile(path: Path, algorithm: Algorithm, n: int, k: int) -> None:
    """Write the profile of `zipf_tensor(algorithm, n, k)`."""
    save_profile(path, [profile_tensor(zipf_tensor(algorithm, n, k))])
