"""Fragments: codes packed in the order in which tensor cores take what they stand for.

See docs/decisions/009-fragments.md.

Instead of layout, exchange, split and placement of kernels that decode: the layout leaves nothing to exchange, since a
sum along k may run in any order. Hotness, tile, bounds and launch are the same passes for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vqcc.code_layouts import FragmentLayout
from vqcc.plan import Decision, Exchange
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.levels import Dataflow
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = [
    "LANE_COLUMNS",
    "MAX_STEP_WORDS",
    "fragment_layout",
    "layout_of",
    "plan_dense",
    "plan_fragment_layout",
    "plan_fragments",
    "plan_warpgroups",
]

#: Columns of a lane that a multiply takes, where the weights are the operand of sixteen rows; half as many else.
LANE_COLUMNS = 8
#: Columns that a lane has next to each other at least: pairs of them are the elements of an operand.
SPAN_COLUMNS = 4
#: The most columns and words of a lane in one step: its codes are on their way in registers.
MAX_STEP_COLUMNS, MAX_STEP_WORDS = 64, 4
#: Dataflows for which steps of codes and stages of x must be whole numbers of one another.
HALVING: frozenset[Dataflow] = frozenset({"warpgroup", "dense"})


def fragment_layout(
    algorithm: Algorithm, shape: tuple[int, int], *, halving: bool = False
) -> FragmentLayout | None:
    """The layout for weights [n, k] in which a step wastes the fewest bits, the shortest on a tie.

    With `halving` a step's columns are a power of two, so that steps and stages of x are whole numbers of one another.
    None where no step of whole words ends with the column tiles.
    """
    size, (_, columns) = algorithm.vector_size, shape
    _, tile_columns = algorithm.scope.tile(*shape)
    tiled = tile_columns < columns
    span = tile_columns if tiled else max(size, SPAN_COLUMNS)
    if span % SPAN_COLUMNS or span % size:
        return None
    steps = [
        FragmentLayout(
            columns // size, algorithm.residuals, algorithm.code_bits, vectors, words, span // size
        )
        for vectors in range(1, MAX_STEP_COLUMNS // size + 1)
        if vectors * size % LANE_COLUMNS == 0
        and (not tiled or span % (vectors * size) == 0)
        and not (halving and vectors * size & (vectors * size - 1))
        if (words := -(-vectors * algorithm.residuals * algorithm.code_bits // 32)) <= MAX_STEP_WORDS
    ]
    return min(
        steps, key=lambda layout: (layout.step_words / layout.step_vectors, layout.step_words), default=None
    )


def layout_of(problem: Problem) -> FragmentLayout | None:
    """The layout of a problem's weight: one for all of its op's dataflows, whichever a kernel has; None: there is none.

    So kernels of a library may have different ones, on different GPUs too.
    """
    halving = not HALVING.isdisjoint(problem.op.dataflow_rows)
    return fragment_layout(problem.algorithm, problem.op.weight_shape, halving=halving)


def plan_fragment_layout(problem: Problem, plan: Plan) -> Plan:
    """Lay codes out by lanes of a warp and steps along k."""
    algorithm = problem.algorithm
    rows, _ = problem.op.weight_shape
    layout = layout_of(problem)
    assert layout is not None, "vqcc.passes.dataflow has refused what has none"
    steps, blocks, words = layout.code_shape(rows)
    needed = rows * layout.vectors * algorithm.residuals * algorithm.code_bits
    spans = (
        "a lane's vectors are those of a column tile of its own"
        if algorithm.scope.tile(*problem.op.weight_shape)[1] < problem.op.weight_shape[1]
        else "the lanes of a quad take vectors in turn"
    )
    return plan.decide(
        Decision(
            "packed_layout",
            f"fragment: {counted(layout.step_vectors, 'vector')} of a lane in {counted(layout.step_words, 'word')}, "
            f"{counted(steps, 'step')} along k, rows in blocks of {layout.BLOCK_ROWS}",
            "the step of whole words that wastes the fewest bits, then the shortest",
            {
                "vectors": layout.vectors,
                "span_vectors": layout.span_vectors,
                "residuals": algorithm.residuals,
            },
            f"each load of a warp takes 512 neighbouring bytes; {spans}; "
            f"{steps * blocks * words * 32 / needed - 1:.1%} padding",
        ),
        layout=layout,
    )


def plan_fragments(problem: Problem, plan: Plan) -> Plan:
    """Decode straight into operands: x is read in the order that the codes have."""
    return _plan_dataflow(
        problem,
        plan,
        "fragment",
        "lane 4 g + t decodes row g of eight, at the columns that its registers of the operand stand for",
        "nothing is exchanged and every row of x shares one decoding",
    )


def plan_warpgroups(problem: Problem, plan: Plan) -> Plan:
    """Decode straight into a warpgroup's operand A: x is stored in the order that the codes have."""
    return _plan_dataflow(
        problem,
        plan,
        "warpgroup",
        "lane 4 g + t decodes rows g, g + 8, g + 16 and g + 24 of a warp's, at the k of operand A's registers",
        "nothing is exchanged: a sum over k runs in the order of decoding, in which x is stored",
    )


def plan_dense(problem: Problem, plan: Plan) -> Plan:
    """Decode to memory, in the order in which tensor cores take weights from shared memory."""
    return _plan_dataflow(
        problem,
        plan,
        "dense",
        "lane 4 g + t decodes rows g, g + 8, g + 16 and g + 24 of 32, and writes them where stages have them",
        "each weight is decoded once, whatever the rows of x, and read from L2 from then on",
    )


def _plan_dataflow(
    problem: Problem,
    plan: Plan,
    dataflow: Literal["fragment", "warpgroup", "dense"],
    formula: str,
    reason: str,
) -> Plan:
    """Note what lanes decode, and why; the dataflow's engine has its name."""
    algorithm = problem.algorithm
    inputs = {"vector_size": algorithm.vector_size, "entries": algorithm.table_entries}
    return plan.decide(Decision("dataflow", dataflow, formula, inputs, reason), exchange=Exchange(dataflow))
