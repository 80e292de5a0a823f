"""Dataflow: what becomes of a code, and whether a problem can have it.

The paper decodes. Past it, the products of a table's entries with a vector of inputs may be tabulated once per block,
after which a code adds one number: shared-memory traffic falls by the vector size, and the multiplications go. Or codes
are packed in the order in which tensor cores take what they stand for, and every row of inputs shares one decoding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.algorithms.fields import MAX_INDEX
from vqcc.code_layouts import FragmentLayout
from vqcc.passes.fragment import fragment_layout
from vqcc.passes.score import rotated_layout
from vqcc.problem import Boundaries
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.levels import Dataflow
    from vqcc.problem import Problem

__all__ = ["refusals"]

#: Vectors that fill whole registers of an operand of m16n8k16.
FRAGMENT_VECTORS = (2, 4, 8, 16)
#: Score tables have one byte of address for the entry.
SCORED_CODE_BITS = 8


def refusals(problem: Problem, dataflow: Dataflow) -> Iterator[str]:
    """Why `problem` cannot have `dataflow`; nothing if it can."""
    if dataflow == "decode":
        return
    op = problem.op
    rows, most = op.input_rows(problem.variant), op.dataflow_rows.get(dataflow, 0)
    if most == 0:
        yield f"{op.kind} has no such kernels"
    elif rows > most:
        yield f"it serves {counted(most, 'row')} of inputs, not {rows}"
    if problem.boundaries != Boundaries():
        yield "the spec's cache is of kernels that decode"
    yield from _refusals_of_algorithm(problem)
    yield from (_refusals_of_scores if dataflow == "score" else _refusals_of_fragments)(problem)


def _refusals_of_algorithm(problem: Problem) -> Iterator[str]:
    """What either needs: tensor cores multiply entries, and sums are of columns with one scale."""
    algorithm = problem.algorithm
    if algorithm.vector_size not in FRAGMENT_VECTORS:
        yield f"vectors of {algorithm.vector_size} do not fill registers of a fragment"
    if algorithm.scales.group is not None:
        yield "columns with different scales are added up"
    if not algorithm.exact_in(problem.variant.dtype):
        yield f"entries are not exact in {problem.variant.dtype}, in which they are multiplied"


def _refusals_of_scores(problem: Problem) -> Iterator[str]:
    algorithm, shape = problem.algorithm, problem.op.weight_shape
    if algorithm.code_bits != SCORED_CODE_BITS:
        yield f"codes of {algorithm.code_bits} bits are no single byte of an address"
    if algorithm.scope.books(*shape) != 1:
        yield "every tile of codebooks would need tables of its own"
    codes = padded_codes(shape, algorithm.vector_size, algorithm.residuals)
    if codes > MAX_INDEX:
        yield f"{codes} codes, padding included, pass the 2 GiB that 32-bit offsets reach"


def _refusals_of_fragments(problem: Problem) -> Iterator[str]:
    algorithm, shape = problem.algorithm, problem.op.weight_shape
    tile_rows, _ = algorithm.scope.tile(*shape)
    if tile_rows < shape[0] and tile_rows % FragmentLayout.BLOCK_ROWS:
        yield f"tiles of {tile_rows} rows are no whole blocks of {FragmentLayout.BLOCK_ROWS}"
    layout = fragment_layout(algorithm, shape)
    if layout is None:
        yield "no step of whole words ends with the column tiles"
    elif 4 * math.prod(layout.code_shape(shape[0])) > MAX_INDEX:
        yield "codes, padding included, pass the 2 GiB that 32-bit offsets reach"


def padded_codes(shape: tuple[int, int], vector_size: int, residuals: int) -> int:
    """Codes that a weight of `shape` has in the rotated layout, a byte each."""
    layout = rotated_layout(shape[1] // vector_size, residuals)
    return 4 * math.prod(layout.code_shape(shape[0]))
