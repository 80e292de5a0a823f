"""Tiles for gemv over bucketed codes: how buckets and rows are dealt to blocks, and how many warps a block has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.code_layouts import BucketLayout
from vqcc.ops.linear.tile import activation_alignment, dealt_parts, workspace_bytes
from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant, Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.ops.base import Dtype, TimedMachine, Variant, Workload

__all__ = [
    "BucketTile",
    "count_bucket_cycles",
    "entry_wavefronts",
    "every_bucket_tile",
    "explain_bucket_tile",
    "unit_steps",
]

#: Warps of a block, and the registers that they leave a thread.
BLOCKS = ((24, 80), (20, 96), (16, 128), (12, 160), (8, 255))
#: Chunks of a warp in shared memory, one of them in use.
MAX_AHEAD, MIN_AHEAD = 6, 3
CHUNK_BYTES = 4 * BucketLayout.CHUNK_WORDS
#: The tensor cores' fp32 sums are not rounded to nearest after each product but cut: a bit or two more each.
ROUNDINGS_PER_PRODUCT = 4
#: Steps of a unit past the mean length of a list: half a chunk less a half, and what the longest of rows of like length
#: is longer, in standard deviations.
ROUNDED_STEPS, LONGEST_DEVIATIONS = 1.5, 0.35
#: Wavefronts of a phase past one: lists are the better in order the longer they are.
CONFLICTS, CONFLICTS_EXPONENT = 0.6, -1 / 3
#: Phases of a step; of a step, wavefronts of x, and of codes that are stored and loaded; of a unit, those of its sums.
PHASES, INPUT_WAVEFRONTS, CODE_WAVEFRONTS, SUM_WAVEFRONTS = 4, 4, 1.5, 8
#: Instructions of a warp, counted in compiled code: of a step, those of it on integers, and of a unit beside its steps.
STEP_INSTRUCTIONS, STEP_INTEGERS, UNIT_INSTRUCTIONS = 18, 9, 70
#: A multiply of half the length takes half the time, and a step has four.
STEP_MULTIPLIES = 2
#: How much longer shared memory takes than its wavefronts, since warps wait for each other; cycles of a chunk for a
#: warp alone; and the power of the mean that busy resources have in place of a maximum.
STEP_WAIT, CHUNK_CYCLES, POWER = 1.0, 290, 4
#: How often the latency of DRAM codes take to arrive under load, and how much longer than a plain stream.
LOADED_LATENCY, DRAM_WEIGHT = 2, 1.125
#: Cycles until the first code, of the end where parts of the buckets are added up, and of a bucket's start: two waits
#: for memory, and the copies of x.
START_CYCLES, END_CYCLES, LOAD_CYCLES = 3690, 3690, 1640
#: Cycles of a row of x that follows another: its panel is loaded, between barriers.
INPUT_CYCLES = 5390
#: Of what an SM alone can read from the second-level cache, the share that it reaches while all load their parts, and
#: while one block adds sums up.
LOAD_SHARE, PARTS_SHARE = 0.18, 0.35


@dataclass(frozen=True)
class BucketTile:
    """Rows in `row_parts`, buckets in `column_parts`: a block for each pair, of `warps` warps; for `input_rows` of x.

    A block takes its buckets one after another, and keeps `resident_bytes` of the book and of x for each. Each warp has
    `ahead` chunks of codes in shared memory. `row_blocks` and `buckets` are those of the whole weight. `arrivals`,
    `register_cap` and `roundings` are as in LinearTile.
    """

    dtype: Dtype
    input_rows: int
    warps: int
    ahead: int
    row_blocks: int
    row_parts: int
    buckets: int
    column_parts: int
    resident_bytes: int
    activation_alignment: int
    arrivals: int
    register_cap: int
    roundings: int

    @property
    def blocks(self) -> int:
        """Pairs of a part of the rows and one of the buckets."""
        return self.row_parts * self.column_parts

    @property
    def panel_rows(self) -> int:
        """One pass serves all rows of x."""
        return 0

    @property
    def one_item_per_block(self) -> bool:
        """Sums of rows are kept over all buckets of a block."""
        return True

    @property
    def row_blocks_per_block(self) -> int:
        """Blocks of rows that a block has, at most."""
        return -(-self.row_blocks // self.row_parts)

    @property
    def buckets_per_block(self) -> int:
        """Buckets of a block, at most."""
        return -(-self.buckets // self.column_parts)

    @property
    def outputs_per_block(self) -> int:
        """Sums that a block has."""
        return self.row_blocks_per_block * BucketLayout.BLOCK_ROWS * self.input_rows

    @property
    def shared_bytes(self) -> int:
        """A part of the book, a panel of x, codes on their way, sums."""
        return self.resident_bytes + self.warps * self.ahead * CHUNK_BYTES + 4 * self.outputs_per_block

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which parts of the buckets add up: arrivals, then sums; 0 if there is one part."""
        return workspace_bytes(self.column_parts, self.arrivals, self.blocks * self.outputs_per_block)

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant(
                "int", "kInputRows", self.input_rows, "rows of x, each with the codes from the start again"
            ),
            Constant("int", "kWarps", self.warps, "warps of a block, each with units of 32 rows"),
            Constant("int", "kAhead", self.ahead, "chunks of a warp's codes in shared memory"),
            Constant("int", "kRowParts", self.row_parts, "parts of the rows, for different blocks"),
            Constant("int", "kColumnParts", self.column_parts, "parts of the buckets, for different blocks"),
            Constant(
                "int",
                "kBlockSums",
                self.outputs_per_block,
                "sums of a block: one for each of its rows and row of x",
            ),
            Constant("int", "kArrivals", self.arrivals, "counters before the sums in the workspace"),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "of a block: book, x, codes, sums"),
        )


