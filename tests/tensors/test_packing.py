"""Packed weights, read back bit by bit as the layout's description says and by nothing that wrote them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import random_case
from problems import kmeans

from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.code_layouts import BucketLayout, FragmentLayout, PackedLayout
from vqcc.passes.layout import choose_layout
from vqcc.tensors.buckets import wrong_buckets
from vqcc.tensors.packing import pack_codes, pack_tensor, unpack_codes


def read_code(row: np.ndarray, layout: PackedLayout, vector: int, residual: int) -> int:
    """One code of a packed row: its segment, its chunk in that, its bits in the little-endian stream."""
    segment = vector // layout.segment_vectors
    within = vector % layout.segment_vectors
    full = layout.vectors // layout.segment_vectors
    lanes = layout.lanes if segment < full else layout.tail_lanes
    slot, lane = within // lanes, within % lanes
    chunk = segment * layout.lanes + lane
    stream = row[chunk * layout.chunk_words : (chunk + 1) * layout.chunk_words].astype("<u4").tobytes()
    bits = int.from_bytes(stream, "little")
    first = (slot * layout.residuals + residual) * layout.code_bits
    return bits >> first & ((1 << layout.code_bits) - 1)


def random_codes(layout: PackedLayout, rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (layout.residuals, rows, layout.vectors)
    return rng.integers(0, 1 << layout.code_bits, shape).astype(np.uint16)


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 16), st.integers(0, 1000))
def test_every_code_is_where_the_layout_says(vectors: int, residuals: int, code_bits: int, seed: int) -> None:
    layout = choose_layout(vectors, residuals, code_bits)
    codes = random_codes(layout, 2, seed)
    words = pack_codes(codes, layout)
    assert words.dtype == np.uint32
    assert words.shape == (2, layout.row_words)
    for row in range(2):
        for residual in range(residuals):
            for vector in range(vectors):
                assert read_code(words[row], layout, vector, residual) == codes[residual, row, vector]
    assert np.array_equal(unpack_codes(words, layout), codes)


@settings(max_examples=40)
@given(st.data())
def test_codes_in_the_order_of_fragments_come_back(data: st.DataObject) -> None:
    """Any such layout holds every code once, whatever is padded; padding is zero."""
    residuals, code_bits = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 16))
    step_vectors, span = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([1, 2, 4, 64]))
    words = -(-step_vectors * residuals * code_bits // 32)
    vectors, rows = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 100))
    layout = FragmentLayout(vectors, residuals, code_bits, step_vectors, words, span)
    codes = (
        np.random.default_rng(vectors)
        .integers(0, 1 << code_bits, (residuals, rows, vectors))
        .astype(np.uint16)
    )
    packed = pack_codes(codes, layout)
    assert packed.shape == layout.code_shape(rows)
    back = unpack_codes(packed, layout)
    assert np.array_equal(back[:, :rows], codes)
    assert not back[:, rows:].any()
    ones = pack_codes(np.full((residuals, rows, vectors), (1 << code_bits) - 1, np.uint16), layout)
    assert np.bitwise_count(ones).sum() == codes.size * code_bits


@settings(max_examples=30)
@given(st.data())
def test_codes_in_buckets_come_back(data: st.DataObject) -> None:
    """Random codes, a few, and one: every code is held once, whatever is padded, and packing is a function."""
    residuals, code_bits = data.draw(st.integers(1, 3)), data.draw(st.integers(4, 16))
    rows, vectors = data.draw(st.integers(1, 600)), data.draw(st.integers(1, 60))
    layout = BucketLayout(
        vectors=vectors,
        residuals=residuals,
        code_bits=code_bits,
        part_entries=1 << data.draw(st.integers(3, min(13, code_bits))),
        panel_vectors=data.draw(st.integers(1, vectors)),
    )
    rng = np.random.default_rng(rows * vectors)
    codes = rng.integers(0, 1 << code_bits, (residuals, rows, vectors)).astype(np.uint16)
    codes[:, data.draw(st.integers(0, rows)) :] %= data.draw(st.sampled_from([1, 2, 9, 65536 - 1]))
    packed = pack_codes(codes, layout)
    assert wrong_buckets(packed, layout, rows) is None
    assert np.array_equal(unpack_codes(packed, layout, rows), codes)
    assert np.array_equal(pack_codes(codes, layout), packed)


def test_by_hand() -> None:
    """Three vectors of two 4-bit codes: chunks of one word hold two vectors, for lanes 0 and 1."""
    layout = PackedLayout(vectors=3, residuals=2, code_bits=4, chunk_vectors=2, chunk_words=1)
    codes = np.array([[[1, 2, 3]], [[10, 11, 12]]], dtype=np.uint8)
    assert (layout.segments, layout.tail_lanes, layout.row_words) == (1, 2, 2)
    # Lane 0 has vectors 0 and 2, lane 1 vector 1 and padding.
    assert pack_codes(codes, layout).tolist() == [[0xC3A1, 0x00B2]]


def test_codes_that_straddle_words() -> None:
    layout = PackedLayout(vectors=8, residuals=1, code_bits=12, chunk_vectors=8, chunk_words=3)
    codes = np.array([[[0x123, 0x456, 0x789, 0xABC, 0xDEF, 0x012, 0x345, 0x678]]], dtype=np.uint16)
    assert pack_codes(codes, layout).tolist() == [[0x89456123, 0x2DEFABC7, 0x67834501]]


def test_padding_is_zero() -> None:
    layout = choose_layout(33, 1, 8)
    words = pack_codes(np.full((1, 4, 33), 255, dtype=np.uint8), layout)
    assert int(np.unpackbits(words.view(np.uint8)).sum()) == 4 * 33 * 8


def test_twelve_bit_codes_take_twelve_bits() -> None:
    """AQLM-3 at 4096 columns: 512 vectors of two 12-bit codes, 3 bits per weight and not 4."""
    layout = choose_layout(512, 2, 12)
    assert layout.row_words * 32 / 4096 == 3


@pytest.mark.parametrize("seed", range(20))
def test_arrays_are_as_kernels_read_them(seed: int) -> None:
    case = random_case(seed)
    algorithm = case.algorithm
    layout = choose_layout(case.k // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)
    tensor = algorithm.random_tensor(np.random.default_rng(seed), "w", case.n, case.k)
    arrays = pack_tensor(tensor, layout).arrays()
    assert all(array.flags.c_contiguous for array in arrays.values())
    assert (arrays["codes"].dtype, arrays["codes"].shape) == (np.uint32, (case.n, layout.row_words))
    books = algorithm.scope.books(case.n, case.k)
    assert (arrays["books"].dtype, arrays["books"].shape) == (np.uint8, (books, algorithm.table_bytes))
    assert arrays["books"].nbytes % 16 == 0
    assert ("stage_scales" in arrays) == algorithm.has_codebook_scales
    if "stage_scales" in arrays:
        assert (arrays["stage_scales"].dtype, arrays["stage_scales"].shape) == (
            np.float32,
            (books, algorithm.residuals),
        )
    assert ("scales" in arrays) == (algorithm.scales.kind != "none")
    if "scales" in arrays:
        kind = algorithm.scales.kind
        assert arrays["scales"].dtype == (np.float16 if kind == "group" else np.float32)
        assert arrays["scales"].shape == algorithm.scales.shape(case.n, case.k)


def test_scales_take_the_type_that_kernels_read() -> None:
    """Whatever type the file has: float32 for tensor and row, float16 for group."""
    algorithm = from_mapping(kmeans(scales="row"))
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 8, 64)
    assert tensor.scales is not None
    half = type(tensor)(**{**vars(tensor), "scales": tensor.scales.astype(np.float16)})
    packed = pack_tensor(half, choose_layout(16, 1, 8)).arrays()["scales"]
    assert packed.dtype == np.float32
    assert np.array_equal(packed, tensor.scales.astype(np.float16).astype(np.float32))


def test_a_computed_decoder_packs_its_own_table() -> None:
    algorithm = resolve("quip-4")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 4, 64)
    arrays = pack_tensor(tensor, choose_layout(8, 2, 16)).arrays()
    assert arrays["books"].shape == (1, 2048)
    assert set(arrays) == {"codes", "books", "scales"}
