"""Tiles for gemm by multiplies of a warpgroup: rows of W and of x of a block, and parts of the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.code_layouts import FragmentLayout
from vqcc.ops.gemv.fragment_cycles import CONFLICTS
from vqcc.ops.gemv.fragment_tile import ROUNDINGS_PER_PRODUCT, SUM_PADDING, books_of
from vqcc.ops.gemv.tile import panel_constants, workspace_bytes
from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant, Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.ops.base import Dtype, TimedMachine, Variant, Workload

__all__ = [
    "MAX_GRID",
    "MAX_ROWS",
    "WARPGROUP_ROWS",
    "WarpgroupTile",
    "count_warpgroup_cycles",
    "every_warpgroup_tile",
    "explain_warpgroup_tile",
    "spare_warpgroup_registers",
]

#: Rows of x that operand B has: columns of wgmma that there are functions for (device/arch_warpgroup.cuh).
WARPGROUP_ROWS = (32, 64, 128)
#: Rows of W that a warpgroup has: 32 of each warp, of two multiplies.
GROUP_ROWS = 128
#: Columns of a lane in a block of x, stages of blocks in shared memory, and what they are aligned to there.
BLOCK_COLUMNS, STAGES, ALIGNMENT = 16, 3, 1024
#: What a thread brings of x: pieces of a row in a block.
BLOCK_PIECES = 2
#: Rounds whose codes are on their way, the first preferred: of stages of several blocks, and of one, whose sums leave
#: no registers for a second. The model tells no difference, an H200 does (docs/performance.md).
AHEAD_OF_SEVERAL, AHEAD_OF_ONE = (2, 1), (1, 2)
#: Registers of a thread beside its sums, codes and x: weights of two units, addresses, loop state.
BASE_REGISTERS = 64
#: Blocks that a launch has at most.
MAX_GRID = 2**31 - 1
WARPS, LANES, QUAD = 4, 32, 4
WAVEFRONT_BYTES = 128
#: Registers of a thread: what a block's warps leave.
REGISTERS = 255
#: The most parts of the columns, and the most memory for their sums.
MAX_PARTS, MAX_PART_BYTES = 16, 2**28
#: Rows of x that one launch takes at most.
MAX_ROWS = 16384
#: A residual that is added up in float16 is rounded once more: in roundings of fp32; with a factor, thrice.
FLOAT16_ROUNDING = 2**13
#: A multiply of m16n8k16 as part of a warpgroup's, relative to a warp's own (tensor_flops of either, PTX ISA).
MULTIPLY = 0.66
#: Until the first stage is there, at the end of a block, and where the warps of a stage meet; and how long busy times
#: are felt, relative to their sum: fitted to eight measured kernels of an H200, within 17 % (docs/performance.md).
START_CYCLES, END_CYCLES, STAGE_CYCLES, OVERLAP = 3000, 2000, 100, 1.75
#: Cycles for 128 bytes of sums that a part leaves, or that are added up: threads wait for them.
PART_CYCLES = 6
#: Busy times of a stage are summed in this power.
POWER = 3


@dataclass(frozen=True)
class WarpgroupTile:
    """A block has GROUP_ROWS rows of W for each of `warpgroups`, times `batch` rows of x, and one of `parts` of a row.

    `sets` of rows have `rounds` rounds of `round_columns` columns of a lane each, dealt to parts by `part_unit`. Stages
    of x are of `stage_blocks` blocks of 64 columns, codes of `ahead` rounds on their way. Books lie as in FragmentTile;
    `arrivals`, `register_cap`, `roundings` and `panels` are as in GemvTile, but that panels have counters of their own.
    """

    batch: int
    dtype: Dtype
    warpgroups: int
    parts: int
    part_unit: int
    stage_blocks: int
    ahead: int
    sets: int
    rounds: int
    round_columns: int
    copies: int
    quad_tiles: int
    book_buffers: int
    book_bytes: int
    arrivals: int
    register_cap: int
    roundings: int
    panels: int = 1

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return WARPS * self.warpgroups

    @property
    def rows_per_block(self) -> int:
        """Rows of W of a block."""
        return GROUP_ROWS * self.warpgroups

    @property
    def blocks(self) -> int:
        """Of a panel."""
        return self.sets * self.parts

    @property
    def one_item_per_block(self) -> bool:
        """A block has a set of rows, or a part of one."""
        return True

    @property
    def panel_rows(self) -> int:
        """Rows of x of each panel; 0 if one serves all."""
        return self.batch if self.panels > 1 else 0

    @property
    def part_rounds(self) -> int:
        """Rounds of a part, at most."""
        return -(-self.rounds // (self.parts * self.part_unit)) * self.part_unit

    @property
    def shared_bytes(self) -> int:
        """Books and stages of x; at the end sums in their place."""
        stages = STAGES * self.stage_blocks * self.batch * BLOCK_COLUMNS * QUAD * 2
        sums = 4 * (self.rows_per_block + SUM_PADDING) * self.batch + 16
        return round_up(max(round_up(self.book_bytes, ALIGNMENT) + stages + ALIGNMENT, sums), 128)

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which parts add up: arrivals, then sums; 0 if none do."""
        sums = self.panels * self.blocks * self.rows_per_block * self.batch
        return workspace_bytes(self.parts, self.arrivals, sums)

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("int", "kBatch", self.batch, "rows of x of a block"),
            *panel_constants(self.panels),
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant("int", "kWarpgroups", self.warpgroups, "of four warps, 128 rows of W each"),
            Constant("int", "kParts", self.parts, "of the columns, for different blocks"),
            Constant("int", "kPartUnit", self.part_unit, "rounds of which parts have a whole number"),
            Constant("int", "kStageBlocks", self.stage_blocks, "of 64 columns of x between two barriers"),
            Constant("int", "kAhead", self.ahead, "rounds of columns whose codes are on their way"),
            Constant("int", "kArrivals", self.arrivals, "counters before the sums in the workspace"),
            Constant("int", "kCopies", self.copies, "copies of an entry, for lanes to look up in turn"),
            Constant("int", "kQuadTiles", self.quad_tiles, "column tiles that the lanes of a quad decode"),
            Constant(
                "int", "kBookBuffers", self.book_buffers, "with two, the next tiles' books arrive ahead"
            ),
            Constant("int", "kSumPadding", SUM_PADDING, "floats between sums of one row of x and the next's"),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "of a block: books and x, then sums"),
        )


