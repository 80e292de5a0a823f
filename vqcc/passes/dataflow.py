"""Dataflow: what becomes of a code, and whether a problem can have it.

The paper decodes. Past it, the products of a table's entries with a vector of inputs may be tabulated once per block,
after which a code adds one number: shared-memory traffic falls by the vector size, and the multiplications go.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.algorithms.fields import MAX_INDEX
from vqcc.passes.score import rotated_layout
from vqcc.problem import Boundaries
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.levels import Dataflow
    from vqcc.problem import Problem

__all__ = ["refusals"]

#: Vectors that fill whole registers of operand A of m16n8k16, by which scores are made.
SCORED_VECTORS = (2, 4, 8, 16)
#: Score tables have one byte of address for the entry.
SCORED_CODE_BITS = 8


def refusals(problem: Problem, dataflow: Dataflow) -> Iterator[str]:
    """Why `problem` cannot have `dataflow`; nothing if it can."""
    if dataflow == "decode":
        return
    op = problem.op
    rows = op.input_rows(problem.variant)
    if op.scored_rows == 0:
        yield f"{op.kind} has no kernels over them"
    elif rows > op.scored_rows:
        yield f"a score serves {counted(op.scored_rows, 'row')} of inputs, not {rows}"
    if problem.boundaries != Boundaries():
        yield "the spec's cache is of kernels that decode"
    yield from _refusals_of_algorithm(problem)


def _refusals_of_algorithm(problem: Problem) -> Iterator[str]:
    algorithm, shape = problem.algorithm, problem.op.weight_shape
    if algorithm.code_bits != SCORED_CODE_BITS:
        yield f"codes of {algorithm.code_bits} bits are no single byte of an address"
    if algorithm.vector_size not in SCORED_VECTORS:
        yield f"vectors of {algorithm.vector_size} do not fill registers of a fragment"
    if algorithm.scope.books(*shape) != 1:
        yield "every tile of codebooks would need tables of its own"
    if algorithm.scales.group is not None:
        yield "scores of columns with different scales are added up"
    if not algorithm.exact_in(problem.variant.dtype):
        yield f"entries are not exact in {problem.variant.dtype}, in which they are multiplied"
    codes = padded_codes(shape, algorithm.vector_size, algorithm.residuals)
    if codes > MAX_INDEX:
        yield f"{codes} codes, padding included, pass the 2 GiB that 32-bit offsets reach"


def padded_codes(shape: tuple[int, int], vector_size: int, residuals: int) -> int:
    """Codes that a weight of `shape` has in the rotated layout, a byte each."""
    layout = rotated_layout(shape[1] // vector_size, residuals)
    return 4 * math.prod(layout.code_shape(shape[0]))
