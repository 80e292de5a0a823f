"""Cycles of gemv over codes in the order of fragments, counted from the kernel's loops.

Counts are a block's for one visit. How long an instruction, a byte or a wait takes is the machine's; what follows from
the kernel's own code was fitted to measured kernels of an H200 (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.ops.linear.tile import TILE_ROWS

if TYPE_CHECKING:
    from vqcc.code_layouts import FragmentLayout
    from vqcc.ops.base import TimedMachine, Workload

__all__ = ["CONFLICTS", "FEW_ROWS", "Counts", "VisitShape", "count_phases"]

WAVEFRONT_BYTES, WARP_SIZE = 128, 32
#: Entries that a byte tells apart: longer tables have no copies.
BYTE_ENTRIES = 256
#: Rows of x up to which the weights are operand A (device/gemv/fragments.cuh), and columns of a lane that a multiply
#: takes, with few rows of x and with many.
FEW_ROWS, FEW_COLUMNS, MANY_COLUMNS = 4, 8, 4
#: Until the first visit is under way, between visits, and at the end where parts are added up.
START_CYCLES, VISIT_CYCLES, END_CYCLES = 2054, 2558, 2818
#: How long a resource's busy time is felt, relative to itself: they overlap in part, and none is ever always busy. What
#: is never the bottleneck is felt little.
WEIGHTS = {
    "shared": 0.917,
    "issue": 1.754,
    "integer": 0.138,
    "tensor": 0.933,
    "dram": 0.784,
    "latency": 1.085,
}
#: Busy times are summed in this power; few warps overlap less: one alone takes 1 + LONE_WARPS times as long.
POWER, LONE_WARPS = 3, 0.7
#: Cycles that a warp takes to store or add sums of parts, 16 bytes a thread: few warps add them up slowly.
PART_CYCLES = 131
#: Instructions of a look-up beside what makes an entry of it: its address, itself, a share of loop and loads.
LOOKUP_INSTRUCTIONS, LOOKUP_INTEGERS = 1.1, 1.2
#: How often a plain read from the second-level cache x and books take that a block needs before its first visit; and
#: cycles for each wavefront of sums that warps along a row leave each other where their rows end.
STAGING_READS, ALONG_CYCLES = 1.91, 3.7
#: Instructions for a piece of x or of a book that a warp brings.
STAGING_INSTRUCTIONS = 6
#: Wavefronts of a look-up in a long table without copies, relative to one without conflicts.
CONFLICTS = 2.6


@dataclass(frozen=True)
class VisitShape:
    """What is free about a visit: `rows` of W by `steps`, for `batch` rows of x of which `input_rows` are kept.

    Warps have `row_blocks` blocks of rows each; `along` of them take a row's steps in turn, and load codes `ahead`
    steps at a time. Entries have `copies`.
    """

    rows: int
    steps: int
    row_blocks: int
    along: int
    ahead: int
    input_rows: int
    copies: int
    batch: int


@dataclass(frozen=True)
class Counts:
    """What a block does in one visit: wavefronts of shared memory, warp instructions, integer ones, multiplies.

    `code_bytes` come from DRAM, for which each of the `warps` waits `waits` times. `staged_bytes` of x and books must
    be there before. `part_bytes` are the sums of a set of rows, `along_bytes` what warps that share them have of it.
    """

    wavefronts: float
    instructions: float
    integers: float
    multiplies: float
    code_bytes: float
    staged_bytes: float
    part_bytes: float
    along_bytes: float
    warps: int
    waits: float

    @classmethod
    def of_visit(cls, work: Workload, layout: FragmentLayout, shape: VisitShape) -> Counts:
        """Count a visit of the work."""
        rows, steps, input_rows, copies = shape.rows, shape.steps, shape.input_rows, shape.copies
        few = input_rows <= FEW_ROWS
        columns = steps * layout.step_vectors * work.vector_size  # of a lane
        groups = rows / layout.GROUP_ROWS
        codes = groups * steps * layout.step_vectors * work.stages
        lookups = codes * (2 if work.entry_operations else 1)  # computed entries look constants up too
        entry_wavefronts = 4 * work.entry_words * WARP_SIZE / WAVEFRONT_BYTES
        if copies == 1 and work.table_entries > BYTE_ENTRIES:
            entry_wavefronts *= CONFLICTS
        fragment_columns = FEW_COLUMNS if few else MANY_COLUMNS
        tiles = max(1, input_rows // TILE_ROWS)
        multiplies = groups * columns / fragment_columns * work.stages * tiles
        fragments = rows / (layout.BLOCK_ROWS * shape.row_blocks) * columns / fragment_columns
        loaded = groups / 4 * steps * layout.step_words  # of codes, by warps
        pieces = columns * layout.QUAD / 2 * input_rows / WARP_SIZE  # of x
        books = 0.0
        if work.column_tiles > 1:
            books = work.tables * work.table_entries * work.entry_words * 4 * layout.QUAD / WAVEFRONT_BYTES
        fragment_wavefronts = 4 * tiles if not few else max(1, input_rows // 2)
        return cls(
            wavefronts=lookups * entry_wavefronts
            + fragments * fragment_wavefronts
            + 4 * loaded
            + (1 if few else 2) * pieces
            + books * (2 + copies),
            instructions=lookups * LOOKUP_INSTRUCTIONS
            + codes * work.entry_operations
            + multiplies
            + 1.5 * tiles * fragments
            + 4 * loaded
            + STAGING_INSTRUCTIONS * (pieces + books * (1 + copies / 2)),
            integers=lookups * LOOKUP_INTEGERS
            + codes * work.entry_operations / 2
            + 2 * (pieces + books * copies / 2),
            multiplies=multiplies,
            code_bytes=512.0 * loaded,
            staged_bytes=2.0 * columns * layout.QUAD * input_rows
            + 4.0
            * work.tables
            * work.table_entries
            * work.entry_words
            * (layout.QUAD if work.column_tiles > 1 else 1),
            part_bytes=4.0 * rows * shape.batch,
            along_bytes=4.0 * rows * shape.batch * (shape.along if shape.along > 1 else 0),
            warps=rows // (layout.BLOCK_ROWS * shape.row_blocks) * shape.along,
            waits=steps / shape.along / shape.ahead,
        )


def count_phases(
    counts: Counts, machine: TimedMachine, *, blocks: int, visits: int, parts: int, ends: int
) -> dict[str, float]:
    """Cycles of a launch: its start, `visits` visits of the block that has most, the sum of up to `parts` parts.

    That block comes to the end of its rows `ends` times.
    """
    busy = {
        "shared": counts.wavefronts,
        "issue": counts.instructions / machine.sub_partitions,
        "integer": counts.integers * machine.integer_cycles / machine.sub_partitions,
        "tensor": counts.multiplies * machine.multiply_cycles / machine.sub_partitions,
        "dram": blocks * counts.code_bytes / machine.dram_bytes_per_cycle,
        "latency": counts.waits * machine.dram_latency_cycles,  # a warp asks for `ahead` steps at a time
    }
    visit = sum((WEIGHTS[name] * cycles) ** POWER for name, cycles in busy.items()) ** (1 / POWER)
    visit *= 1 + LONE_WARPS / counts.warps
    start = START_CYCLES + STAGING_READS * counts.staged_bytes / machine.l2_bytes_per_cycle
    end = ends * ALONG_CYCLES * counts.along_bytes / WAVEFRONT_BYTES
    if parts > 1:
        pieces = counts.part_bytes / (16 * WARP_SIZE * counts.warps)  # of a thread
        end += END_CYCLES + (1 + parts) * pieces * PART_CYCLES
    return {"start": start, "visits": visits * (visit + VISIT_CYCLES), "end": end}
