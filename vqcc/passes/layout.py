"""Layout: how packed codes lie in memory.

Kernels that decode have one layout, whatever the variant, level and GPU: it depends on the algorithm's code widths, the
length of a row and its column tiles only. Each of the other dataflows has a layout of its own, and a library
has one of them all. A lane reads one chunk at a time; the search looks for chunks that waste no bits and
are read by 16-byte loads (design: one packed layout per library and GPU).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.code_layouts import PackedLayout
from vqcc.plan import Decision
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["choose_layout", "plan_layout", "segment_lanes"]

MAX_CODES = 128  # of a chunk: the codes of 16 bytes at one bit each
MAX_WORDS = 16  # of a chunk: they stay in registers
#: Chunks of a segment to choose from: whole quads, since four lanes share a row of a tensor-core fragment.
LANES = (32, 16, 8, 4)
#: Cost of a row's bytes by the widest load that divides a chunk, in words: narrow loads cost issue slots.
LOAD_PENALTY = {4: 1.00, 2: 1.03, 1: 1.12}
#: Cost of a lane that has no chunk in a step, relative to one that has: it waits, but moves no bytes.
IDLE_LANE = 0.25


def plan_layout(problem: Problem, plan: Plan) -> Plan:
    """Choose how the codes of `problem`'s weight lie in chunks."""
    algorithm = problem.algorithm
    rows, columns = problem.op.weight_shape
    vectors = columns // algorithm.vector_size
    layout = choose_layout(vectors, algorithm.residuals, algorithm.code_bits)
    tile_vectors = algorithm.scope.tile(rows, columns)[1] // algorithm.vector_size
    layout = replace(layout, lanes=segment_lanes(layout, tile_vectors))
    row_bits = vectors * algorithm.residuals * algorithm.code_bits
    return plan.decide(
        Decision(
            "packed_layout",
            f"{counted(layout.chunk_vectors, 'vector')} in {counted(layout.chunk_words, 'word')}, "
            f"{counted(layout.row_words, 'word')} a row",
            "min over chunks of row_words * load_penalty * (1 + 0.25 * idle_lanes / busy_lanes)",
            {"vectors": vectors, "residuals": algorithm.residuals, "code_bits": algorithm.code_bits},
            f"{layout.row_words * 32 / row_bits - 1:.1%} padding over {row_bits} bits of codes; "
            f"{_why_lanes(layout, tile_vectors)}",
        ),
        layout=layout,
    )


def choose_layout(vectors: int, residuals: int, code_bits: int) -> PackedLayout:
    """The layout of rows of `vectors` vectors with the smallest cost; the shorter chunk on a tie."""
    candidates = []
    for chunk_vectors in range(1, MAX_CODES // residuals + 1):
        words = -(-chunk_vectors * residuals * code_bits // 32)
        if words > MAX_WORDS:
            break
        candidates.append(PackedLayout(vectors, residuals, code_bits, chunk_vectors, words))
    return min(candidates, key=_cost)


def segment_lanes(layout: PackedLayout, tile_vectors: int) -> int:
    """Chunks of a segment: a warp's 32, or fewer where that makes a column tile a whole number of segments.

    Work that is split along column tiles (Sec. VI-A) then reads the codes of its own tiles only.
    """
    if tile_vectors >= layout.vectors:
        return layout.lanes
    fitting = (lanes for lanes in LANES if tile_vectors % (lanes * layout.chunk_vectors) == 0)
    return next(fitting, layout.lanes)


def _why_lanes(layout: PackedLayout, tile_vectors: int) -> str:
    """What decided how many chunks a segment has."""
    segments = f"segments of {layout.lanes} chunks"
    if tile_vectors >= layout.vectors:
        return f"{segments}, one for each lane of a warp"
    if tile_vectors % layout.segment_vectors == 0:
        return f"{segments}, of which a column tile is a whole number"
    return f"{segments}, since a column tile is a whole number of no smaller ones"


def _cost(layout: PackedLayout) -> tuple[float, int]:
    load_words = next(words for words in (4, 2, 1) if layout.chunk_words % words == 0)
    slots = layout.segments * layout.segment_vectors
    idle = IDLE_LANE * (slots / layout.vectors - 1)
    return (layout.row_words * LOAD_PENALTY[load_words] * (1 + idle), layout.chunk_vectors)
