"""The packed layout holds every code exactly once, wastes little, and suits wide loads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.passes.layout import MAX_CODES, MAX_WORDS, choose_layout
from vqcc.tensors.packing import pack_codes, unpack_codes

widths = st.integers(1, 16)
stages = st.integers(1, 8)


@given(vectors=st.integers(1, 3000), residuals=stages, code_bits=widths)
def test_a_chunk_holds_its_codes(vectors: int, residuals: int, code_bits: int) -> None:
    layout = choose_layout(vectors, residuals, code_bits)
    bits = layout.chunk_vectors * residuals * code_bits
    assert 32 * (layout.chunk_words - 1) < bits <= 32 * layout.chunk_words
    assert layout.chunk_words <= MAX_WORDS
    assert layout.chunk_vectors * residuals <= MAX_CODES
    slots = layout.row_words // layout.chunk_words * layout.chunk_vectors
    assert vectors <= slots < vectors + layout.chunk_vectors


@given(data=st.data(), vectors=st.integers(1, 700), residuals=stages, code_bits=widths)
def test_packing_is_undone_by_unpacking(
    data: st.DataObject, vectors: int, residuals: int, code_bits: int
) -> None:
    layout = choose_layout(vectors, residuals, code_bits)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, 1 << code_bits, size=(residuals, 3, vectors), dtype=np.uint16)
    words = pack_codes(codes, layout)
    assert words.shape == (3, layout.row_words)
    np.testing.assert_array_equal(unpack_codes(words, layout), codes)


@pytest.mark.parametrize(
    ("vectors", "residuals", "code_bits", "chunk_vectors", "chunk_words"),
    [
        (512, 2, 8, 8, 4),  # aqlm-2x8, k = 4096: 16 bytes
        (512, 1, 16, 8, 4),  # aqlm-1x16, quip-2
        (512, 2, 16, 4, 4),  # quip-4
        (512, 2, 12, 16, 12),  # aqlm-3: 12 bits, not 16, in three 16-byte loads
        (1024, 1, 8, 16, 4),  # gptvq-2
        (48, 2, 8, 2, 1),  # a short row keeps its lanes busy instead
    ],
)
def test_known_layouts(
    vectors: int, residuals: int, code_bits: int, chunk_vectors: int, chunk_words: int
) -> None:
    layout = choose_layout(vectors, residuals, code_bits)
    assert (layout.chunk_vectors, layout.chunk_words) == (chunk_vectors, chunk_words)


@pytest.mark.parametrize("code_bits", range(1, 17))
@pytest.mark.parametrize("residuals", [1, 2, 4, 8])
def test_long_rows_waste_little(code_bits: int, residuals: int) -> None:
    layout = choose_layout(4096, residuals, code_bits)
    waste = 32 * layout.row_words / (4096 * residuals * code_bits) - 1
    assert waste <= (0 if code_bits in {1, 2, 4, 8, 12, 16} else 0.07)


def test_lanes_interleave_within_a_segment() -> None:
    """Vector j of lane l is number j * lanes + l: neighbouring lanes read neighbouring activations."""
    layout = choose_layout(512, 1, 16)
    codes = np.arange(512, dtype=np.uint16).reshape(1, 1, 512)
    words = pack_codes(codes, layout).reshape(2, 32, 4)
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1).reshape(2, 32, 8)
    assert halves[1, 3, 5] == 256 + 5 * 32 + 3
