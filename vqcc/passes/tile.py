"""Tile: what a warp and a block of the op's kernel work on.

The op proposes tiles, the most promising first, from numbers of the work and of the machine; `attempt` counts those
whose compiled kernel needed a stack frame or spilled registers, and were therefore dropped.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from itertools import islice
from typing import TYPE_CHECKING

from vqcc.code_layouts import PackedLayout
from vqcc.gpus.model import RANGES
from vqcc.ops.base import Machine, TimedMachine, Workload
from vqcc.passes.placement import part_tiles
from vqcc.picks import tile_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.gpus.model import Gpu
    from vqcc.picks import TileIdentity
    from vqcc.plan import Placement, Plan
    from vqcc.problem import Problem

__all__ = ["LIMITS", "RATES", "limits_of", "machine_of", "plan_tile", "plan_tiles", "workload_of"]

#: The GPU's numbers that bound a tile, and those by which tiles of dataflows past the paper's are chosen.
LIMITS = tuple(field.name for field in fields(Machine))
RATES = (
    "dram_bytes_per_second",
    "sustained_hertz",
    *(field.name for field in fields(TimedMachine) if field.name in RANGES and field.name not in LIMITS),
)


def plan_tile(
    problem: Problem,
    plan: Plan,
    certain: Placement,
    attempt: int = 0,
    pinned: TileIdentity | None = None,
) -> Plan | None:
    """Take the op's proposal number `attempt` of those of `plan_tiles`. None when there are no more."""
    return next(islice(plan_tiles(problem, plan, certain, pinned), attempt, None), None)


def plan_tiles(
    problem: Problem,
    plan: Plan,
    certain: Placement,
    pinned: TileIdentity | None = None,
    *,
    every: bool = False,
) -> Iterator[Plan]:
    """The plan with each of the op's proposals that fits beside the books that are `certain` to be cached.

    With `pinned`, those that are that tile; with `every`, all that are worth timing.
    """
    timed = not isinstance(plan.layout, PackedLayout)
    machine = machine_of(problem.gpu) if timed else limits_of(problem.gpu)
    work = workload_of(problem, plan, certain)
    limit = machine.shared_bytes_per_block - work.book_bytes
    tiles = problem.op.every_tile if every or pinned is not None else problem.op.tiles
    facts = (*LIMITS, *RATES) if timed else LIMITS
    for tile, decisions in tiles(problem.variant, work, machine):
        if tile.shared_bytes <= limit and (pinned is None or tile_identity(tile) == pinned):
            yield plan.decide(*(replace(decision, facts=facts) for decision in decisions), tile=tile)


def workload_of(problem: Problem, plan: Plan, certain: Placement) -> Workload:
    """What the op may know of the algorithm and of earlier decisions."""
    assert plan.layout is not None
    algorithm = problem.algorithm
    n, k = problem.op.weight_shape
    stages = algorithm.residuals // plan.split.stages
    return Workload(
        layout=plan.layout,
        vector_size=algorithm.vector_size,
        stages=stages,
        stage_sums=min(stages, algorithm.stage_sums),
        entry_words=algorithm.entry_words,
        entry_operations=algorithm.decode_operations,
        tables=algorithm.table_count + (algorithm.constant_entries > 0),
        table_entries=algorithm.table_entries,
        code_bits=algorithm.code_bits,
        band_rows=min(algorithm.scope.tile(n, k)[0], n),
        column_tiles=part_tiles(problem, plan),
        resident_tiles=certain.resident_tiles,
        book_bytes=certain.shared_bytes,
        split=plan.split,
        exchange=plan.exchange,
        rounded=stages > 1
        or algorithm.scales.group is not None
        or not algorithm.exact_in(problem.variant.dtype),
    )


def limits_of(gpu: Gpu) -> Machine:
    """A GPU's limits as plain numbers."""
    return Machine(
        sm_count=gpu.sm_count.integer,
        threads_per_block=gpu.threads_per_block.integer,
        registers_per_thread=gpu.registers_per_thread.integer,
        registers_per_block=gpu.registers_per_block.integer,
        shared_bytes_per_block=gpu.shared_bytes_per_block.integer,
        shared_bytes_per_sm=gpu.shared_bytes_per_sm.integer,
        shared_bytes_reserved=gpu.shared_bytes_reserved.integer,
    )


def machine_of(gpu: Gpu) -> TimedMachine:
    """A GPU's limits as plain numbers, and its rates in cycles of the clock under load."""
    return TimedMachine(
        **asdict(limits_of(gpu)),
        sub_partitions=gpu.sub_partitions.integer,
        l2_bytes=gpu.l2_bytes.integer,
        dram_bytes_per_cycle=float(gpu.dram_bytes_per_second.value) / float(gpu.sustained_hertz.value),
        l2_bytes_per_cycle=float(gpu.l2_bytes_per_cycle.value),
        dram_latency_cycles=float(gpu.dram_latency_cycles.value),
        multiply_cycles=float(gpu.multiply_cycles.value),
        integer_cycles=float(gpu.integer_cycles.value),
    )
