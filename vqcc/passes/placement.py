"""Placement: which codebook entries live where (VQ-LLM, Sec. V-B).

Entries [0, n_registers) are in registers, [n_registers, n_shared) in shared memory, the rest in global
memory. Level gc caches none, level sc caches all of the books that a block works on (Table IV).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.plan import Decision, Placement

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["plan_placement"]


def plan_placement(problem: Problem, plan: Plan) -> Plan:
    """Place every entry where the level says. Raises VQ0403 if a block's shared memory cannot hold one book."""
    algorithm = problem.algorithm
    _, column_tiles = algorithm.scope.grid(*problem.op.weight_shape)
    if plan.level == "gc":
        return plan.decide(
            Decision(
                "n_shared",
                0,
                "level gc: no entry is cached",
                {"entries": algorithm.entries},
                "the baseline of Table IV: look-ups go to global memory through the first-level cache",
                "Table IV",
            ),
            placement=Placement(0, 0, column_tiles, algorithm.table_bytes),
        )
    limit = problem.gpu.shared_bytes_per_block.integer
    fitting = limit // algorithm.table_bytes
    if fitting == 0:
        raise VqccError(_does_not_fit(problem, limit))
    resident = min(fitting, column_tiles)
    return plan.decide(
        Decision(
            "n_shared",
            algorithm.table_entries,
            "level sc: every entry of the books in use is cached",
            {"table_bytes": algorithm.table_bytes, "shared_bytes_per_block": limit},
            f"{resident} of {column_tiles} books along a row are resident at a time, "
            f"{resident * algorithm.table_bytes} bytes",
            "Table IV",
        ),
        placement=Placement(0, algorithm.table_entries, resident, algorithm.table_bytes),
    )


def _does_not_fit(problem: Problem, limit: int) -> Diagnostic:
    algorithm, gpu = problem.algorithm, problem.gpu
    return Diagnostic(
        "VQ0403",
        f"level sc cannot hold a codebook of {algorithm.label} in shared memory on {gpu.name}: "
        f"it takes {algorithm.table_bytes} bytes, a block has at most {limit}",
        help=f"use level: gc, a GPU with at least {algorithm.table_bytes} bytes of shared memory per block, "
        "or an algorithm with fewer entries, fewer stages or int8 codebooks",
    )
