"""Renamed codes look up permuted tables: the weights stay the same to the bit, whatever the orders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import random_case

from vqcc.algorithms import Algorithm, from_mapping, presets
from vqcc.passes.layout import choose_layout
from vqcc.tensors.packing import pack_tensor, unpack_codes
from vqcc.tensors.vq_tensor import VQTensor, numpy_dtype


def decode_packed(tensor: VQTensor, codes: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Weights of renamed codes and packed tables [books, table_bytes], as the device would look them up."""
    algorithm = tensor.algorithm
    if algorithm.family == "e8p":
        return decode_words(tensor, codes, tables.view("<u4")[0])
    shape = (len(tables), algorithm.residuals, algorithm.entries, -1)
    used = tables[:, : algorithm.residuals * algorithm.stage_bytes]
    entries = np.ascontiguousarray(used).view(numpy_dtype(algorithm.codebook_dtype)).reshape(shape)  # type: ignore[attr-defined]
    return replace(tensor, codes=codes, codebooks=entries[..., : algorithm.vector_size]).decode()


def decode_words(tensor: VQTensor, codes: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Rows of any order, then 256 masks: nibble f of a row xor a mask is f / 2 - 4 + 1/4."""
    n, k = tensor.shape
    weights = np.zeros((n, k))
    for stage, stage_codes in enumerate(codes):
        fields = words[stage_codes >> 8] ^ words[256 + (stage_codes & 255)]
        for element, nibble in enumerate((0, 4, 1, 5, 2, 6, 3, 7)):
            values = (fields >> np.uint32(4 * nibble) & 15) / 2 - 3.75
            weights[:, element::8] += values / 3.45**stage
    return weights * tensor.algorithm.scales.expand(tensor.scales, k)


def random_orders(algorithm: Algorithm, n: int, k: int, seed: int) -> np.ndarray:
    shape = (algorithm.scope.books(n, k), algorithm.table_count, algorithm.table_entries)
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random(shape), axis=-1)


def cases(seed: int) -> tuple[Algorithm, int, int]:
    if seed % 6 == 0:
        return (
            from_mapping({"family": "e8p", "residuals": 1 + seed // 6 % 2}),
            1 + seed % 13,
            8 * (1 + seed % 9),
        )
    case = random_case(seed)
    return case.algorithm, case.n, case.k


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 100))
def test_decoding_is_bit_identical(seed: int, order_seed: int) -> None:
    algorithm, n, k = cases(seed)
    tensor = algorithm.random_tensor(np.random.default_rng(seed), "w", n, k)
    orders = random_orders(algorithm, n, k, order_seed)
    codes = algorithm.rename(tensor.codes, orders, (n, k))
    assert (codes.dtype, codes.shape) == (tensor.codes.dtype, tensor.codes.shape)
    weights = decode_packed(tensor, codes, algorithm.pack_tables(tensor, orders))
    assert np.array_equal(weights, tensor.decode())


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_packing_by_frequency_is_bit_identical(seed: int) -> None:
    """And the most frequent row of each table is number 0, the next 1, ..."""
    algorithm, n, k = cases(seed)
    tensor = algorithm.random_tensor(np.random.default_rng(seed), "w", n, k)
    layout = choose_layout(k // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)
    packed = pack_tensor(tensor, layout, by_frequency=True)
    codes = unpack_codes(packed.codes, layout).astype(tensor.codes.dtype)
    assert np.array_equal(decode_packed(tensor, codes, packed.books), tensor.decode())
    for rows, columns in algorithm.scope.slices(n, k):
        vectors = slice(columns.start // algorithm.vector_size, columns.stop // algorithm.vector_size)
        found = algorithm.table_rows(codes[:, rows, vectors]).astype(int)
        for table in found.reshape(algorithm.table_count, -1):
            counts = np.bincount(table, minlength=algorithm.table_entries)
            assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize("name", ["aqlm-2x8", "gptvq-2", "quip-4"])
def test_the_identity_changes_nothing(name: str) -> None:
    algorithm = presets.resolve(name)
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 16, 64)
    orders = np.broadcast_to(np.arange(256), (1, algorithm.table_count, 256))
    assert np.array_equal(algorithm.rename(tensor.codes, orders, (16, 64)), tensor.codes)
    assert np.array_equal(algorithm.pack_tables(tensor, orders), algorithm.pack_tables(tensor))


def test_only_the_rows_of_e8p_are_renamed() -> None:
    """The high byte names a row and is renamed, all stages alike; the low byte holds signs and stays."""
    algorithm = presets.resolve("quip-4")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 4, 64)
    orders = np.arange(256)[::-1].reshape(1, 1, 256)
    renamed = algorithm.rename(tensor.codes, orders, (4, 64))
    assert np.array_equal(renamed & 255, tensor.codes & 255)
    assert np.array_equal(renamed >> 8, 255 - (tensor.codes >> 8))


def test_each_tile_has_its_own_order() -> None:
    mapping: dict[str, Any] = {
        "family": "kmeans",
        "vector_size": 2,
        "entries": 4,
        "scope": {"rows": 1, "cols": 4},
    }
    algorithm = from_mapping(mapping)
    codes = np.array([[[0, 1, 2], [3, 0, 1]]], np.uint8)
    orders = np.array([[[1, 0, 2, 3]], [[3, 2, 1, 0]], [[0, 1, 2, 3]], [[1, 2, 3, 0]]])
    assert algorithm.rename(codes, orders, (2, 6)).tolist() == [[[1, 0, 1], [3, 0, 0]]]


@pytest.mark.parametrize(
    ("name", "tables", "entries"),
    [("aqlm-2x8", 2, 256), ("gptvq-2", 1, 256), ("quip-2", 1, 256), ("quip-4", 1, 256), ("aqlm-3", 2, 4096)],
)
def test_tables_of_a_book(name: str, tables: int, entries: int) -> None:
    algorithm = presets.resolve(name)
    assert (algorithm.table_count, algorithm.table_entries) == (tables, entries)
    codes = np.array([0, 1, 0x1234 % algorithm.entries, algorithm.entries - 1], algorithm.codes_dtype)
    rows = algorithm.table_rows(codes)
    assert rows.dtype.kind == "u"
    assert rows.tolist() == [code * entries // algorithm.entries for code in codes.tolist()]
