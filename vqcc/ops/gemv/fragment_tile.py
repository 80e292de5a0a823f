"""Tiles for gemv over codes in the order of fragments: what warps and blocks decode, and in which visits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vqcc.code_layouts import FragmentLayout
from vqcc.ops.gemv.fragment_cycles import FEW_ROWS, Counts, VisitShape, count_phases
from vqcc.ops.linear.tile import TILE_ROWS, activation_alignment, panel_constants, workspace_bytes
from vqcc.ops.tiles import ELEMENT_TYPES, power_of_two_at_least, round_up
from vqcc.plan import Constant, Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.ops.base import Dtype, TimedMachine, Variant, Workload

__all__ = [
    "ROUNDINGS_PER_PRODUCT",
    "SUM_PADDING",
    "FragmentTile",
    "books_of",
    "count_fragment_cycles",
    "count_visit",
    "every_fragment_tile",
    "explain_fragment_tile",
    "spare_registers",
]

#: Bytes of all banks of shared memory; entries of 256 bytes are told apart by a byte.
BANK_BYTES, BYTE_ENTRIES = 128, 256
#: Warps of a block, and the registers that they leave a thread.
BLOCKS = ((16, 128), (8, 255), (4, 255), (2, 255))
#: Registers of a thread beside its sums and codes: x and weights on their way, addresses, loop state.
BASE_REGISTERS = 56
#: The most steps of a visit, along each warp of a row.
MAX_TURNS = 32
#: The tensor cores' fp32 sums are not rounded to nearest after each product but cut: a bit or two more each.
ROUNDINGS_PER_PRODUCT = 4
#: Floats between a warp's sums of one row of x and of the next: eight lanes of a store then meet different banks.
SUM_PADDING = 8


@dataclass(frozen=True)
class FragmentTile:
    """A block has `warps_across_rows` * 32 * `row_blocks` rows and works on them in visits of `visit_steps` steps.

    `sets` of rows have `visits` each; `blocks` blocks take all of them in order, so that up to `max_parts` blocks share
    a set. `input_rows` rows of x are kept for a visit, and books with `copies` of each entry, of `quad_tiles` column
    tiles next to each other. `arrivals`, `register_cap`, `roundings` and `panels` are as in LinearTile.
    """

    batch: int
    dtype: Dtype
    input_rows: int
    row_blocks: int
    warps_across_rows: int
    warps_along_row: int
    visit_steps: int
    ahead: int
    sets: int
    visits: int
    blocks: int
    copies: int
    quad_tiles: int
    book_buffers: int
    book_bytes: int
    visit_input_bytes: int
    activation_alignment: int
    arrivals: int
    register_cap: int
    roundings: int
    panels: int = 1

    @property
    def panel_rows(self) -> int:
        """Rows of x of each panel; 0 if one serves all."""
        return self.batch if self.panels > 1 else 0

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.warps_across_rows * self.warps_along_row

    @property
    def one_item_per_block(self) -> bool:
        """Every block has its share of the visits."""
        return True

    @property
    def rows_per_block(self) -> int:
        """Rows of a set."""
        return FragmentLayout.BLOCK_ROWS * self.row_blocks * self.warps_across_rows

    @property
    def visits_per_block(self) -> int:
        """Visits of a block, at most."""
        return -(-self.sets * self.visits // self.blocks)

    @property
    def input_buffers(self) -> int:
        """Two where x of the next visit arrives while this one's is multiplied."""
        return 1 if self.visits_per_block == 1 else 2

    @property
    def max_parts(self) -> int:
        """Blocks that share a set of rows, at most."""
        return _max_parts(self.sets, self.visits, self.blocks)

    @property
    def outputs_per_set(self) -> int:
        """Sums of a set of rows."""
        return self.rows_per_block * self.batch

    @property
    def shared_bytes(self) -> int:
        """Books, x of the visits under way, sums of warps, and a flag."""
        inputs = self.input_buffers * self.visit_input_bytes
        padding = SUM_PADDING * self.batch if self.batch > 1 else 0
        sums = self.warps_along_row * (self.outputs_per_set + padding)
        return round_up(self.book_bytes + inputs + 4 * sums + 16, 128)

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which blocks that share rows add up: arrivals, then sums; 0 if none do."""
        return workspace_bytes(
            self.max_parts, self.arrivals, self.sets * self.max_parts * self.outputs_per_set
        )

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("int", "kBatch", self.batch, "rows of x served by one pass over the weights"),
            *panel_constants(self.panels),
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant(
                "int",
                "kInputRows",
                self.input_rows,
                "rows of x in operands: less than 5, or whole tiles of 16",
            ),
            Constant("int", "kRowBlocks", self.row_blocks, "blocks of 32 rows that a warp has"),
            Constant("int", "kWarpsAcrossRows", self.warps_across_rows, "warps with rows of their own"),
            Constant("int", "kWarpsAlongRow", self.warps_along_row, "warps that take a row's steps in turn"),
            Constant("int", "kVisitSteps", self.visit_steps, "steps whose x and books are present at once"),
            Constant("int", "kAhead", self.ahead, "steps whose codes are on their way"),
            Constant("int", "kBlocks", self.blocks, "blocks that share all visits, in order"),
            Constant("int", "kMaxParts", self.max_parts, "blocks that share a set of rows, at most"),
            Constant("int", "kArrivals", self.arrivals, "counters before the sums in the workspace"),
            Constant("int", "kCopies", self.copies, "copies of an entry, for lanes to look up in turn"),
            Constant("int", "kQuadTiles", self.quad_tiles, "column tiles that the lanes of a quad decode"),
            Constant(
                "int", "kBookBuffers", self.book_buffers, "with two, the next visit's books arrive ahead"
            ),
            Constant(
                "int", "kInputBuffers", self.input_buffers, "of x: with two, the next visit's arrives ahead"
            ),
            Constant(
                "int",
                "kSumPadding",
                SUM_PADDING,
                "floats between a warp's sums of one row of x and the next's",
            ),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "of a block: books, x, sums"),
        )


@lru_cache(maxsize=4096)
def _max_parts(sets: int, visits: int, blocks: int) -> int:
    """Blocks that share a set, at most, where each set has so many visits and blocks take all of them in order."""
    few, more = divmod(sets * visits, blocks)

    def block_of(visit: int) -> int:
        long = more * (few + 1)
        return visit // (few + 1) if visit < long else more + (visit - long) // few

    firsts = range(0, sets * visits, visits)
    return max(block_of(first + visits - 1) - block_of(first) + 1 for first in firsts)


def count_fragment_cycles(tile: FragmentTile, work: Workload, machine: TimedMachine) -> dict[str, float]:
    """Cycles of a launch by its phases: those of the SM that has most blocks, one after the other."""
    phases = count_phases(
        count_visit(tile, work),
        machine,
        blocks=tile.blocks,
        visits=tile.visits_per_block,
        parts=tile.max_parts,
        ends=-(-tile.sets // tile.blocks),
    )
    rounds = -(-tile.blocks * tile.panels // machine.sm_count)
    return {name: rounds * cycles for name, cycles in phases.items()}


def count_visit(tile: FragmentTile, work: Workload) -> Counts:
    """What a block does in one visit."""
    shape = VisitShape(
        rows=tile.rows_per_block,
        steps=tile.visit_steps,
        row_blocks=tile.row_blocks,
        along=tile.warps_along_row,
        ahead=tile.ahead,
        input_rows=tile.input_rows,
        copies=tile.copies,
        batch=tile.batch,
    )
    assert isinstance(work.layout, FragmentLayout)
    return Counts.of_visit(work, work.layout, shape)


def spare_registers(tile: FragmentTile, work: Workload) -> int:
    """Registers that the cap leaves a thread beside those it needs, roughly."""
    assert isinstance(work.layout, FragmentLayout)
    groups = 4 * tile.row_blocks
    codes = (tile.ahead + 1) * groups * work.layout.step_words
    tiles = max(1, tile.input_rows // TILE_ROWS)
    # A multiply's registers of x, of all vectors of a unit, for the tiles beyond the first.
    more_inputs = 4 * (tiles - 1) * max(1, work.vector_size // 4)
    return tile.register_cap - (BASE_REGISTERS + 4 * groups * work.stage_sums * tiles + codes + more_inputs)


def every_fragment_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine, panels: int = 1
) -> Iterator[FragmentTile]:
    """Tiles that fit W of `rows` rows, in no order; `variant` has the rows of x of one of `panels` panels."""
    for warps, cap in BLOCKS:
        if 32 * warps > machine.threads_per_block:
            continue
        for row_blocks in (2, 1):
            for across in (2**i for i in range(warps.bit_length()) if 2**i <= warps):
                if not _fits_band(rows, work, row_blocks * across):
                    continue
                for ahead in (2, 1):
                    shape = (
                        row_blocks,
                        across,
                        warps // across,
                        ahead,
                        min(cap, machine.registers_per_thread),
                    )
                    for visit_steps in _visit_steps(work, warps // across, ahead):
                        tile = _tile(rows, variant, work, machine, shape, visit_steps, panels)
                        if (
                            tile.shared_bytes <= machine.shared_bytes_per_block
                            and spare_registers(tile, work) >= 0
                        ):
                            yield tile


def _fits_band(rows: int, work: Workload, blocks: int) -> bool:
    """Whether a set of rows is no longer than a band of codebook tiles, or than the matrix by half."""
    rows_per_block = FragmentLayout.BLOCK_ROWS * blocks
    if work.band_rows < rows:
        return work.band_rows % rows_per_block == 0
    return rows_per_block < 2 * rows or blocks == 1


def _visit_steps(work: Workload, along: int, ahead: int) -> Iterator[int]:
    """Steps of a visit: those of a column tile, or as many as divide the row well."""
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    if work.column_tiles > 1:
        steps = layout.span_vectors // layout.step_vectors
        if steps % (along * ahead) == 0:
            yield steps
        return
    seen = set()
    unit = along * ahead
    while unit * layout.step_vectors % layout.span_vectors:
        unit *= 2
    for turns in range(1, MAX_TURNS // ahead + 1):
        visits = -(-layout.steps // (turns * unit))
        steps = round_up(-(-layout.steps // visits), unit)
        if steps not in seen:
            seen.add(steps)
            yield steps


def _tile(
    rows: int,
    variant: Variant,
    work: Workload,
    machine: TimedMachine,
    shape: tuple[int, int, int, int, int],
    visit_steps: int,
    panels: int,
) -> FragmentTile:
    layout = work.layout
    assert isinstance(layout, FragmentLayout)
    row_blocks, across, along, ahead, cap = shape
    batch = variant.sizes["m"]
    input_rows = power_of_two_at_least(batch) if batch <= FEW_ROWS else round_up(batch, TILE_ROWS)
    rows_per_block = layout.BLOCK_ROWS * row_blocks * across
    bands = -(-rows // work.band_rows)
    sets = bands * -(-work.band_rows // rows_per_block)
    visits = -(-layout.steps // visit_steps)
    quad_tiles = layout.QUAD if work.column_tiles > 1 else 1
    copies, book_buffers, book_bytes = books_of(work, quad_tiles, several=bands * work.column_tiles > 1)
    step_columns = layout.step_vectors * work.vector_size
    inputs = visit_steps * step_columns * layout.QUAD * input_rows * 2
    # Blocks of several panels follow one another on an SM, and none shares rows: panels have no counters of their own.
    blocks = min(machine.sm_count, sets * visits) if panels == 1 else sets
    products = visits * visit_steps // along * step_columns * layout.QUAD * work.stages
    return FragmentTile(
        batch=batch,
        dtype=variant.dtype,
        input_rows=input_rows,
        row_blocks=row_blocks,
        warps_across_rows=across,
        warps_along_row=along,
        visit_steps=visit_steps,
        ahead=ahead,
        sets=sets,
        visits=visits,
        blocks=blocks,
        copies=copies,
        quad_tiles=quad_tiles,
        book_buffers=book_buffers,
        book_bytes=book_bytes,
        visit_input_bytes=inputs,
        activation_alignment=activation_alignment(work.vector_size),
        arrivals=rows,
        register_cap=cap,
        roundings=ROUNDINGS_PER_PRODUCT * products + along + min(visits, blocks) + work.stage_sums,
        panels=panels,
    )


def books_of(work: Workload, quad_tiles: int, *, several: bool) -> tuple[int, int, int]:
    """Copies of an entry, buffers, and bytes in all, of books that lie as device/book_copies.cuh has them."""
    entry_bytes = 4 * work.entry_words
    copies = max(1, BANK_BYTES // (entry_bytes * quad_tiles))
    buffers = 2 if several else 1
    if work.table_entries == BYTE_ENTRIES and work.code_bits % 8 == 0:
        tables = -(-work.tables * buffers // 2) * 2 * BANK_BYTES * BYTE_ENTRIES
    else:
        # Copies of long tables take more than they spare.
        copies = copies if work.table_entries <= BYTE_ENTRIES else 1
        tables = work.tables * buffers * work.table_entries * copies * quad_tiles * entry_bytes
    pieces = work.tables * work.table_entries * quad_tiles * entry_bytes
    return copies, buffers, tables + (pieces if copies * quad_tiles > 1 else 0)


def explain_fragment_tile(
    candidates: Sequence[FragmentTile], work: Workload, machine: TimedMachine
) -> tuple[Decision, ...]:
    """Why the first of some tiles is taken: its visits, and which operand the weights are."""
    tile = candidates[0]
    cycles = count_fragment_cycles(tile, work, machine)
    least = sum(cycles.values())
    return (
        Decision(
            "visits",
            f"{tile.sets * tile.visits}, at most {tile.visits_per_block} a block",
            "least start + visits * what a visit keeps busy + sum of the parts, in cycles",
            {
                "sets_of_rows": tile.sets,
                "rows_per_block": tile.rows_per_block,
                "visit_steps": tile.visit_steps,
                "warps_across_rows": tile.warps_across_rows,
                "warps_along_row": tile.warps_along_row,
                "max_parts": tile.max_parts,
                **{f"{name}_cycles": round(value) for name, value in cycles.items()},
            },
            "x and books of the next visit arrive while this one's are multiplied; blocks take visits in order",
            "",
            tuple(
                Rejected(
                    f"{other.rows_per_block} rows by {other.visit_steps} steps, {other.warps_across_rows} x "
                    f"{other.warps_along_row} warps",
                    f"{sum(count_fragment_cycles(other, work, machine).values()):.0f} cycles in all, not {least:.0f}",
                )
                for other in candidates[1:4]
            ),
        ),
        Decision(
            "operands",
            "weights A, x B" if tile.input_rows <= FEW_ROWS else "x A, weights B",
            f"weights are operand A for up to {FEW_ROWS} rows of x",
            {"m": tile.batch, "input_rows": tile.input_rows},
            "either way entries go into the registers that they are looked up into",
        ),
    )