def unit_steps(layout: BucketLayout) -> float:
    """Steps of a unit that are to be expected where every entry is as frequent."""
    mean = layout.vectors / layout.panels / layout.parts_of_table
    if layout.parts_of_table == 1:  # every code of the panel
        return float(round_up(math.ceil(mean), layout.CHUNK_STEPS))
    deviation = math.sqrt(mean * (1 - 1 / layout.parts_of_table))
    return mean + LONGEST_DEVIATIONS * deviation + ROUNDED_STEPS


def entry_wavefronts(layout: BucketLayout) -> float:
    """Wavefronts of a phase's entries, in the order that the packer gives codes (vqcc/tensors/bucket_order.py)."""
    mean = layout.vectors / layout.panels / layout.parts_of_table
    return float(1 + min(1.0, CONFLICTS * mean**CONFLICTS_EXPONENT))


def every_bucket_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[BucketTile]:
    """Tiles that fit W of `rows` rows, in no order."""
    for warps, cap in BLOCKS:
        if 32 * warps <= machine.threads_per_block:
            yield from _candidates(
                rows, variant, work, machine, (warps, min(cap, machine.registers_per_thread))
            )


def _candidates(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, block: tuple[int, int]
) -> Iterator[BucketTile]:
    """Tiles of a block's size: one block an SM, as many parts of the rows as that leaves."""
    layout = work.layout
    assert isinstance(layout, BucketLayout)
    row_blocks, buckets = layout.blocks(rows), layout.buckets
    products = work.vector_size * round_up(layout.panel_vectors, layout.CHUNK_STEPS)  # of one unit's sum
    for row_parts, column_parts in dealt_parts(row_blocks, buckets, buckets, machine.sm_count):
        tile = BucketTile(
            dtype=variant.dtype,
            input_rows=variant.sizes["m"],
            warps=block[0],
            ahead=MAX_AHEAD,
            row_blocks=row_blocks,
            row_parts=row_parts,
            buckets=buckets,
            column_parts=column_parts,
            resident_bytes=layout.resident_bytes,
            activation_alignment=activation_alignment(work.vector_size),
            arrivals=rows,
            register_cap=block[1],
            roundings=ROUNDINGS_PER_PRODUCT * products + buckets + 1,
        )
        yield from _with_ahead(tile, machine)


