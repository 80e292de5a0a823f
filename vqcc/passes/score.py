"""Score tables: the passes of kernels that look products up and decode nothing (docs/decisions/008-score-tables.md).

Instead of layout, exchange, split, placement and cost of kernels that decode. Hotness, tile, bounds and launch are the
same passes for both.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import machine_of
from vqcc.plan import Decision, Exchange, RotatedLayout
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["place_nothing", "plan_look_ups", "plan_rotated_layout", "plan_score_cost", "rotated_layout"]

#: From one launch to the next, and the clock that kernels run at relative to the boost clock.
LAUNCH_SECONDS, CLOCK_UNDER_LOAD = 1e-6, 0.89
#: The GPU's numbers that times are made from.
RATES = ("sm_count", "boost_hertz", "dram_bytes_per_second")


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


def place_nothing(problem: Problem, plan: Plan) -> Plan:
    """Hold no entries: tables of products are all that shared memory has."""
    return replace(plan, placement=certain_placement(problem, plan))


def plan_score_cost(problem: Problem, plan: Plan) -> Plan:
    """Note the predicted time: the op counts the cycles of a block's phases, which follow one another."""
    assert plan.tile is not None
    cycles = problem.op.scored_cycles(plan.tile, machine_of(problem.gpu))
    hertz = float(problem.gpu.boost_hertz.value) * CLOCK_UNDER_LOAD
    seconds = LAUNCH_SECONDS + sum(cycles.values()) / hertz
    return plan.decide(
        Decision(
            "predicted_us",
            round(1e6 * seconds, 2),
            "launch + start + rounds + end, from their cycles at the clock under load",
            {
                "launch_us": 1e6 * LAUNCH_SECONDS,
                **{f"{name}_us": round(1e6 * value / hertz, 2) for name, value in cycles.items()},
                "boost_hertz": problem.gpu.boost_hertz.value,
                "clock_under_load": CLOCK_UNDER_LOAD,
            },
            f"bound by {max(cycles, key=lambda name: cycles[name])}",
            facts=RATES,
        ),
        predicted_us=round(1e6 * seconds, 2),
    )