def every_warpgroup_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, panels: int = 1
) -> Iterator[WarpgroupTile]:
    """Tiles that fit W of `rows` rows, in no order; `variant` has the rows of x of one of `panels` panels."""
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    step_columns = layout.step_vectors * work.vector_size
    span_columns = layout.span_vectors * work.vector_size
    lane_columns = layout.lane_vectors * work.vector_size
    tiled = work.column_tiles > 1
    for warpgroups in (2, 1):
        per_block = GROUP_ROWS * warpgroups
        if work.band_rows < rows and work.band_rows % per_block:
            continue
        blocks = max(1, WARPS * LANES * warpgroups // (BLOCK_PIECES * variant.sizes["m"]))
        columns = max(step_columns, BLOCK_COLUMNS * blocks)
        if columns % step_columns or columns % (BLOCK_COLUMNS * blocks) or (tiled and span_columns % columns):
            continue
        rounds, unit = -(-lane_columns // columns), span_columns // columns if tiled else 1
        for parts in range(1, min(MAX_PARTS, -(-rounds // unit)) + 1):
            if (parts - 1) * (-(-rounds // (parts * unit)) * unit) >= rounds:
                continue
            for ahead in AHEAD_OF_SEVERAL if blocks > 1 else AHEAD_OF_ONE:
                tile = _tile(rows, variant, work, (warpgroups, parts, unit, blocks, columns, ahead), panels)
                if _fits(tile, machine):
                    yield tile


def _fits(tile: WarpgroupTile, machine: TimedMachine) -> bool:
    return (
        tile.shared_bytes <= machine.shared_bytes_per_block
        and tile.workspace_bytes <= MAX_PART_BYTES
        and tile.blocks * tile.panels <= MAX_GRID
    )


def spare_warpgroup_registers(tile: WarpgroupTile, work: Workload) -> int:
    """Registers that the cap leaves a thread beside those it needs, roughly."""
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    sums = tile.batch  # two multiplies of 64 rows, half a row of x each
    steps = tile.round_columns // (layout.step_vectors * work.vector_size)
    codes = (tile.ahead + 1) * 4 * steps * layout.step_words
    pieces = -(-tile.batch * tile.stage_blocks * BLOCK_PIECES // (LANES * tile.warps))
    return tile.register_cap - (BASE_REGISTERS + sums + codes + 4 * QUAD * pieces)


def _tile(
    rows: int, variant: Variant, work: Workload, shape: tuple[int, int, int, int, int, int], panels: int
) -> WarpgroupTile:
    warpgroups, parts, part_unit, stage_blocks, round_columns, ahead = shape
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    bands = -(-rows // work.band_rows)
    quad_tiles = layout.QUAD if work.column_tiles > 1 else 1
    copies, book_buffers, book_bytes = books_of(work, quad_tiles, several=work.column_tiles > 1)
    rounds = -(-layout.lane_vectors * work.vector_size // round_columns)
    columns = rounds * round_columns * QUAD
    added = variant.dtype == "float16" and work.stages > 1
    extra = (work.stages - 1) * FLOAT16_ROUNDING * (3 if work.stage_sums > 1 else 1) if added else 0
    products = columns * (1 if added else work.stages)
    return WarpgroupTile(
        batch=variant.sizes["m"],
        dtype=variant.dtype,
        warpgroups=warpgroups,
        parts=parts,
        part_unit=part_unit,
        stage_blocks=stage_blocks,
        ahead=ahead,
        sets=bands * -(-work.band_rows // (GROUP_ROWS * warpgroups)),
        rounds=rounds,
        round_columns=round_columns,
        copies=copies,
        quad_tiles=quad_tiles,
        book_buffers=book_buffers,
        book_bytes=book_bytes,
        arrivals=_counters(bands, work) if parts > 1 else 0,
        register_cap=REGISTERS,
        roundings=ROUNDINGS_PER_PRODUCT * products + parts + work.stage_sums + extra,
        panels=panels,
    )


def _counters(bands: int, work: Workload) -> int:
    """As many as any kernel of a library has: one for each set of the fewest rows and panel of the fewest rows of x."""
    return bands * -(-work.band_rows // GROUP_ROWS) * (MAX_ROWS // WARPGROUP_ROWS[0])


def count_warpgroup_cycles(tile: WarpgroupTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch by its phases: those of the SM that has most blocks, one after the other."""
    busy = _stage_cycles(tile, work, machine)
    stages = tile.part_rounds * tile.round_columns / (BLOCK_COLUMNS * tile.stage_blocks)
    stage = OVERLAP * sum(each**POWER for each in busy.values()) ** (1 / POWER) + STAGE_CYCLES
    fill = 2 * tile.book_bytes / WAVEFRONT_BYTES
    outputs = tile.rows_per_block * tile.batch
    added = PART_CYCLES * (1 + tile.parts) if tile.parts > 1 else 0
    end = END_CYCLES + 4 * outputs / WAVEFRONT_BYTES * (2 + added)
    rounds = -(-tile.blocks * tile.panels // machine.sm_count)
    return {
        "start": rounds * (START_CYCLES + fill),
        "stages": rounds * stages * stage,
        "end": rounds * end,
    }


def _stage_cycles(tile: WarpgroupTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """What a stage keeps busy."""
    rows, batch = tile.rows_per_block, tile.batch
    columns = BLOCK_COLUMNS * tile.stage_blocks * QUAD
    codes = rows * columns / work.vector_size * work.stages / LANES
    lookups = codes * (2 if work.entry_operations else 1)
    entry = 4 * work.entry_words * LANES / WAVEFRONT_BYTES
    if tile.copies == 1:
        entry *= CONFLICTS
    operand = rows / 64 * batch * columns * 2 / WAVEFRONT_BYTES  # read by each multiply of 64 rows
    multiplies = rows / 16 * batch / 8 * columns / 16
    if tile.dtype != "float16":  # stages are multiplied one after the other
        multiplies *= work.stages
    loads = batch * columns * 2 / 16 / LANES
    instructions = lookups * 2 + codes * work.entry_operations + codes * work.entry_words * 2 + 2 * loads * 2
    bits = work.code_bits * work.stages / work.vector_size
    return {
        "shared": lookups * entry + operand + 4 * loads,
        "issue": instructions / machine.sub_partitions,
        "tensor": multiplies * MULTIPLY * machine.multiply_cycles / machine.sub_partitions,
        "dram": rows * columns * bits / 8 * machine.sm_count / machine.dram_bytes_per_cycle,
        "inputs": batch * columns * 2 / machine.l2_bytes_per_cycle,
    }


def explain_warpgroup_tile(
    candidates: Sequence[WarpgroupTile], work: Workload, machine: TimedMachine
) -> tuple[Decision, ...]:
    """Why the first of some tiles is taken."""
    tile = candidates[0]
    cycles = count_warpgroup_cycles(tile, work, machine)
    least = sum(cycles.values())
    return (
        Decision(
            "blocks",
            f"{tile.blocks * tile.panels}, of {tile.rows_per_block} rows of W and {tile.batch} of x",
            "least start + stages * what a stage keeps busy + sums, in cycles of the SM that has most blocks",
            {
                "sets_of_rows": tile.sets,
                "parts": tile.parts,
                "panels": tile.panels,
                **{f"{name}_cycles": round(value) for name, value in cycles.items()},
            },
            "each decoded weight serves all of a block's rows of x",
            "",
            tuple(
                Rejected(
                    f"{other.rows_per_block} rows by {other.batch}, {other.parts} parts",
                    f"{sum(count_warpgroup_cycles(other, work, machine).values()):.0f} cycles, not {least:.0f}",
                )
                for other in candidates[1:4]
            ),
        ),
    )
