"""What a warp and a block of the gemv kernel work on, and how to choose it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.plan import Constant, Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vqcc.algorithms.base import Algorithm
    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Dtype, Variant
    from vqcc.plan import PackedLayout, Placement

__all__ = ["GemvTile", "activation_alignment", "propose_tiles"]

#: Multiply-adds in one unrolled step of the inner loop: past this the code outgrows the instruction cache.
MAX_UNROLLED = 512
#: Registers a thread needs beside its sums, weights and codes: addresses, loop state, activations.
BASE_REGISTERS = 40
#: Warps that keep an SM's memory pipeline busy.
BUSY_WARPS = 16

_ELEMENT_TYPES: Mapping[str, str] = {
    "float16": "vqcc::ElementType::kFloat16",
    "bfloat16": "vqcc::ElementType::kBfloat16",
}


@dataclass(frozen=True)
class GemvTile:
    """A warp owns `rows_per_warp` rows; `warps_along_row` warps share them and split their segments."""

    batch: int
    dtype: Dtype
    rows_per_warp: int
    warps_across_rows: int
    warps_along_row: int
    unroll: int
    activation_alignment: int
    resident_tiles: int
    in_shared: bool
    row_blocks: int

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.warps_across_rows * self.warps_along_row

    @property
    def blocks(self) -> int:
        """Row blocks of the problem: blocks past these have nothing to do."""
        return self.row_blocks

    @property
    def rows_per_block(self) -> int:
        """Rows of W that one block finishes at a time."""
        return self.rows_per_warp * self.warps_across_rows

    @property
    def partial_sum_bytes(self) -> int:
        """Shared memory through which warps that share rows add up; 0 if none do."""
        if self.warps_along_row == 1:
            return 0
        return -(-self.warps * self.rows_per_warp * self.batch * 4 // 16) * 16

    @property
    def shared_bytes(self) -> int:
        """Shared memory beside the codebooks."""
        return self.partial_sum_bytes

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        space = "vqcc::Space::kShared" if self.in_shared else "vqcc::Space::kGlobal"
        return (
            Constant("int", "kBatch", self.batch, "rows of x served by one pass over the weights"),
            Constant("vqcc::ElementType", "kElement", _ELEMENT_TYPES[self.dtype], "type of x, bias and y"),
            Constant("int", "kActivationAlignment", self.activation_alignment, "bytes, of every vector of x"),
            Constant("int", "kRowsPerWarp", self.rows_per_warp, "rows of W that share loaded activations"),
            Constant("int", "kWarpsAcrossRows", self.warps_across_rows, "warps with rows of their own"),
            Constant("int", "kWarpsAlongRow", self.warps_along_row, "warps that split the segments of a row"),
            Constant("int", "kUnroll", self.unroll, "vectors decoded per step of the inner loop"),
            Constant("vqcc::Space", "kBookSpace", space, "where codebook entries are looked up"),
            Constant(
                "int", "kResidentTiles", self.resident_tiles, "column tiles whose books are present at once"
            ),
            Constant("int", "kPartialSumBytes", self.partial_sum_bytes, "shared memory before the codebooks"),
        )


def activation_alignment(vector_size: int) -> int:
    """Bytes that x and its row stride must be multiples of: a vector is loaded by whole words."""
    return math.gcd(16, 2 * vector_size)


@dataclass(frozen=True)
class _Case:
    """What a choice of tile depends on."""

    rows: int
    tile_rows: int
    variant: Variant
    algorithm: Algorithm
    layout: PackedLayout
    gpu: Gpu
    placement: Placement

    @property
    def batch(self) -> int:
        return self.variant.sizes["m"]

    @property
    def resident_book_bytes(self) -> int:
        return self.placement.resident_tiles * self.placement.table_bytes if self.placement.in_shared else 0


def propose_tiles(
    shape: tuple[int, int],
    variant: Variant,
    algorithm: Algorithm,
    layout: PackedLayout,
    gpu: Gpu,
    placement: Placement,
) -> Iterator[tuple[GemvTile, tuple[Decision, ...]]]:
    """Tiles for W of `shape` [n, k], the most promising first; each later one halves the rows of a warp."""
    tile_rows = min(algorithm.scope.tile(*shape)[0], shape[0])
    case = _Case(shape[0], tile_rows, variant, algorithm, layout, gpu, placement)
    rows_per_warp, decision = _rows_per_warp(case)
    while rows_per_warp:
        tile, decisions = _tile(case, rows_per_warp)
        yield tile, (decision, *decisions)
        rows_per_warp //= 2


def _rows_per_warp(case: _Case) -> tuple[int, Decision]:
    """As many rows as keep every SM busy: rows of a warp share activations, but also its registers."""
    wanted = BUSY_WARPS * case.gpu.sm_count.integer
    most = 4 if case.batch > 2 else 2
    rows = 1
    while rows < most and case.rows * case.layout.segments // (2 * rows) >= wanted:
        rows *= 2
    return rows, Decision(
        "rows_per_warp",
        rows,
        f"largest power of two <= {most} with n * segments / rows >= {BUSY_WARPS} warps per SM",
        {
            "n": case.rows,
            "segments": case.layout.segments,
            "m": case.batch,
            "sm_count": case.gpu.sm_count.integer,
        },
        "rows of a warp share each loaded activation; too few warps leave SMs idle",
    )


def _tile(case: _Case, rows_per_warp: int) -> tuple[GemvTile, tuple[Decision, ...]]:
    warps, decision = _warps(case, rows_per_warp)
    along = _power_of_two_at_most(min(warps, case.layout.segments, 4))
    partial_sums = warps * rows_per_warp * case.batch * 4 + 16
    if case.resident_book_bytes + partial_sums > case.gpu.shared_bytes_per_block.integer:
        along = 1
    across = min(warps // along, _power_of_two_at_least(-(-case.tile_rows // rows_per_warp)))
    vector_work = rows_per_warp * case.batch * case.algorithm.vector_size
    budget = max(1, MAX_UNROLLED // vector_work)
    unroll = max(d for d in _divisors(case.layout.chunk_vectors) if d <= budget)
    tile = GemvTile(
        batch=case.batch,
        dtype=case.variant.dtype,
        rows_per_warp=rows_per_warp,
        warps_across_rows=across,
        warps_along_row=along,
        unroll=unroll,
        activation_alignment=activation_alignment(case.algorithm.vector_size),
        resident_tiles=case.placement.resident_tiles,
        in_shared=case.placement.in_shared,
        row_blocks=-(-case.rows // case.tile_rows) * -(-case.tile_rows // (rows_per_warp * across)),
    )
    return tile, (
        decision,
        Decision(
            "warps_along_row",
            along,
            "largest power of two <= min(segments, 4, warps); 1 where shared memory is full of codebooks",
            {"segments": case.layout.segments, "book_bytes": case.resident_book_bytes},
            "more loads in flight for each row; their sums meet in shared memory in a fixed order",
        ),
        Decision(
            "unroll",
            unroll,
            f"largest divisor of chunk_vectors with rows * m * vector_size * unroll <= {MAX_UNROLLED}",
            {"chunk_vectors": case.layout.chunk_vectors, "m": case.batch, "rows_per_warp": rows_per_warp},
            "independent look-ups in flight, without outgrowing the instruction cache",
        ),
    )


def _warps(case: _Case, rows_per_warp: int) -> tuple[int, Decision]:
    gpu, algorithm = case.gpu, case.algorithm
    registers = (
        BASE_REGISTERS
        + rows_per_warp * (case.batch + algorithm.vector_size + case.layout.chunk_words)
        + algorithm.vector_size
    )
    fitting = gpu.registers_per_block.integer // (32 * min(registers, 255))
    # Blocks whose codebooks crowd each other out of an SM must bring more warps each.
    block_bytes = case.resident_book_bytes + gpu.shared_bytes_reserved.integer
    blocks = max(1, gpu.shared_bytes_per_sm.integer // block_bytes)
    warps = _power_of_two_at_most(min(fitting, max(8, 32 // blocks)))
    return warps, Decision(
        "warps",
        warps,
        "8 a block, or 32 / blocks that fit an SM beside their codebooks; as registers allow",
        {
            "registers_estimate": registers,
            "registers_per_block": gpu.registers_per_block.integer,
            "blocks_by_shared": blocks,
        },
        "enough warps to hide latency, blocks small enough to balance the SMs",
    )


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


def _power_of_two_at_most(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _power_of_two_at_least(value: int) -> int:
    return 1 << (max(value, 1) - 1).bit_length()
