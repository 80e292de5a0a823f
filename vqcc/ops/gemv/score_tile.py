"""Tiles for gemv over score tables: how rows and columns are dealt to blocks, and how many warps a block has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.code_layouts import RotatedLayout
from vqcc.ops.linear.tile import activation_alignment, dealt_parts, workspace_bytes
from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant, Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.ops.base import Dtype, TimedMachine, Variant, Workload

__all__ = ["ScoreTile", "count_score_cycles", "every_score_tile", "explain_score_tile"]

#: Rows that the lanes of a warp have.
GROUP_ROWS = 32
#: Warps of a block, and the registers that they leave a thread; more warps hide more latency.
BLOCKS = ((32, 64), (28, 72), (24, 80), (20, 96), (16, 128), (8, 255))
#: A score in float16 and the sum of four are rounded three times, to 2^13 times less than fp32.
HALF_ROUNDINGS = 3 * 2**13
#: The tensor cores' fp32 sums are not rounded to nearest after each product but cut: a bit or two more each.
ROUNDINGS_PER_SUM = 4
#: Parts of the columns to choose from: each leaves sums that one block adds up.
MAX_COLUMN_PARTS = 64
#: Cycles, fitted to 131 kernels measured on an H200 (docs/performance.md): until the first look-up, of
#: finding the scales of float16 scores, and of the end where parts of the columns are added up.
START_CYCLES, SCALE_CYCLES, END_CYCLES = 2570, 210, 2080
#: Of the start, what each warp of a block adds.
WARP_CYCLES = 94
#: Of a region's making, the share that shows while the other region is looked up; and cycles of a round whose tables
#: are made between barriers.
BUILD_SHOWN, BARRIER_CYCLES = 0.79, 114
#: Instructions of what a warp does for a group of rows beside looking up; and how much longer look-ups take than the
#: busier of shared memory and issue, since warps wait for each other.
GROUP_INSTRUCTIONS, LOOKUP_WAIT = 60, 1.16
#: Cycles that a warp alone takes for a group's look-ups: they wait for shared memory one after another.
GROUP_LATENCY = 1220
#: Of what an SM can read from the second-level cache, the share that the block that adds parts up reaches.
PARTS_SHARE = 0.55
#: How much longer codes take to arrive than the bytes of a plain stream.
DRAM_WEIGHT = 1.09
WAVEFRONT_BYTES = 128


@dataclass(frozen=True)
class Region:
    """Score tables that a block has at a time (device/score_table.cuh, device/score_table_wide.cuh).

    `tables` of `bytes` in all, a look-up in which takes a warp `wavefronts` of shared memory and `instructions`. They
    take `build_cycles` to make. Codes are `staged` in shared memory on their way, or in registers. A score is rounded
    `roundings` times more than a decoded product.
    """

    tables: int
    bytes: int
    wavefronts: int
    instructions: float
    build_cycles: int
    staged: bool = True
    roundings: int = 0


#: Regions by the bits of a code and the rows of x that an entry has scores of.
REGIONS = {
    (8, 1): Region(64, 65536, 1, 3.2, 1380),
    (8, 2): Region(64, 65536, 1, 4.8, 2660, roundings=HALF_ROUNDINGS),
    (8, 4): Region(32, 65536, 2, 7.0, 3190, roundings=HALF_ROUNDINGS),
    (12, 1): Region(16, 131072, 2, 7.0, 2020, staged=False, roundings=HALF_ROUNDINGS),
}


@dataclass(frozen=True)
class ScoreTile:
    """Rows in `row_parts`, columns in `column_parts`: a block for each pair, of `warps` warps.

    Tables have scores of `input_rows` rows of x, 1, 2 or 4, for codes of `code_bits`. A block tabulates a round of its
    columns at a time, into one of `regions`, and a warp looks a group of 32 of its rows up. `rounds` and `row_groups`
    are those of the whole weight. `arrivals` and `roundings` are as in LinearTile.
    """

    dtype: Dtype
    input_rows: int
    code_bits: int
    warps: int
    regions: int
    row_groups: int
    row_parts: int
    rounds: int
    column_parts: int
    activation_alignment: int
    arrivals: int
    register_cap: int
    roundings: int

    @property
    def blocks(self) -> int:
        """Pairs of a part of the rows and one of the columns."""
        return self.row_parts * self.column_parts

    @property
    def panel_rows(self) -> int:
        """One pass serves all rows of x."""
        return 0

    @property
    def one_item_per_block(self) -> bool:
        """Tables are made for one part of the columns."""
        return True

    @property
    def groups_per_block(self) -> int:
        """Groups of rows that a block has, at most."""
        return -(-self.row_groups // self.row_parts)

    @property
    def rounds_per_block(self) -> int:
        """Rounds of a block, at most."""
        return -(-self.rounds // self.column_parts)

    @property
    def outputs_per_block(self) -> int:
        """Sums that a block has."""
        return self.groups_per_block * GROUP_ROWS * self.input_rows

    @property
    def region(self) -> Region:
        """What its score tables are like."""
        return REGIONS[self.code_bits, self.input_rows]

    @property
    def codes_bytes(self) -> int:
        """Bytes of a group's codes for a region's tables."""
        return GROUP_ROWS * self.region.tables * self.code_bits // 8

    @property
    def shared_bytes(self) -> int:
        """Tables, codes on their way, sums."""
        codes = self.warps * self.codes_bytes if self.region.staged else 0
        return self.regions * self.region.bytes + codes + round_up(4 * self.outputs_per_block, 128)

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which parts of the columns add up: arrivals, then sums; 0 if there is one part."""
        return workspace_bytes(self.column_parts, self.arrivals, self.blocks * self.outputs_per_block)

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant("int", "kInputRows", self.input_rows, "rows of x that an entry has scores of"),
            Constant("int", "kWarps", self.warps, "warps of a block, each with a group of 32 rows at a time"),
            Constant(
                "int",
                "kRegions",
                self.regions,
                "regions of score tables: with two, the next round's are made ahead",
            ),
            Constant("int", "kRowParts", self.row_parts, "parts of the rows, for different blocks"),
            Constant("int", "kColumnParts", self.column_parts, "parts of the columns, for different blocks"),
            Constant(
                "int",
                "kBlockSums",
                self.outputs_per_block,
                "sums of a block: one for each of its rows and row of x",
            ),
            Constant("int", "kArrivals", self.arrivals, "counters before the sums in the workspace"),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "of a block: tables, codes, sums"),
        )


