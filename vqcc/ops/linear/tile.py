"""What a warp and a block of the gemv kernel work on, and how to choose it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant, Decision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.ops.base import Dtype, Machine, Variant, Workload

__all__ = [
    "TILE_ROWS",
    "LinearTile",
    "PanelTile",
    "Shape",
    "activation_alignment",
    "dealt_parts",
    "make_tile",
    "panel_constants",
]

#: Rows of x that one multiply takes as operand A (PTX ISA, mma.m16n8k16).
TILE_ROWS = 16


@dataclass(frozen=True)
class LinearTile:
    """A warp owns `rows_per_warp` rows; `warps_along_row` warps share them and split their columns.

    Its threads have `register_cap` registers. `row_blocks` blocks of rows times `parts` of each row are the work; no
    tile of the problem has more row blocks than `arrivals`. `roundings` bounds those of an fp32 sum on its way to an
    output. `scratch_bytes` of shared memory per warp serve exchanges. Up to `panels` panels of `batch` rows of x have
    blocks of their own; of several, a row has one part.
    """

    batch: int
    dtype: Dtype
    rows_per_warp: int
    warps_across_rows: int
    warps_along_row: int
    unroll: int
    activation_alignment: int
    row_blocks: int
    arrivals: int
    parts: int
    register_cap: int
    roundings: int
    scratch_bytes: int = 0
    panels: int = 1

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.warps_across_rows * self.warps_along_row

    @property
    def blocks(self) -> int:
        """Items of the problem: blocks past these have nothing to do."""
        return self.row_blocks * self.parts

    @property
    def one_item_per_block(self) -> bool:
        """Blocks stay, and walk consecutive items."""
        return False

    @property
    def rows_per_block(self) -> int:
        """Rows of W that one block finishes at a time."""
        return self.rows_per_warp * self.warps_across_rows

    @property
    def shared_bytes(self) -> int:
        """Shared memory beside the codebooks: sums through which warps that share rows add up, and scratch."""
        sums = round_up(self.warps_along_row * self.rows_per_block * self.batch * 4, 16)
        return round_up(sums + self.warps * self.scratch_bytes, 128)

    @property
    def panel_rows(self) -> int:
        """Rows of x of each panel; 0 if one serves all."""
        return self.batch if self.panels > 1 else 0

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which blocks that share rows add up: arrivals, then sums; 0 if none do."""
        return workspace_bytes(self.parts, self.arrivals, self.blocks * self.rows_per_block * self.batch)

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`, less where codebooks are."""
        return (
            Constant("int", "kBatch", self.batch, "rows of x served by one pass over the weights"),
            *panel_constants(self.panels),
            Constant("vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant("int", "kActivationAlignment", self.activation_alignment, "bytes, of every vector of x"),
            Constant("int", "kRowsPerWarp", self.rows_per_warp, "rows of W that share loaded activations"),
            Constant("int", "kWarpsAcrossRows", self.warps_across_rows, "warps with rows of their own"),
            Constant("int", "kWarpsAlongRow", self.warps_along_row, "warps that split the columns of a row"),
            Constant("int", "kUnroll", self.unroll, "steps of the inner loop that are unrolled"),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "shared memory before the codebooks"),
        )


@runtime_checkable
class PanelTile(Protocol):
    """A tile of which a launch may have several panels of `batch` rows of x."""

    @property
    def batch(self) -> int:
        """Rows of x of a panel."""
        ...

    @property
    def panels(self) -> int:
        """Panels at the variant's bound."""
        ...


def panel_constants(panels: int) -> tuple[Constant, ...]:
    """How many panels of kBatch rows of x a launch has, if there are several."""
    several = Constant("int", "kPanels", panels, "of kBatch rows of x, at most; each has blocks of its own")
    return (several,) if panels > 1 else ()


def activation_alignment(vector_size: int) -> int:
    """Bytes that x and its row stride must be multiples of: a vector is loaded by whole words."""
    return math.gcd(16, 2 * vector_size)


@dataclass(frozen=True)
class Shape:
    """What is free about a tile."""

    rows_per_warp: int
    warps_across_rows: int
    warps_along_row: int
    unroll: int
    register_cap: int


def make_tile(
    rows: int,
    variant: Variant,
    work: Workload,
    shape: Shape,
    *,
    scratch: int,
    roundings: int,
) -> LinearTile:
    """The tile of `shape` for W of `rows` rows; `scratch` bytes a warp, `roundings` of one warp's sum."""
    rows_per_block = shape.rows_per_warp * shape.warps_across_rows
    return LinearTile(
        batch=variant.sizes["m"],
        dtype=variant.dtype,
        rows_per_warp=shape.rows_per_warp,
        warps_across_rows=shape.warps_across_rows,
        warps_along_row=shape.warps_along_row,
        unroll=shape.unroll,
        activation_alignment=activation_alignment(work.vector_size),
        row_blocks=row_blocks(rows, work.band_rows, rows_per_block),
        arrivals=row_blocks(rows, work.band_rows, 1),
        parts=work.split.factor,
        register_cap=shape.register_cap,
        scratch_bytes=scratch,
        roundings=roundings + shape.warps_along_row + work.split.factor,
    )


def workspace_bytes(parts: int, arrivals: int, sums: int) -> int:
    """Device memory through which `parts` add up: counters of arrivals, then all sums in fp32; 0 for one part."""
    return 0 if parts == 1 else counter_bytes(arrivals) + 4 * sums


def counter_bytes(arrivals: int) -> int:
    """Device memory of counters of arrivals at the head of a workspace; what follows is aligned to 256 bytes."""
    return round_up(4 * arrivals, 256)


def phases(work: Workload) -> int:
    """Times that a part's columns are dealt to the warps anew, since their books are not all present at once.

    Each time a warp may get one visit more than its share.
    """
    return -(-work.column_tiles // work.resident_tiles)


def row_blocks(rows: int, band_rows: int, rows_per_block: int) -> int:
    """Blocks of rows; none crosses from one band of codebook tiles to the next."""
    return -(-rows // band_rows) * -(-band_rows // rows_per_block)


def fill_decision(tile: LinearTile, machine: Machine, formula: str, registers: int) -> Decision:
    """Why a block has the warps it has."""
    return Decision(
        "warps",
        tile.warps,
        formula,
        {
            "registers_estimate": registers,
            "row_blocks": tile.row_blocks,
            "parts": tile.parts,
            "sm_count": machine.sm_count,
        },
        f"as many warps of {tile.register_cap} registers a thread as an SM holds hide latency",
    )


def dealt_parts(row_units: int, most: int, column_units: int, sm_count: int) -> Iterator[tuple[int, int]]:
    """Parts of the rows and of the columns, a block for each pair and at most one an SM.

    Up to `most` parts of the columns, of which each number leaves a block fewer of the `column_units`; as few parts of
    the rows as leave each block the same number of `row_units`.
    """
    longest = None
    for column_parts in range(1, min(most, sm_count) + 1):
        if -(-column_units // column_parts) == longest:
            continue
        longest = -(-column_units // column_parts)
        fitting = min(row_units, sm_count // column_parts)
        yield -(-row_units // -(-row_units // fitting)), column_parts
