"""Placement: which codebook entries live where (VQ-LLM, Sec. V-B).

Entries [0, n_registers) are in registers, [n_registers, n_shared) in shared memory, the rest in global
memory. Level gc caches none, level sc caches all of the books that a block works on (Table IV).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import Finding, raise_findings
from vqcc.plan import Decision, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.algorithms.base import Algorithm
    from vqcc.gpus.model import Gpu
    from vqcc.plan import Level, Plan
    from vqcc.problem import Problem

__all__ = ["check_placement", "plan_placement"]


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
    raise_findings(check_placement(algorithm, problem.gpu, plan.level))
    limit = problem.gpu.shared_bytes_per_block.integer
    resident = min(limit // algorithm.table_bytes, column_tiles)
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


def check_placement(
    algorithm: Algorithm, gpu: Gpu, level: Level, path: tuple[str | int, ...] = ("level",)
) -> Iterator[Finding]:
    """Report what a level cannot have on a GPU: VQ0403, at `path` of the spec."""
    limit = gpu.shared_bytes_per_block.integer
    if level == "sc" and algorithm.table_bytes > limit:
        yield Finding(
            path,
            "VQ0403",
            f"level sc cannot hold a codebook of {algorithm.label} in shared memory on {gpu.name}: "
            f"it takes {algorithm.table_bytes} bytes, a block has at most {limit}",
            f"use level: gc, a GPU with at least {algorithm.table_bytes} bytes of shared memory per block, "
            "or an algorithm with a smaller codebook",
        )
