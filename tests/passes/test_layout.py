"""The packed layout holds every code exactly once, wastes little, and suits wide loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import kmeans, problem, problems

from vqcc.code_layouts import PackedLayout
from vqcc.passes.layout import LANES, MAX_CODES, MAX_WORDS, choose_layout, plan_layout, segment_lanes
from vqcc.plan import Plan
from vqcc.tensors.packing import pack_codes, unpack_codes

if TYPE_CHECKING:
    from vqcc.problem import Problem

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
    layout = replace(choose_layout(vectors, residuals, code_bits), lanes=data.draw(st.sampled_from(LANES)))
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


def layout_of(task: Problem) -> PackedLayout:
    layout = plan_layout(task, Plan(task.kernel, task.level)).layout
    assert layout is not None
    return layout


@settings(max_examples=200)
@given(problems())
def test_a_tile_is_a_whole_number_of_segments_where_it_can_be(task: Problem) -> None:
    layout = layout_of(task)
    rows, columns = task.op.weight_shape
    tile = min(task.algorithm.scope.tile(rows, columns)[1], columns) // task.algorithm.vector_size
    fitting = [lanes for lanes in LANES if tile % (lanes * layout.chunk_vectors) == 0]
    assert layout.lanes in {4, 8, 16, 32}
    if tile < layout.vectors and fitting:
        assert layout.lanes == max(fitting)
        assert tile % layout.segment_vectors == 0
    else:
        assert layout.lanes == 32
    assert (
        layout.vectors <= layout.segments * layout.segment_vectors < layout.vectors + layout.segment_vectors
    )
    assert layout.row_words % layout.chunk_words == 0


@settings(max_examples=50)
@given(problems(), st.sampled_from(["gc", "o1", "o4", "best"]), st.integers(1, 16))
def test_all_kernels_of_a_library_read_one_layout(task: Problem, level: str, m: int) -> None:
    """And so do those of every level: it depends on codes, rows and scope only."""
    op = task.op.model_copy(update={"m": (m,)})
    other = replace(task, op=op, variant=op.variants()[0], level=level)
    assert layout_of(other) == layout_of(task)


@pytest.mark.parametrize(
    ("columns", "lanes"), [(256, 4), (512, 8), (1024, 16), (2048, 32), (4096, 32), (96, 32)]
)
def test_segments_of_gptvq_tiles(columns: int, lanes: int) -> None:
    """Vectors of 4 in chunks of 16: a segment of 4 lanes has 256 columns."""
    task = problem(kmeans(scope={"rows": 256, "cols": columns}), n=256, k=8192)
    layout = layout_of(task)
    assert (layout.chunk_vectors, layout.lanes) == (16, lanes)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_codes_of_a_tile_lie_together(lanes: int) -> None:
    """Words of a row's tiles, one after another: a part of the row reads those of its own tiles only."""
    layout = PackedLayout(vectors=512, residuals=1, code_bits=16, chunk_vectors=8, chunk_words=4, lanes=lanes)
    tile = lanes * 8
    codes = (np.arange(512, dtype=np.uint16) // tile).reshape(1, 1, 512)
    words = pack_codes(codes, layout).reshape(512 // tile, -1)
    for number, part in enumerate(words):
        assert set(part & 0xFFFF) | set(part >> 16) == {number}
    assert segment_lanes(replace(layout, lanes=32), tile) == lanes


def test_the_decision_says_how_many_chunks_a_segment_has() -> None:
    task = problem("gptvq-2", n=256, k=4096)
    (decision,) = plan_layout(task, Plan(task.kernel, task.level)).decisions
    assert decision.name == "packed_layout"
    assert "segments of 4 chunks" in decision.reason
    assert decision.inputs["vectors"] == 1024


@pytest.mark.parametrize(
    ("algorithm", "k", "lanes", "reason"),
    [
        ("aqlm-2x8", 4096, 32, "one for each lane of a warp"),
        ("gptvq-2", 4096, 4, "of which a column tile is a whole number"),
        (kmeans(scope={"rows": 256, "cols": 2048}), 4096, 32, "of which a column tile is a whole number"),
        (kmeans(scope={"rows": 256, "cols": 100}), 4000, 32, "a whole number of no smaller ones"),
    ],
)
def test_the_decision_says_what_segments_are_for(algorithm: Any, k: int, lanes: int, reason: str) -> None:
    task = problem(algorithm, n=256, k=k)
    plan = plan_layout(task, Plan(task.kernel, "gc"))
    assert plan.layout is not None
    assert plan.layout.lanes == lanes
    assert f"segments of {lanes} chunks" in plan.decisions[-1].reason
    assert plan.decisions[-1].reason.endswith(reason)