def _with_ahead(tile: BucketTile, machine: TimedMachine) -> Iterator[BucketTile]:
    """The tile with as many chunks ahead as shared memory has room for; nothing if there is no room."""
    over = tile.shared_bytes - machine.shared_bytes_per_block
    ahead = tile.ahead - max(0, -(-over // (tile.warps * CHUNK_BYTES)))
    if ahead >= MIN_AHEAD:
        yield replace(tile, ahead=ahead)


def count_bucket_cycles(tile: BucketTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch: start, loads of parts of the book, buckets, and the sum of the parts."""
    layout = work.layout
    assert isinstance(layout, BucketLayout)
    units = tile.row_blocks_per_block * layout.BLOCK_UNITS
    busy = _busy_cycles(tile, layout, machine, units)
    bucket = sum(cycles**POWER for cycles in busy.values()) ** (1 / POWER)
    loading = LOAD_CYCLES + layout.part_bytes / (LOAD_SHARE * machine.l2_bytes_per_cycle)
    end = 0.0
    if tile.column_parts > 1:
        end = END_CYCLES + 4 * tile.column_parts * tile.outputs_per_block / (
            PARTS_SHARE * machine.l2_bytes_per_cycle
        )
    return {
        "start": START_CYCLES,
        "loads": tile.buckets_per_block * loading,
        "buckets": tile.buckets_per_block * (tile.input_rows * (bucket + INPUT_CYCLES) - INPUT_CYCLES),
        "end": end,
    }


def _busy_cycles(
    tile: BucketTile, layout: BucketLayout, machine: TimedMachine, units: int
) -> dict[str, float]:
    """Cycles for which a bucket of `units` units keeps each resource of a block's SM busy, and its warps waiting."""
    steps = unit_steps(layout)
    wavefronts = INPUT_WAVEFRONTS + PHASES * entry_wavefronts(layout) + CODE_WAVEFRONTS
    chunk_cycles = max(CHUNK_CYCLES, LOADED_LATENCY * machine.dram_latency_cycles / (tile.ahead - 1))
    chunks = steps / layout.CHUNK_STEPS
    all_steps = units * steps / machine.sub_partitions
    return {
        "shared": units * (steps * wavefronts + SUM_WAVEFRONTS) * STEP_WAIT,
        "issue": all_steps * STEP_INSTRUCTIONS + units * UNIT_INSTRUCTIONS / machine.sub_partitions,
        "integer": all_steps * STEP_INTEGERS * machine.integer_cycles,
        "multiply": all_steps * STEP_MULTIPLIES * machine.multiply_cycles,
        "latency": -(-units // tile.warps) * chunks * chunk_cycles,
        "dram": tile.blocks * units * chunks * CHUNK_BYTES / machine.dram_bytes_per_cycle * DRAM_WEIGHT,
    }


def explain_bucket_tile(
    candidates: Sequence[BucketTile], work: Workload, machine: TimedMachine
) -> tuple[Decision, ...]:
    """Why the first of some tiles is taken: how rows and buckets are dealt out."""
    tile, layout = candidates[0], work.layout
    assert isinstance(layout, BucketLayout)
    cycles = count_bucket_cycles(tile, work, machine)
    dealt: dict[tuple[int, int], BucketTile] = {}
    for other in candidates:  # of those that deal the work out alike, the fastest
        dealt.setdefault((other.row_parts, other.column_parts), other)
    least = sum(cycles.values())
    return (
        Decision(
            "parts",
            f"{tile.row_parts} of the rows, {tile.column_parts} of the buckets",
            "least start + buckets * (part of the book + what a bucket keeps busy) + sum of the parts, in cycles",
            {
                "row_blocks": tile.row_blocks,
                "buckets": tile.buckets,
                "buckets_per_block": tile.buckets_per_block,
                "warps": tile.warps,
                "ahead": tile.ahead,
                "unit_steps": round(unit_steps(layout), 1),
                "entry_wavefronts": round(entry_wavefronts(layout), 3),
                **{f"{name}_cycles": round(value) for name, value in cycles.items()},
            },
            "a part of the book is loaded once per bucket and part of the rows, sums are added once per part of the "
            "buckets",
            "",
            tuple(
                Rejected(
                    f"{other.row_parts} of the rows, {other.column_parts} of the buckets, {other.warps} warps",
                    f"{sum(count_bucket_cycles(other, work, machine).values()):.0f} cycles in all, not {least:.0f}",
                )
                for other in list(dealt.values())[1:4]
            ),
        ),
    )
