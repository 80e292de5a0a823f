"""The tile of gemm by weights that are decoded to memory once: its ring of pieces, its stages, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.code_layouts import FragmentLayout
from vqcc.ops.gemm.warpgroup_tile import (
    INPUT_COUNTERS,
    MAX_INPUT_BYTES,
    MAX_ROWS,
)
from vqcc.ops.gemv.fragment_cycles import CONFLICTS
from vqcc.ops.gemv.fragment_tile import ROUNDINGS_PER_PRODUCT
from vqcc.ops.linear.tile import counter_bytes
from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant, Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vqcc.ops.base import Dtype, TimedMachine, Variant, Workload

__all__ = ["DenseTile", "count_dense_cycles", "every_dense_tile", "explain_dense_tile"]

#: A tile of y: rows of W, which are a piece, times rows of x; and the columns of a stage (device/gemm/dense_work.cuh).
PIECE_ROWS, PANEL_ROWS, STAGE_COLUMNS = 256, 128, 64
#: Warps of a block: one that loads, three that decode, two warpgroups that multiply; what the launch gives a thread.
WARPS, REGISTERS = 12, 168
#: Of the first four those that decode; the first one loads.
DECODING_WARPS = 3
#: Bytes of a stage, and what stages are aligned to in shared memory.
STAGE_BYTES, ALIGNMENT = (PIECE_ROWS + PANEL_ROWS) * STAGE_COLUMNS * 2, 1024
#: Of what hands stages on, and of each row's scale and bias for both warpgroups that multiply.
CONTROL_BYTES, TERM_BYTES = 256, 2 * PIECE_ROWS * 8
#: Counters of tiles, units and blocks, and beside those of x two of each piece.
OWN_COUNTERS, PIECE_COUNTERS = 3, 2
#: Stages in shared memory, as many as fit. With fewer no copy is far enough ahead.
STAGES = (4, 3)
#: Columns of a unit, about: few enough that all SMs have as much to decode at any time, so that tiles take equally long
#: and those that share x stay together; where a unit brings its own books, enough that these cost little.
UNIT_COLUMNS, TILED_UNIT_COLUMNS = 64, 512
#: Blocks begin together, where that costs no more than so much of a tile.
TOGETHER = 0.25
#: Pieces in the workspace beside those that are multiplied at a time: ahead, and one that ends while others begin.
SPARE_PIECES = 3
#: The most memory for them.
MAX_RING_BYTES = 2**28
#: A weight that is rounded to a type, in roundings of fp32.
WEIGHT_ROUNDINGS: Mapping[Dtype, int] = {"float16": 2**13, "bfloat16": 2**16}
#: A multiply of m16n8k16 as part of a warpgroup's, relative to a warp's own, stages' waits included: fitted to one
#: kernel of an H200 (docs/performance.md).
MULTIPLY = 0.95
#: Until the first stage is there, and at the end of a tile, while nothing is multiplied.
START_CYCLES, END_CYCLES = 3000, 2000
#: Of a look-up of a warp, beside wavefronts: latency that few warps hide but for this; and of each line that a store of
#: decoded weights touches.
LOOKUP_CYCLES, LINE_CYCLES = 80, 7.5
#: More than that where books are in global memory: shared memory leaves next to nothing of L1.
GLOBAL_CYCLES = 280
#: Of the time of decoding what is felt beside multiplies: both read shared memory, and draw power.
FELT = 0.3
LANES, WAVEFRONT_BYTES, STORE_COLUMNS = 32, 128, 8


@dataclass(frozen=True)
class DenseTile:
    """Blocks take tiles of PIECE_ROWS rows of W times PANEL_ROWS of x; `pieces` times `panels` of them at most.

    A piece has `piece_stages` stages and is decoded in units of `unit_steps` steps, `piece_units` of them, by
    `decoding_warps` of a block. The first `first_pieces` are there before any is multiplied; `ring` of them have room
    in the workspace, `stages` stages in shared memory. With `shared_books` the `book_bytes` of `quad_tiles` column
    tiles are there too. If weights are `rounded`, they are no entries. `arrivals`, `register_cap` and `roundings` are
    as in LinearTile.
    """

    dtype: Dtype
    panels: int
    pieces: int
    piece_stages: int
    piece_units: int
    unit_steps: int
    ring: int
    decoding_warps: int
    stages: int
    quad_tiles: int
    shared_books: bool
    book_bytes: int
    rounded: bool
    arrivals: int
    register_cap: int
    roundings: int
    first_pieces: int = 0

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return WARPS

    @property
    def batch(self) -> int:
        """Rows of x of a panel."""
        return PANEL_ROWS

    @property
    def blocks(self) -> int:
        """Tiles of y."""
        return self.pieces * self.panels

    @property
    def one_item_per_block(self) -> bool:
        """Blocks stay and take tiles in turn."""
        return False

    @property
    def panel_rows(self) -> int:
        """0: blocks take tiles of whatever rows of x there are."""
        return 0

    @property
    def piece_bytes(self) -> int:
        """A decoded piece."""
        return self.piece_stages * PIECE_ROWS * STAGE_COLUMNS * 2

    @property
    def shared_bytes(self) -> int:
        """Stages, what hands them on, scales and biases, and books if they are there."""
        books = self.book_bytes if self.shared_books else 0
        return round_up(ALIGNMENT + self.stages * STAGE_BYTES + CONTROL_BYTES + TERM_BYTES + books, 128)

    @property
    def input_bytes(self) -> int:
        """Device memory of x as operand A takes it."""
        return self.panels * self.piece_stages * PANEL_ROWS * STAGE_COLUMNS * 2

    @property
    def workspace_bytes(self) -> int:
        """Counters, decoded pieces, and x."""
        return counter_bytes(self.arrivals) + self.ring * self.piece_bytes + self.input_bytes

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant("int", "kPanels", self.panels, "of 128 rows of x, at most"),
            Constant("int", "kStages", self.stages, "of 64 columns, on their way or being multiplied"),
            Constant("int", "kFirstPieces", self.first_pieces, "that are decoded before any is multiplied"),
            Constant("int", "kRing", self.ring, "decoded pieces of 256 rows of W that have room"),
            Constant("int", "kDecodingWarps", self.decoding_warps, "of the first four; the first one loads"),
            Constant("int", "kUnitSteps", self.unit_steps, "steps along k that are decoded at a time"),
            Constant("int", "kQuadTiles", self.quad_tiles, "column tiles that the lanes of a quad decode"),
            Constant("bool", "kSharedBooks", self.shared_books, "whether books are in shared memory"),
            Constant("bool", "kRounds", self.rounded, "whether decoded weights are rounded to x's type"),
            Constant("int", "kArrivals", self.arrivals, "counters before the pieces in the workspace"),
            Constant(
                "int", "kOwnSharedBytes", self.shared_bytes, "of a block: stages, terms of outputs, books"
            ),
        )


def every_dense_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[DenseTile]:
    """Tiles that fit W of `rows` rows."""
    threads = LANES * WARPS
    if threads > machine.threads_per_block or threads * REGISTERS > machine.registers_per_block:
        return
    for stages in STAGES:
        for shared_books in (True, False):
            tile = _tile(rows, variant, work, machine, stages, shared_books=shared_books)
            if _fits(tile, machine):
                yield replace(tile, first_pieces=_first_pieces(tile, work, machine))


def _fits(tile: DenseTile, machine: TimedMachine) -> bool:
    return (
        tile.ring > 0
        and tile.input_bytes <= MAX_INPUT_BYTES
        and tile.shared_bytes <= machine.shared_bytes_per_block
    )


def _tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, stages: int, *, shared_books: bool
) -> DenseTile:
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    bands = -(-rows // work.band_rows)
    pieces = bands * -(-work.band_rows // PIECE_ROWS)
    panels = -(-variant.sizes["m"] // PANEL_ROWS)
    piece_stages = -(-layout.vectors * work.vector_size // STAGE_COLUMNS)
    step_columns = layout.step_vectors * work.vector_size
    tiled = work.column_tiles > 1
    turn = max(step_columns, layout.span_vectors * work.vector_size)
    quads = layout.QUAD * turn
    steps = -(-piece_stages * STAGE_COLUMNS // quads) * (turn // step_columns)
    unit_columns = TILED_UNIT_COLUMNS if tiled else UNIT_COLUMNS
    unit_steps = max(1, min(steps, unit_columns // (layout.QUAD * step_columns)))
    while tiled and turn // step_columns % unit_steps:
        unit_steps -= 1
    quad_tiles = layout.QUAD if tiled else 1
    piece_bytes = piece_stages * PIECE_ROWS * STAGE_COLUMNS * 2
    wanted = -(-machine.sm_count // panels) + SPARE_PIECES
    columns = piece_stages * STAGE_COLUMNS
    return DenseTile(
        dtype=variant.dtype,
        panels=panels,
        pieces=pieces,
        piece_stages=piece_stages,
        piece_units=-(-steps // unit_steps),
        unit_steps=unit_steps,
        ring=min(pieces, wanted, MAX_RING_BYTES // piece_bytes),
        decoding_warps=DECODING_WARPS,
        stages=stages,
        quad_tiles=quad_tiles,
        shared_books=shared_books,
        book_bytes=round_up(quad_tiles * work.tables * work.table_entries * 4 * work.entry_words, 16),
        rounded=work.rounded,
        arrivals=_counters(bands, work),
        register_cap=REGISTERS,
        roundings=ROUNDINGS_PER_PRODUCT * columns
        + 1
        + (WEIGHT_ROUNDINGS[variant.dtype] if work.rounded else 0),
    )


def _counters(bands: int, work: Workload) -> int:
    """Of turns, of x, and of pieces; other kernels of a library may need more (ops/gemm/panels.counters_of)."""
    pieces = bands * -(-work.band_rows // PIECE_ROWS)
    return OWN_COUNTERS + INPUT_COUNTERS + MAX_ROWS // PANEL_ROWS + PIECE_COUNTERS * pieces


def _first_pieces(tile: DenseTile, work: Workload, machine: TimedMachine) -> int:
    """Pieces of the tiles that all blocks have first, if it is worth it to wait for them; else none."""
    worth = _ahead_cycles(tile, work, machine) <= TOGETHER * tile.piece_stages * _stage_cycles(machine)
    return min(_pieces_at_a_time(tile, machine), tile.ring) if worth else 0


def _pieces_at_a_time(tile: DenseTile, machine: TimedMachine) -> int:
    return min(tile.pieces, -(-machine.sm_count // tile.panels))


def _ahead_cycles(tile: DenseTile, work: Workload, machine: TimedMachine) -> float:
    """Cycles until the first tiles' pieces are there: nothing is multiplied before."""
    units = _pieces_at_a_time(tile, machine) * tile.piece_units
    return -(-units // machine.sm_count) * _unit_cycles(tile, work)


def _stage_cycles(machine: TimedMachine) -> float:
    multiplies = PIECE_ROWS / 8 * PANEL_ROWS / 16 * STAGE_COLUMNS / 16
    return max(
        multiplies * MULTIPLY * machine.multiply_cycles / machine.sub_partitions,
        STAGE_BYTES / machine.l2_bytes_per_cycle,
    )


def count_dense_cycles(tile: DenseTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch by its phases: those of the SM that has most tiles; decoding goes on meanwhile."""
    rounds = -(-tile.blocks // machine.sm_count)
    multiplied = rounds * (tile.piece_stages * _stage_cycles(machine) + END_CYCLES)
    unit = _unit_cycles(tile, work)
    units = tile.pieces * tile.piece_units
    ahead = _ahead_cycles(tile, work, machine)
    decoded = -(-units // machine.sm_count) * unit - ahead
    arranged = 2 * tile.input_bytes / machine.dram_bytes_per_cycle  # x, meanwhile
    return {
        "start": START_CYCLES + max(ahead, arranged),
        "stages": multiplied,
        "decode": max(FELT * decoded, decoded - multiplied),
    }


def _unit_cycles(tile: DenseTile, work: Workload) -> float:
    """Cycles that a warpgroup takes to decode a unit."""
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    vectors = PIECE_ROWS * layout.QUAD * tile.unit_steps * layout.step_vectors
    codes = vectors * work.stages / LANES / tile.decoding_warps
    entry = CONFLICTS * 4 * work.entry_words * LANES / WAVEFRONT_BYTES
    lookup = LOOKUP_CYCLES + entry + work.entry_operations
    if not tile.shared_books:
        lookup += GLOBAL_CYCLES
    # A store has 16 bytes of each lane, of eight rows: lanes of a quad have neighbouring ones or lines of their own.
    lines = LANES if layout.span_vectors * work.vector_size >= STAGE_COLUMNS else LANES // layout.QUAD
    lookup += LINE_CYCLES * lines * work.vector_size / (STORE_COLUMNS * work.stages)
    return codes * (lookup + (2 * work.vector_size if tile.rounded else 0))


def explain_dense_tile(
    candidates: Sequence[DenseTile], work: Workload, machine: TimedMachine
) -> tuple[Decision, ...]:
    """Why the first of some tiles is taken."""
    tile = candidates[0]
    cycles = count_dense_cycles(tile, work, machine)
    least = sum(cycles.values())
    return (
        Decision(
            "tiles",
            f"{tile.blocks} of {PIECE_ROWS} rows of W and {PANEL_ROWS} of x",
            "least start + rounds * stages at the rate of the tensor cores + what decoding takes longer, in cycles",
            {
                "pieces": tile.pieces,
                "panels": tile.panels,
                "stages_of_tile": tile.piece_stages,
                "ring_pieces": tile.ring,
                "ring_bytes": tile.ring * tile.piece_bytes,
                **{f"{name}_cycles": round(value) for name, value in cycles.items()},
            },
            "weights are decoded once, a few pieces ahead of those that multiply them, and read from L2",
            "",
            tuple(
                Rejected(
                    f"{other.stages} stages, books in {'shared' if other.shared_books else 'global'} memory",
                    f"{sum(count_dense_cycles(other, work, machine).values()):.0f} cycles, not {least:.0f}",
                )
                for other in candidates[1:4]
            ),
        ),
    )
