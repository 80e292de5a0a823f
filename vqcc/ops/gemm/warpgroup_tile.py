"""Tiles for gemm by multiplies of a warpgroup: rows of W and of x of a block, and parts of the columns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from vqcc.code_layouts import FragmentLayout
from vqcc.ops.gemv.fragment_cycles import CONFLICTS
from vqcc.ops.gemv.fragment_tile import ROUNDINGS_PER_PRODUCT, books_of
from vqcc.ops.linear.tile import counter_bytes
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
#: Columns of a lane in a stage of x, bytes of all stages in shared memory, and what they are aligned to there.
STAGE_COLUMNS, RING_BYTES, ALIGNMENT = 16, 65536, 1024
#: Stages that there are at most, and of a round.
MIN_STAGES, MAX_STAGES, ROUND_STAGES = 3, 8, (4, 2, 1)
#: Shared memory of a warp for outputs on their way, and of all barriers, at most.
OUTPUT_BYTES, BARRIER_BYTES = 2560, 256
#: Warpgroups that multiply, and blocks of an SM. Another warpgroup of each block helps.
SHAPES = ((2, 1), (3, 1), (4, 1), (1, 1), (1, 2), (2, 2))
MAX_GROUPS = max(groups * blocks for groups, blocks in SHAPES)
#: What part of L2 the panels of a group take at most: a third, for there are codes, y and other panels beside them.
GROUP_L2_SHARE = 3
#: Registers of a thread that helps; of the others beside sums, codes and weights: addresses, loop state.
HELPING_REGISTERS, BASE_REGISTERS, WEIGHT_REGISTERS = 32, 30, 32
#: Registers that can be taken at most, and in which steps (PTX setmaxnreg, less what no thread can name).
MOST_REGISTERS, REGISTER_STEP = 240, 8
#: Blocks that a launch has at most, which its tiles are counted like.
MAX_GRID = 2**31 - 1
WARPS, LANES, QUAD = 4, 32, 4
WAVEFRONT_BYTES = 128
#: The most memory for sums of parts, and for x as operand B takes it.
MAX_PART_BYTES, MAX_INPUT_BYTES = 2**28, 2**30
#: Counters of groups of x that are taken and blocks that are done; and of each panel, those that are there.
INPUT_COUNTERS = 2
#: Rows of x that one launch takes at most.
MAX_ROWS = 16384
#: A residual that is added up in float16 is rounded once more: in roundings of fp32; with a factor, thrice.
FLOAT16_ROUNDING = 2**13
#: A multiply of m16n8k16 as part of a warpgroup's, relative to a warp's own (tensor_flops of either, PTX ISA).
MULTIPLY = 0.66
#: Until the first stage is there, and at the end of a piece; and how long busy times are felt, relative to their sum.
START_CYCLES, END_CYCLES, OVERLAP = 3000, 800, 1.2
#: Instructions of all kinds, relative to those that look up and add: counted by ncu for a kernel of an H200.
ALL_INSTRUCTIONS = 1.8
#: What a warp takes for a stage however few others there are: look-ups, barriers and multiplies one after the other.
CHAIN_CYCLES = 380
#: Cycles for 128 bytes of sums that a part leaves or adds up, and of outputs.
PART_CYCLES, OUTPUT_CYCLES = 3, 6
#: Busy times of a stage are summed in this power.
POWER = 3


@dataclass(frozen=True)
class WarpgroupTile:
    """A block has GROUP_ROWS rows of W for each of `warpgroups`, times `batch` rows of x: a tile of outputs.

    `blocks` blocks, `resident` of an SM, stay and take the tiles of all `panels` of x: `sets` of rows of W each. Those
    past whole rounds are dealt by units of `part_unit` rounds, of the `rounds` of `round_stages` stages of 64 columns;
    `splits` says that there may be such. Tiles of `panel_group` panels follow one another set by set. `stages` stages
    of x are in shared memory, codes of a round on their way. Books lie as in FragmentTile; `arrivals`, `register_cap`
    and `roundings` are as in LinearTile. Threads that multiply take `multiplying_registers` in all, if not 0, of those
    that others give. x has counters from `input_counters` on.
    """

    batch: int
    dtype: Dtype
    warpgroups: int
    resident: int
    blocks: int
    splits: bool
    part_unit: int
    round_stages: int
    stages: int
    sets: int
    panels: int
    panel_group: int
    rounds: int
    copies: int
    quad_tiles: int
    book_buffers: int
    book_bytes: int
    arrivals: int
    input_counters: int
    register_cap: int
    roundings: int
    multiplying_registers: int = 0

    @property
    def warps(self) -> int:
        """Warps of a block, those that help included."""
        return WARPS * (self.warpgroups + 1)

    @property
    def rows_per_block(self) -> int:
        """Rows of W of a tile of outputs."""
        return GROUP_ROWS * self.warpgroups

    @property
    def one_item_per_block(self) -> bool:
        """Blocks are as many as are resident, and share all work."""
        return True

    @property
    def panel_rows(self) -> int:
        """0: blocks take the tiles of all panels."""
        return 0

    @property
    def units(self) -> int:
        """Units of a tile of outputs, which parts have a whole number of."""
        return -(-self.rounds // self.part_unit)

    @property
    def shared_bytes(self) -> int:
        """Books, stages of x, outputs on their way, and barriers."""
        stages = self.stages * self.stage_bytes
        outputs = WARPS * self.warpgroups * OUTPUT_BYTES
        return round_up(self.book_bytes, ALIGNMENT) + ALIGNMENT + stages + outputs + BARRIER_BYTES

    @property
    def stage_bytes(self) -> int:
        """Of 64 columns of a panel's rows of x."""
        return 2 * self.batch * STAGE_COLUMNS * QUAD

    @property
    def tile_stages(self) -> int:
        """Stages of a tile of outputs, whole units of them."""
        return self.units * self.part_unit * self.round_stages

    @property
    def sum_bytes(self) -> int:
        """Device memory of the sums of parts: a block leaves those of one at most."""
        return 4 * self.blocks * self.rows_per_block * self.batch if self.splits else 0

    @property
    def input_bytes(self) -> int:
        """Device memory of x as operand B takes it."""
        return self.panels * self.tile_stages * self.stage_bytes

    @property
    def inputs_offset(self) -> int:
        """Where it begins, after counters and sums of parts."""
        return counter_bytes(self.arrivals) + self.sum_bytes

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which blocks work together: counters, sums of parts, x as operand B takes it."""
        return self.inputs_offset + self.input_bytes

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("int", "kBatch", self.batch, "rows of x of a tile of outputs"),
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant(
                "int", "kWarpgroups", self.warpgroups, "that multiply, 128 rows of W each; one more helps"
            ),
            Constant("int", "kBlocks", self.blocks, "that share all tiles"),
            Constant(
                "int", "kPanelGroup", self.panel_group, "panels whose tiles follow one another set by set"
            ),
            Constant("int", "kPartUnit", self.part_unit, "rounds of which parts have a whole number"),
            Constant("int", "kRoundStages", self.round_stages, "of 64 columns in a round"),
            Constant(
                "int", "kTileStages", self.tile_stages, "of a tile of outputs: as many as x has room for"
            ),
            Constant("int", "kStages", self.stages, "of x, which take turns"),
            Constant("int", "kArrivals", self.arrivals, "counters before the sums in the workspace"),
            Constant("int", "kInputCounters", self.input_counters, "the first of those that tell of x"),
            Constant("int", "kInputsOffset", self.inputs_offset, "bytes of the workspace before x"),
            Constant("int", "kCopies", self.copies, "copies of an entry, for lanes to look up in turn"),
            Constant("int", "kQuadTiles", self.quad_tiles, "column tiles that the lanes of a quad decode"),
            Constant("int", "kBookBuffers", self.book_buffers, "with two, the next books arrive ahead"),
            Constant(
                "int",
                "kMultiplyingRegisters",
                self.multiplying_registers,
                "that a multiplying thread takes, or 0",
            ),
            Constant("int", "kHelpingRegisters", HELPING_REGISTERS, "that a helping thread keeps then"),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "of a block: books, x, outputs, barriers"),
        )


def every_warpgroup_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, panels: int = 1
) -> Iterator[WarpgroupTile]:
    """Tiles that fit W of `rows` rows, in no order; `variant` has the rows of x of one of `panels` panels."""
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    step_columns = layout.step_vectors * work.vector_size
    span_columns = layout.span_vectors * work.vector_size
    tiled = work.column_tiles > 1
    for (warpgroups, resident), depth in product(SHAPES, ROUND_STAGES):
        columns = depth * STAGE_COLUMNS
        if columns % step_columns or (tiled and span_columns % columns):
            continue
        if work.band_rows < rows and work.band_rows % (GROUP_ROWS * warpgroups):
            continue
        unit = span_columns // columns if tiled else 1
        tiles = panels * _sets(rows, work, warpgroups)
        most = resident * machine.sm_count
        for grid in {most, tiles} if panels == 1 and tiles < most else {most}:
            stages = min(
                MAX_STAGES, RING_BYTES // resident // (2 * variant.sizes["m"] * STAGE_COLUMNS * QUAD)
            )
            if stages < MIN_STAGES:
                continue
            shape = _Shape(warpgroups, resident, grid, unit, depth, stages)
            tile = _tile(rows, variant, work, machine, shape, panels)
            if _fits(tile, machine) and spare_warpgroup_registers(tile, work) >= 0:
                yield tile


@dataclass(frozen=True)
class _Shape:
    warpgroups: int
    resident: int
    blocks: int
    part_unit: int
    round_stages: int
    stages: int


def _sets(rows: int, work: Workload, warpgroups: int) -> int:
    return -(-rows // work.band_rows) * -(-work.band_rows // (GROUP_ROWS * warpgroups))


def _panel_group(machine: TimedMachine, panels: int, panel_bytes: int) -> int:
    """Panels that take turns with a set of rows: a power of two of them, whose x stays in L2 while codes go by."""
    fitting = max(1, min(panels, machine.l2_bytes // GROUP_L2_SHARE // panel_bytes))
    return 1 << fitting.bit_length() - 1


def _fits(tile: WarpgroupTile, machine: TimedMachine) -> bool:
    shared = tile.shared_bytes + machine.shared_bytes_reserved
    return (
        tile.shared_bytes <= machine.shared_bytes_per_block
        and tile.resident * shared <= machine.shared_bytes_per_sm
        and tile.sum_bytes <= MAX_PART_BYTES
        and tile.input_bytes <= MAX_INPUT_BYTES
        and tile.sets * tile.panels <= MAX_GRID
        and 32 * tile.warps <= machine.threads_per_block
    )


def spare_warpgroup_registers(tile: WarpgroupTile, work: Workload) -> int:
    """Registers that a thread that multiplies has beside those it needs, roughly."""
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    sums = tile.batch  # two multiplies of 64 rows, half a row of x each
    steps = tile.round_stages * STAGE_COLUMNS // (layout.step_vectors * work.vector_size)
    codes = 2 * 4 * steps * layout.step_words
    return (tile.multiplying_registers or tile.register_cap) - (
        BASE_REGISTERS + WEIGHT_REGISTERS + sums + codes
    )


def _registers(machine: TimedMachine, groups: int, resident: int) -> tuple[int, int]:
    """Registers of a thread of `groups` warpgroups and one that helps, of `resident` blocks of an SM.

    At the launch, and of those that multiply once that one has given its own; 0 if none need be given.
    """

    def whole(registers: int) -> int:
        return registers // REGISTER_STEP * REGISTER_STEP

    launched = whole(machine.registers_per_block // (resident * WARPS * LANES * (groups + 1)))
    taken = min(whole((launched * (groups + 1) - HELPING_REGISTERS) // groups), MOST_REGISTERS)
    if taken <= launched:  # there are enough for all
        return min(launched, machine.registers_per_thread), 0
    return launched, taken


def _tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, shape: _Shape, panels: int
) -> WarpgroupTile:
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    bands = -(-rows // work.band_rows)
    quad_tiles = layout.QUAD if work.column_tiles > 1 else 1
    copies, book_buffers, book_bytes = books_of(work, quad_tiles, several=work.column_tiles * bands > 1)
    rounds = -(-layout.lane_vectors * work.vector_size // (shape.round_stages * STAGE_COLUMNS))
    columns = rounds * shape.round_stages * STAGE_COLUMNS * QUAD
    added = variant.dtype == "float16" and work.stages > 1
    extra = (work.stages - 1) * FLOAT16_ROUNDING * (3 if work.stage_sums > 1 else 1) if added else 0
    products = columns * (1 if added else work.stages)
    sets = _sets(rows, work, shape.warpgroups)
    splits = panels > 1 or sets % shape.blocks != 0
    launched, taken = _registers(machine, shape.warpgroups, shape.resident)
    parts = -(-rounds // shape.part_unit) if splits else 1
    return WarpgroupTile(
        batch=variant.sizes["m"],
        dtype=variant.dtype,
        **{name: getattr(shape, name) for name in _Shape.__dataclass_fields__},
        splits=splits,
        sets=sets,
        panels=panels,
        panel_group=_panel_group(machine, panels, columns * 2 * variant.sizes["m"]),
        rounds=rounds,
        copies=copies,
        quad_tiles=quad_tiles,
        book_buffers=book_buffers,
        book_bytes=book_bytes,
        # Of any kernel of a library: each warp of a tile that blocks share has a counter.
        arrivals=machine.sm_count * WARPS * MAX_GROUPS + INPUT_COUNTERS + MAX_ROWS // WARPGROUP_ROWS[0],
        input_counters=machine.sm_count * WARPS * MAX_GROUPS,
        register_cap=launched,
        multiplying_registers=taken,
        roundings=ROUNDINGS_PER_PRODUCT * products + parts + work.stage_sums + extra,
    )


def count_warpgroup_cycles(tile: WarpgroupTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch by its phases: those of the SM that has most to do."""
    busy = _stage_cycles(tile, work, machine)
    stage = OVERLAP * tile.resident * sum(each**POWER for each in busy.values()) ** (1 / POWER)
    whole, shared = divmod(tile.sets * tile.panels, tile.blocks)
    units = whole * tile.units + -(-shared * tile.units // tile.blocks)
    stages = units * tile.part_unit * tile.round_stages
    lines = 4 * tile.rows_per_block * tile.batch / WAVEFRONT_BYTES * tile.resident
    # A block has two parts, of which others are added up to one, or begins and ends with one.
    parts = (2 + 2) * PART_CYCLES * lines + 2 * END_CYCLES if shared else 0
    return {
        "start": START_CYCLES + 2 * tile.resident * tile.book_bytes / WAVEFRONT_BYTES,
        "stages": stages * stage,
        "parts": parts,
        "end": max(1, whole) * (END_CYCLES + OUTPUT_CYCLES * lines / 2),
    }


def _stage_cycles(tile: WarpgroupTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """What a stage of a block keeps busy."""
    rows, batch = tile.rows_per_block, tile.batch
    columns = STAGE_COLUMNS * QUAD
    codes = rows * columns / work.vector_size * work.stages / LANES
    lookups = codes * (2 if work.entry_operations else 1)
    entry = 4 * work.entry_words * LANES / WAVEFRONT_BYTES
    if tile.copies == 1:
        entry *= CONFLICTS
    operand = rows / 64 * batch * columns * 2 / WAVEFRONT_BYTES  # read by each multiply of 64 rows
    multiplies = rows / 16 * batch / 8 * columns / 16
    if tile.dtype != "float16":  # stages are multiplied one after the other
        multiplies *= work.stages
    loads = batch * columns * 2 / WAVEFRONT_BYTES
    instructions = lookups * 2 + codes * work.entry_operations + codes * work.entry_words * 2
    bits = work.code_bits * work.stages / work.vector_size
    return {
        "shared": lookups * entry + operand + loads,
        "issue": ALL_INSTRUCTIONS * instructions / machine.sub_partitions,
        "tensor": multiplies * MULTIPLY * machine.multiply_cycles / machine.sub_partitions,
        "dram": rows
        * columns
        * bits
        / 8
        * machine.sm_count
        / machine.dram_bytes_per_cycle
        / tile.panel_group,
        "inputs": batch * columns * 2 / machine.l2_bytes_per_cycle,
        "chain": CHAIN_CYCLES / tile.resident,
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
            f"{tile.blocks}, for {tile.sets * tile.panels} tiles: {tile.rows_per_block} rows of W by {tile.batch} of x",
            "least start + stages * what a stage keeps busy + parts + ends, in cycles of the SM that has most to do",
            {
                "sets_of_rows": tile.sets,
                "panels": tile.panels,
                "blocks_per_sm": tile.resident,
                "units_of_a_tile": tile.units,
                **{f"{name}_cycles": round(value) for name, value in cycles.items()},
            },
            "each decoded weight serves all of a block's rows of x",
            "",
            tuple(
                Rejected(
                    f"{other.rows_per_block} rows by {other.batch}, {other.blocks} blocks, {other.stages} stages",
                    f"{sum(count_warpgroup_cycles(other, work, machine).values()):.0f} cycles, not {least:.0f}",
                )
                for other in candidates[1:4]
            ),
        ),
    )
