"""Random quantized keys or values, for validation and timing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vqcc.tensors.cache_tensor import CacheTensor
from vqcc.tensors.vq_tensor import numpy_dtype

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm

__all__ = ["random_cache_tensor"]


def random_cache_tensor(
    rng: np.random.Generator, name: str, algorithm: Algorithm, kv_heads: int, head_dim: int, tokens: int = 1
) -> CacheTensor:
    """Codebooks of normal entries, and uniform codes of one sequence of `tokens`."""
    groups = head_dim // algorithm.vector_size
    books = algorithm.scope.cache_books(kv_heads, groups)
    shape = (*books, algorithm.residuals, algorithm.entries, algorithm.vector_size)
    assert algorithm.codebook_type is not None
    entries = rng.standard_normal(shape, dtype=np.float32).astype(numpy_dtype(algorithm.codebook_type))
    codes = rng.integers(
        0, algorithm.entries, (1, kv_heads, tokens, groups, algorithm.residuals), dtype=algorithm.codes_dtype
    )
    return CacheTensor(name, algorithm, (kv_heads, tokens, head_dim), "float16", codes, entries)
