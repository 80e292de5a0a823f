from __future__ import annotations

import numpy as np
import pytest

from vqcc.algorithms.presets import resolve
from vqcc.tensors.cache_books import pack_books, pack_row_books
from vqcc.tensors.cache_packing import pack_cache
from vqcc.tensors.cache_tensor import CacheTensor


def tensor(preset: str, heads: int = 2, head_dim: int = 64, tokens: int = 40) -> CacheTensor:
    rng = np.random.default_rng(len(preset) + head_dim)
    algorithm = resolve(preset)
    groups = head_dim // algorithm.vector_size
    codes = rng.integers(0, algorithm.entries, (1, heads, tokens, groups, algorithm.residuals))
    books = algorithm.scope.cache_books(heads, groups)
    shape = (*books, algorithm.residuals, algorithm.entries, algorithm.vector_size)
    made = CacheTensor(
        "cache",
        algorithm,
        (heads, tokens, head_dim),
        "float16",
        codes.astype(algorithm.codes_dtype),
        rng.standard_normal(shape).astype(np.float16),
    )
    made.validate()
    return made


def test_kernels_that_decode_and_that_append_read_the_same() -> None:
    keys, values = tensor("cq-2"), tensor("kv-4-8-1")
    packed = pack_cache(keys, values, by_rows=False)
    np.testing.assert_array_equal(packed.key_books, pack_books(keys.codebooks))
    np.testing.assert_array_equal(packed.append_key_books, packed.key_books)
    np.testing.assert_array_equal(packed.append_value_books, packed.value_books)
    assert set(packed.arrays()) == {"key_books", "value_books", "append_key_books", "append_value_books"}


def test_kernels_that_look_rows_up_have_facts_of_them() -> None:
    keys, values = tensor("cq-2"), tensor("cq-4")
    rotations = np.arange(32, dtype=np.uint64)
    packed = pack_cache(keys, values, by_rows=True, rotations=rotations)
    rows = pack_row_books(keys.codebooks, values.codebooks, 64)
    np.testing.assert_array_equal(packed.key_books, rows.keys)
    np.testing.assert_array_equal(packed.value_books, rows.values)
    np.testing.assert_array_equal(packed.append_value_books, pack_books(values.codebooks))
    assert set(packed.arrays()) >= {"book_facts", "rotations"}


@pytest.mark.parametrize(("preset", "bytes_of_a_book"), [("cq-2", 2048), ("kv-4-8-2", 4096), ("cq-4", 1024)])
def test_a_book_has_the_bytes_that_its_algorithm_says(preset: str, bytes_of_a_book: int) -> None:
    keys = tensor(preset)
    assert pack_cache(keys, keys, by_rows=False).key_books.shape[1] == bytes_of_a_book
    assert keys.algorithm.table_bytes == bytes_of_a_book
