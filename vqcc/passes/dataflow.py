"""Dataflow: what becomes of a code, and whether a problem can have it.

The paper decodes. Past it, the products of a table's entries with a vector of inputs may be tabulated once per block,
after which a code adds one number: shared-memory traffic falls by the vector size, and the multiplications go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    algorithm, op = problem.algorithm, problem.op
    rows = op.input_rows(problem.variant)
    if rows > op.scored_rows:
        yield f"a score serves at most {op.scored_rows} rows of inputs, not {rows}"
    if algorithm.code_bits != SCORED_CODE_BITS:
        yield f"codes of {algorithm.code_bits} bits are no single byte of an address"
    if algorithm.vector_size not in SCORED_VECTORS:
        yield f"vectors of {algorithm.vector_size} do not fill registers of a fragment"
    if algorithm.scope.books(*op.weight_shape) != 1:
        yield "every tile of codebooks would need tables of its own"
    if algorithm.scales.kind == "group":
        yield "scores of columns with different scales are added up"
    if not algorithm.exact_in(problem.variant.dtype):
        yield f"entries are not exact in {problem.variant.dtype}, in which they are multiplied"
