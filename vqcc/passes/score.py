"""Score tables: the passes of kernels that look products up and decode nothing (docs/decisions/008-score-tables.md).

Instead of layout, exchange, split and placement of kernels that decode. Hotness, tile, bounds and launch are the same
passes for all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.code_layouts import RotatedLayout
from vqcc.plan import Decision, Exchange
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["plan_look_ups", "plan_rotated_layout", "rotated_layout"]


def plan_rotated_layout(problem: Problem, plan: Plan) -> Plan:
    """Rotated codes: every lane of a warp looks another table up."""
    algorithm = problem.algorithm
    rows, columns = problem.op.weight_shape
    vectors = columns // algorithm.vector_size
    layout = rotated_layout(vectors, algorithm.residuals, algorithm.code_bits)
    moved = 32 * math.prod(layout.code_shape(rows))
    needed = rows * vectors * algorithm.residuals * algorithm.code_bits
    return plan.decide(
        Decision(
            "packed_layout",
            f"rotated: {counted(layout.panels, 'panel')} of {layout.panel_codes} codes of a row, rows in groups of "
            f"{layout.GROUP_ROWS}",
            f"stage after stage, each padded to whole sets of {layout.set_codes} vectors; in place s of row r stands "
            f"code s ^ (r % {layout.set_codes})",
            {"vectors": vectors, "padded_vectors": layout.padded_vectors, "residuals": algorithm.residuals},
            f"the 32 lanes of a warp look {layout.set_codes} different tables up at every step, so "
            f"{'no two' if layout.set_codes == layout.GROUP_ROWS else 'no more than two'} meet in a bank; "
            f"{moved / needed - 1:.1%} padding",
        ),
        layout=layout,
    )


def rotated_layout(vectors: int, residuals: int, code_bits: int) -> RotatedLayout:
    """The rotated layout of rows of `vectors` vectors, for codes of a width that there are score tables for."""
    unit = RotatedLayout.SET_CODES[code_bits]
    padded = -(-vectors // unit) * unit
    panels = -(-padded * residuals // RotatedLayout.PANEL_CODES[code_bits])
    return RotatedLayout(vectors, residuals, code_bits, padded, panels)


def plan_look_ups(problem: Problem, plan: Plan) -> Plan:
    """Add looked-up products: there is nothing to exchange."""
    algorithm = problem.algorithm
    rows = problem.op.input_rows(problem.variant)
    return plan.decide(
        Decision(
            "dataflow",
            "score",
            "T[entry] = <entry, x of one vector>, made once for all rows of a block; a code adds one number for each "
            "row of inputs",
            {"vector_size": algorithm.vector_size, "entries": algorithm.table_entries, "input_rows": rows},
            f"a look-up reads {counted(rows, 'number')} instead of {algorithm.vector_size}, and multiplies nothing",
        ),
        exchange=Exchange("score"),
    )
