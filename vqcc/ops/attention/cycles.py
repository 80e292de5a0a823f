"""Cycles of attention on an SM, counted from the kernels' loops.

A block works through segments; each begins with its books and tables and ends with a merge, and has token blocks
between. Counts are a token block's and a segment's. What follows from the kernels' own code was fitted to measured
kernels of an H200 (docs/performance.md); how long a wavefront, a byte or an instruction takes is the machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.ops.attention.tile import AttentionTile
    from vqcc.ops.base import TimedMachine

__all__ = ["PARTS_CYCLES", "BlockCounts", "SegmentCounts", "block_cycles", "count_phases", "segment_cycles"]

#: Until the first segment is under way: lengths are read, shares dealt out.
START_CYCLES = 1500
#: What a segment takes beside books and tables: queries, a merge of warps; and a merge of blocks through memory, more
#: for each query row.
SEGMENT_CYCLES, PARTS_CYCLES, PARTS_ROW_CYCLES = 500, 2500, 500
#: Busy times of a token block are summed in this power.
POWER = 3
#: What of the rate at which an SM alone reads the second-level cache each has when all read.
CROWDED_L2 = 0.2


@dataclass(frozen=True)
class BlockCounts:
    """What a token block takes: wavefronts of shared memory, warp instructions, multiplies, bytes of codes.

    `overlap` says how long these are felt together, relative to their sum in the power POWER.
    """

    wavefronts: float
    instructions: float
    multiplies: float
    code_bytes: float
    overlap: float


@dataclass(frozen=True)
class SegmentCounts:
    """What a segment begins with: bytes of books that it reads, cycles of the tables that it makes.

    `head_bytes` of books are read only if the segment before was of another kv-head.
    """

    book_bytes: float
    table_cycles: float
    head_bytes: float = 0.0


def block_cycles(counts: BlockCounts, machine: TimedMachine) -> float:
    """Cycles of an SM for a token block, in the midst of others."""
    busy = (
        counts.wavefronts,
        counts.instructions / machine.sub_partitions,
        counts.multiplies * machine.multiply_cycles / machine.sub_partitions,
        counts.code_bytes * machine.sm_count / machine.dram_bytes_per_cycle,
    )
    return counts.overlap * float(sum(each**POWER for each in busy) ** (1 / POWER))


def segment_cycles(counts: SegmentCounts, machine: TimedMachine) -> float:
    """Cycles of a segment beside its token blocks."""
    books = _book_cycles(counts.book_bytes, machine)
    return SEGMENT_CYCLES + machine.dram_latency_cycles + books + counts.table_cycles


def _book_cycles(book_bytes: float, machine: TimedMachine) -> float:
    return book_bytes / (CROWDED_L2 * machine.l2_bytes_per_cycle)


def count_phases(tile: AttentionTile, machine: TimedMachine) -> Mapping[str, float]:
    """Cycles of a launch of sequences as long as the context, phase by phase: those of the SM that has most."""
    dealing = tile.dealing
    resident = -(-dealing.grid // machine.sm_count)  # blocks that share an SM, and its pipes
    per_block = block_cycles(tile.block_counts, machine)
    return {
        "start": START_CYCLES + machine.dram_latency_cycles,
        "books": dealing.heads * _book_cycles(tile.segment_counts.head_bytes, machine),
        "segments": dealing.segments * segment_cycles(tile.segment_counts, machine),
        "token_blocks": dealing.share * resident * per_block,
        "merge": PARTS_CYCLES + PARTS_ROW_CYCLES * tile.rows if dealing.merges else 0.0,
    }
