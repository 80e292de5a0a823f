"""Weights whose codes follow Zipf's law, and their profile: what codes drawn evenly leave unmeasured.

Evenly drawn codes have no hot entries, and level o2 then caches none in registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vqcc.hotness import profile_tensor, save_profile
from vqcc.hotness.drawing import draw_tensor

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.algorithms.base import Algorithm
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["save_zipf_profile", "zipf_tensor"]

#: The i-th most frequent entry is looked up in proportion to 1 / i^EXPONENT: of 256 entries 3 are hot, of 4096 16.
EXPONENT = 1.0


def zipf_tensor(algorithm: Algorithm, n: int, k: int, *, seed: int = 0) -> VQTensor:
    """A random tensor [n, k] of which each table's look-ups follow Zipf's law; which entries are hot is drawn."""
    weights = np.arange(1, algorithm.table_entries + 1) ** -EXPONENT
    shares = np.tile(weights / weights.sum(), (algorithm.table_count, 1))
    return draw_tensor(np.random.default_rng(seed), algorithm, (n, k), shares)


def save_zipf_profile(path: Path, algorithm: Algorithm, n: int, k: int) -> None:
    """Write the profile of `zipf_tensor(algorithm, n, k)`."""
    save_profile(path, [profile_tensor(zipf_tensor(algorithm, n, k))])
