"""Dataflow: what becomes of a code, and whether a problem can have it.

The paper decodes. Past it, the products of a table's entries with a vector of inputs may be tabulated once per block,
after which a code adds one number: shared-memory traffic falls by the vector size, and the multiplications go. Or codes
are packed in the order in which tensor cores take what they stand for, and every row of inputs shares one decoding. Or
they are packed by the part of a large book that has their entry, and a block keeps such a part in shared memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.algorithms.fields import MAX_INDEX
from vqcc.code_layouts import FragmentLayout
from vqcc.passes.bucket import BUCKET_VECTOR, bucket_layout
from vqcc.passes.fragment import LANE_COLUMNS, MAX_STEP_WORDS, layout_of
from vqcc.passes.score import rotated_layout
from vqcc.problem import Boundaries
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vqcc.levels import Dataflow
    from vqcc.problem import Problem

__all__ = ["SCORED_ROWS", "refusals"]

#: Vectors that fill whole registers of an operand of m16n8k16.
FRAGMENT_VECTORS = (2, 4, 8, 16)
#: What multiplies of a warpgroup are of, and the columns that a lane has of two of them.
WARPGROUP_SM, WARPGROUP_VECTOR = 90, 8
#: Bits of codes that there are score tables for, and the rows of inputs that these serve at most: wider tables are
#: larger.
SCORED_ROWS: Mapping[int, int] = {8: 4, 12: 1}


def refusals(problem: Problem, dataflow: Dataflow) -> Iterator[str]:
    """Why `problem` cannot have `dataflow`; nothing if it can."""
    if dataflow == "decode":
        return
    op = problem.op
    rows, most = op.input_rows(problem.variant), op.rows_of(problem.variant, dataflow)
    if most == 0:
        yield f"{op.made_as(problem.variant)} has no such kernels"
    elif rows > most:
        yield f"it serves {counted(most, 'row')} of inputs, not {rows}"
    if problem.boundaries != Boundaries():
        yield "the spec's cache is of kernels that decode"
    yield from _refusals_of_algorithm(problem, rounds=dataflow == "dense")
    yield from {
        "score": _refusals_of_scores,
        "fragment": _refusals_of_fragments,
        "bucket": _refusals_of_buckets,
        "warpgroup": _refusals_of_warpgroups,
        "dense": _refusals_of_dense,
    }[dataflow](problem)


def _refusals_of_algorithm(problem: Problem, *, rounds: bool) -> Iterator[str]:
    """What all of them need: tensor cores multiply entries, and sums are of columns with one scale.

    A dataflow that `rounds` multiplies weights that it has made of entries, scales of groups included.
    """
    algorithm = problem.algorithm
    if algorithm.vector_size not in FRAGMENT_VECTORS:
        yield f"vectors of {algorithm.vector_size} do not fill registers of a fragment"
    if rounds:
        return
    if algorithm.scales.group is not None:
        yield "columns with different scales are added up"
    if not algorithm.exact_in(problem.variant.dtype):
        yield f"entries are not exact in {problem.variant.dtype}, in which they are multiplied"


def _refusals_of_scores(problem: Problem) -> Iterator[str]:
    algorithm, shape = problem.algorithm, problem.op.weight_shape
    rows = problem.op.input_rows(problem.variant)
    if algorithm.code_bits not in SCORED_ROWS:
        yield f"there are tables for codes of {' and '.join(map(str, SCORED_ROWS))} bits, not {algorithm.code_bits}"
        return
    if rows > SCORED_ROWS[algorithm.code_bits]:
        served = counted(SCORED_ROWS[algorithm.code_bits], "row")
        yield f"tables for codes of {algorithm.code_bits} bits serve {served} of inputs, not {rows}"
    if algorithm.scope.books(*shape) != 1:
        yield "every tile of codebooks would need tables of its own"
    layout = rotated_layout(shape[1] // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)
    if 4 * math.prod(layout.code_shape(shape[0])) > MAX_INDEX:
        yield "codes, padding included, pass the 2 GiB that 32-bit offsets reach"


def _refusals_of_fragments(problem: Problem) -> Iterator[str]:
    algorithm, shape = problem.algorithm, problem.op.weight_shape
    tile_rows, _ = algorithm.scope.tile(*shape)
    if tile_rows < shape[0] and tile_rows % FragmentLayout.BLOCK_ROWS:
        yield f"tiles of {tile_rows} rows are no whole blocks of {FragmentLayout.BLOCK_ROWS}"
    layout = layout_of(problem)
    if layout is None:
        tiled = algorithm.scope.tile(*shape)[1] < shape[1]
        yield (
            "no step of whole words ends with the column tiles"
            if tiled
            else f"codes of a lane's {LANE_COLUMNS} columns take more than {MAX_STEP_WORDS} words"
        )
    elif 4 * math.prod(layout.code_shape(shape[0])) > MAX_INDEX:
        yield "codes, padding included, pass the 2 GiB that 32-bit offsets reach"


def _refusals_of_warpgroups(problem: Problem) -> Iterator[str]:
    algorithm, gpu = problem.algorithm, problem.gpu
    if gpu.sm != WARPGROUP_SM:
        yield f"{gpu.name} has no multiplies of a warpgroup: compute capability 9.0 alone has"
    if algorithm.vector_size > WARPGROUP_VECTOR:
        yield f"vectors of {algorithm.vector_size} are longer than what a lane has of two multiplies"
    if algorithm.stage_sums > 1 and problem.variant.dtype != "float16":
        yield "stages with factors are added up in float16"
    yield from _refusals_of_fragments(problem)


def _refusals_of_dense(problem: Problem) -> Iterator[str]:
    if problem.gpu.sm != WARPGROUP_SM:
        yield f"{problem.gpu.name} has no multiplies of a warpgroup: compute capability 9.0 alone has"
    if problem.op.weight_shape[1] % WARPGROUP_VECTOR:
        yield "rows of x are no whole words of 16 bytes"
    yield from _refusals_of_fragments(problem)


def _refusals_of_buckets(problem: Problem) -> Iterator[str]:
    algorithm, shape = problem.algorithm, problem.op.weight_shape
    room = problem.gpu.shared_bytes_per_block.integer
    if algorithm.vector_size != BUCKET_VECTOR:
        yield f"vectors of {algorithm.vector_size} are no rows of the 8 x 8 matrices that are loaded together"
    if algorithm.scope.books(*shape) != 1:
        yield "every tile of codebooks would need buckets of its own"
    if algorithm.table_bytes <= room:
        yield f"its codebook of {algorithm.table_bytes} bytes fits shared memory: there are no parts to sort by"
        return
    least = bucket_layout(algorithm, shape).resident_bytes
    if least > room:
        yield f"a part of the codebook and x take {least} bytes of shared memory, {problem.gpu.name} has {room}"
