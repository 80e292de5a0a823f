"""Tiles for gemv over score tables: how rows and columns are dealt to blocks, and how many warps a block has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.code_layouts import RotatedLayout
from vqcc.ops.gemv.tile import ELEMENT_TYPES, activation_alignment, round_up
from vqcc.plan import Constant, Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.ops.base import Dtype, TimedMachine, Variant, Workload

__all__ = ["ScoreTile", "count_cycles", "propose_score_tiles", "rank_score_tiles"]

#: Tables of a region, and what they take: 256 entries of 256 bytes (device/score_table.cuh).
REGION_TABLES, REGION_BYTES = 64, 65536
#: Rows that the lanes of a warp have, and bytes of their codes for a region's tables.
GROUP_ROWS = 32
CODES_BYTES = GROUP_ROWS * REGION_TABLES
#: Warps of a block, and the registers that they leave a thread; more warps hide more latency.
BLOCKS = ((32, 64), (28, 72), (24, 80), (20, 96), (16, 128), (8, 255))
#: The tensor cores' fp32 sums are not rounded to nearest after each product but cut: a bit or two more each.
ROUNDINGS_PER_SUM = 4
#: Parts of the columns to choose from: each leaves sums that one block adds up.
MAX_COLUMN_PARTS = 64
#: Cycles, counted from the inner loops and measured on an H200 (docs/performance.md): until the first look-up, of a
#: region's making, and of the end where parts of the columns are added up.
START_CYCLES, BUILD_CYCLES, END_CYCLES = 4000, 1200, 3000
#: Of a region's making, the share that shows while the other region is looked up; and cycles of a round whose tables
#: are made between barriers.
BUILD_SHOWN, BARRIER_CYCLES = 0.8, 400
#: Instructions of a lane's look-up, and of what else a warp does for a group of rows; and how much longer look-ups take
#: than the busier of shared memory and issue, since warps wait for each other.
LOOKUP_INSTRUCTIONS, GROUP_INSTRUCTIONS, LOOKUP_WAIT = 3.2, 60, 1.2
#: Cycles that a warp alone takes for a group's look-ups: they wait for shared memory one after another.
GROUP_LATENCY = 900
#: Of what an SM can read from the second-level cache, the share that the block that adds parts up reaches.
PARTS_SHARE = 0.35
#: How much longer codes take to arrive than the bytes of a plain stream.
DRAM_WEIGHT = 1.125
WAVEFRONT_BYTES = 128


@dataclass(frozen=True)
class ScoreTile:
    """Rows in `row_parts`, columns in `column_parts`: a block for each pair, of `warps` warps; for one row of x.

    A block tabulates a round of its columns at a time, into one of `regions`, and a warp looks a group of 32 of its
    rows up. `rounds` and `row_groups` are those of the whole weight. `arrivals` and `roundings` are as in GemvTile.
    """

    dtype: Dtype
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
        return self.groups_per_block * GROUP_ROWS

    @property
    def shared_bytes(self) -> int:
        """Tables, codes on their way, sums."""
        codes = self.warps * CODES_BYTES
        return self.regions * REGION_BYTES + codes + round_up(4 * self.outputs_per_block, 128)

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which parts of the columns add up: arrivals, then sums; 0 if there is one part."""
        if self.column_parts == 1:
            return 0
        return round_up(4 * self.arrivals, 256) + 4 * self.blocks * self.outputs_per_block

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
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
                "int", "kBlockRows", self.outputs_per_block, "rows of a block, at most, and so its sums"
            ),
            Constant("int", "kArrivals", self.arrivals, "counters before the sums in the workspace"),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "of a block: tables, codes, sums"),
        )