def every_score_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[ScoreTile]:
    """Tiles that fit W of `rows` rows, in no order."""
    for warps, cap in BLOCKS:
        if GROUP_ROWS * warps <= machine.threads_per_block:
            yield from _candidates(
                rows, variant, work, machine, (warps, min(cap, machine.registers_per_thread))
            )


def _candidates(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, block: tuple[int, int]
) -> Iterator[ScoreTile]:
    """Tiles of a block's size: one block an SM, as many parts of the rows as that leaves."""
    assert isinstance(work.layout, RotatedLayout)
    input_rows = 1 << (variant.sizes["m"] - 1).bit_length()
    region = REGIONS[work.layout.code_bits, input_rows]
    row_groups = -(-rows // GROUP_ROWS)
    codes = work.layout.padded_vectors * work.layout.residuals
    rounds = -(-codes // region.tables)
    for row_parts, column_parts in dealt_parts(
        row_groups, min(rounds, MAX_COLUMN_PARTS), rounds, machine.sm_count
    ):
        sums = codes + 5 + column_parts + 4  # a lane's, and those of the parts
        for regions in (2, 1) if -(-rounds // column_parts) > 1 else (1,):
            tile = ScoreTile(
                dtype=variant.dtype,
                input_rows=input_rows,
                code_bits=work.layout.code_bits,
                warps=block[0],
                regions=regions,
                row_groups=row_groups,
                row_parts=row_parts,
                rounds=rounds,
                column_parts=column_parts,
                activation_alignment=activation_alignment(work.vector_size),
                arrivals=rows,
                register_cap=block[1],
                roundings=sums + ROUNDINGS_PER_SUM * work.vector_size + region.roundings,
            )
            if tile.shared_bytes <= machine.shared_bytes_per_block:
                yield tile


def count_score_cycles(tile: ScoreTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch: start, rounds bound by codes or by look-ups and tables, and the sum of the parts."""
    region = tile.region
    turns = -(-tile.groups_per_block // tile.warps)
    wavefronts = region.tables * region.wavefronts + 2 * tile.codes_bytes / WAVEFRONT_BYTES
    issued = (region.tables * region.instructions + GROUP_INSTRUCTIONS) / machine.sub_partitions
    busy = tile.groups_per_block * max(wavefronts, issued) * LOOKUP_WAIT
    looking_up = max(busy, turns * GROUP_LATENCY)
    moved = tile.blocks * tile.groups_per_block * tile.codes_bytes
    streaming = moved / machine.dram_bytes_per_cycle * DRAM_WEIGHT
    # Entries come from the second-level cache for each region.
    entries = (1 << tile.code_bits) * work.entry_words * 4 / machine.l2_bytes_per_cycle
    building = region.build_cycles + entries
    if tile.regions > 1:
        rounds = tile.rounds_per_block * max(streaming, looking_up + BUILD_SHOWN * building)
    else:
        round_cycles = max(streaming, looking_up) + building + BARRIER_CYCLES
        rounds = tile.rounds_per_block * round_cycles - building
    start = START_CYCLES + WARP_CYCLES * tile.warps + building + (SCALE_CYCLES if region.roundings else 0)
    end = 0.0
    if tile.column_parts > 1:
        end = END_CYCLES + 4 * tile.column_parts * tile.outputs_per_block / (
            PARTS_SHARE * machine.l2_bytes_per_cycle
        )
    return {"start": start, "rounds": rounds, "end": end}


def explain_score_tile(
    candidates: Sequence[ScoreTile], work: Workload, machine: TimedMachine
) -> tuple[Decision, ...]:
    """Why the first of some tiles is taken: how rows and columns are dealt out, and regions."""
    tile = candidates[0]
    cycles = count_score_cycles(tile, work, machine)
    least = sum(cycles.values())
    dealt: dict[tuple[int, int, int], ScoreTile] = {}
    for other in candidates:  # of those that deal the work out alike, the fastest
        dealt.setdefault((other.row_parts, other.column_parts, other.regions), other)
    return (
        Decision(
            "parts",
            f"{tile.row_parts} of the rows, {tile.column_parts} of the columns",
            "least start + rounds * max(codes from DRAM, look-ups + tables) + sum of the parts, in cycles",
            {
                "row_groups": tile.row_groups,
                "rounds": tile.rounds,
                "groups_per_block": tile.groups_per_block,
                "rounds_per_block": tile.rounds_per_block,
                "warps": tile.warps,
                **{f"{name}_cycles": round(value) for name, value in cycles.items()},
            },
            "tables are made once per part of the rows, sums are added once per part of the columns",
            "",
            tuple(
                Rejected(
                    f"{other.row_parts} of the rows, {other.column_parts} of the columns, {other.warps} warps, "
                    f"regions {other.regions}",
                    f"{sum(count_score_cycles(other, work, machine).values()):.0f} cycles in all, not {least:.0f}",
                )
                for other in list(dealt.values())[1:4]
            ),
        ),
        Decision(
            "regions",
            tile.regions,
            "two where shared memory has room and a block has several rounds, if that is faster",
            {"shared_bytes": tile.shared_bytes, "rounds_per_block": tile.rounds_per_block},
            "tables of the next round are made while this one's codes arrive"
            if tile.regions > 1
            else "a block makes its tables between barriers",
        ),
    )
