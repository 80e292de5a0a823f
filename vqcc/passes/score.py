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
    layout = rotated_layout(vectors, algorithm.residuals)
    moved = 4 * math.prod(layout.code_shape(rows))
    needed = rows * vectors * algorithm.residuals
    return plan.decide(
        Decision(
            "packed_layout",
            f"rotated: {counted(layout.panels, 'panel')} of {layout.PANEL_CODES} codes of a row, rows in groups of "
            f"{layout.GROUP_ROWS}",
            "stage after stage, each padded to whole sets of 32 vectors; in place s of row r stands code s ^ (r % 32)",
            {"vectors": vectors, "padded_vectors": layout.padded_vectors, "residuals": algorithm.residuals},
            f"the 32 lanes of a warp look 32 different tables up at every step, so no two meet in a bank; "
            f"{moved / needed - 1:.1%} padding",
        ),
        layout=layout,
    )


def rotated_layout(vectors: int, residuals: int) -> RotatedLayout:
    """The rotated layout of rows of `vectors` vectors."""
    unit = RotatedLayout.GROUP_ROWS
    padded = -(-vectors // unit) * unit
    return RotatedLayout(vectors, residuals, padded, -(-padded * residuals // RotatedLayout.PANEL_CODES))


def plan_look_ups(problem: Problem, plan: Plan) -> Plan:
    """Add looked-up products: there is nothing to exchange."""
    vector_size = problem.algorithm.vector_size
    return plan.decide(
        Decision(
            "dataflow",
            "score",
            "T[entry] = <entry, x of one vector>, made once for all rows of a block; a code adds one number",
            {"vector_size": vector_size, "entries": problem.algorithm.table_entries},
            f"a look-up reads one number instead of {vector_size}, and multiplies nothing",
        ),
        exchange=Exchange("score"),
    )