def propose_score_tiles(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[tuple[ScoreTile, tuple[Decision, ...]]]:
    """Tiles for W of `rows` rows, by estimated time; later ones leave a thread more registers."""
    candidates = _ranked(rows, variant, work, machine)
    while candidates:
        yield candidates[0], _explain(candidates, machine)
        candidates = [tile for tile in candidates if tile.register_cap > candidates[0].register_cap]


def rank_score_tiles(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[tuple[ScoreTile, tuple[Decision, ...]]]:
    """All tiles for W of `rows` rows, by estimated time."""
    candidates = _ranked(rows, variant, work, machine)
    for i, tile in enumerate(candidates):
        yield tile, _explain([tile, *candidates[:i], *candidates[i + 1 :]], machine)


def _ranked(rows: int, variant: Variant, work: Workload, machine: TimedMachine) -> list[ScoreTile]:
    candidates = [
        tile
        for warps, cap in BLOCKS
        if GROUP_ROWS * warps <= machine.threads_per_block
        for tile in _candidates(rows, variant, work, machine, (warps, min(cap, machine.registers_per_thread)))
    ]
    return sorted(candidates, key=lambda tile: estimated_cycles(tile, machine))


def _candidates(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, block: tuple[int, int]
) -> Iterator[ScoreTile]:
    """Tiles of a block's size: one block an SM, as many parts of the rows as that leaves."""
    assert isinstance(work.layout, RotatedLayout)
    assert variant.sizes["m"] == 1
    row_groups = -(-rows // GROUP_ROWS)
    codes = work.layout.padded_vectors * work.layout.residuals
    rounds = -(-codes // REGION_TABLES)
    for column_parts in range(1, min(rounds, MAX_COLUMN_PARTS, machine.sm_count) + 1):
        if -(-rounds // column_parts) == -(-rounds // max(1, column_parts - 1)) and column_parts > 1:
            continue  # no block would have fewer rounds
        most = min(row_groups, machine.sm_count // column_parts)
        # As few parts as leave each block the same rows.
        row_parts = -(-row_groups // -(-row_groups // most))
        sums = codes + 5 + column_parts + 4  # a lane's, and those of the parts
        for regions in (2, 1) if -(-rounds // column_parts) > 1 else (1,):
            tile = ScoreTile(
                dtype=variant.dtype,
                warps=block[0],
                regions=regions,
                row_groups=row_groups,
                row_parts=row_parts,
                rounds=rounds,
                column_parts=column_parts,
                activation_alignment=activation_alignment(work.vector_size),
                arrivals=rows,
                register_cap=block[1],
                roundings=sums + ROUNDINGS_PER_SUM * work.vector_size,
            )
            if tile.shared_bytes <= machine.shared_bytes_per_block:
                yield tile


def estimated_cycles(tile: ScoreTile, machine: TimedMachine) -> float:
    """Cycles of a launch."""
    return sum(count_cycles(tile, machine).values())


def count_cycles(tile: ScoreTile, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch: start, rounds bound by codes or by look-ups and tables, and the sum of the parts."""
    turns = -(-tile.groups_per_block // tile.warps)
    wavefronts = REGION_TABLES + 2 * CODES_BYTES / WAVEFRONT_BYTES
    issued = (REGION_TABLES * LOOKUP_INSTRUCTIONS + GROUP_INSTRUCTIONS) / machine.sub_partitions
    busy = tile.groups_per_block * max(wavefronts, issued) * LOOKUP_WAIT
    looking_up = max(busy, turns * GROUP_LATENCY)
    streaming = tile.blocks * tile.groups_per_block * CODES_BYTES / machine.dram_bytes_per_cycle * DRAM_WEIGHT
    if tile.regions > 1:
        rounds = tile.rounds_per_block * max(streaming, looking_up + BUILD_SHOWN * BUILD_CYCLES)
    else:
        round_cycles = max(streaming, looking_up) + BUILD_CYCLES + BARRIER_CYCLES
        rounds = tile.rounds_per_block * round_cycles - BUILD_CYCLES
    end = 0.0
    if tile.column_parts > 1:
        end = END_CYCLES + 4 * tile.column_parts * tile.outputs_per_block / (
            PARTS_SHARE * machine.l2_bytes_per_cycle
        )
    return {"start": START_CYCLES + BUILD_CYCLES, "rounds": rounds, "end": end}


def _explain(candidates: list[ScoreTile], machine: TimedMachine) -> tuple[Decision, ...]:
    tile = candidates[0]
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
                **{f"{name}_cycles": round(cycles) for name, cycles in count_cycles(tile, machine).items()},
            },
            "tables are made once per part of the rows, sums are added once per part of the columns",
            "",
            tuple(
                Rejected(
                    f"{other.row_parts} of the rows, {other.column_parts} of the columns, {other.warps} warps, "
                    f"regions {other.regions}",
                    f"{estimated_cycles(other, machine):.0f} cycles in all, not {estimated_cycles(tile, machine):.0f}",
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
