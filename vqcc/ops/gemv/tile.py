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
#: Vectors of x in flight in one unrolled step: each waits in registers.
MAX_ACTIVATIONS = 64
#: Rows of a warp share each activation that it loads and converts; at 8 their sums crowd the registers.
MAX_ROWS = 4
#: Warps of work that an SM needs at least, or rows are shared among more warps instead.
FEWEST_WARPS = 6
#: Registers a thread needs beside its sums, weights, codes and activations: addresses and loop state.
BASE_REGISTERS = 26
#: Block sizes in warps and registers of a thread; the compiler is held to them by the launch bounds.
SHAPES = ((16, 64), (8, 80), (16, 128), (8, 255))

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
    minimum_blocks: int

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
    """Tiles for W of `shape` [n, k], the most promising first; later ones leave a thread more registers.

    Measured on an H200 over rows, block sizes and register caps (docs/performance.md): sharing activations
    among 4 rows matters most, then as many warps as the registers allow.
    """
    tile_rows = min(algorithm.scope.tile(*shape)[0], shape[0])
    case = _Case(shape[0], tile_rows, variant, algorithm, layout, gpu, placement)
    rows, decision = _rows_per_warp(case)
    while rows:
        estimate = _registers(case, rows)
        for warps, cap in _shapes(gpu):
            if cap >= min(estimate, gpu.registers_per_thread.integer):
                tile, decisions = _tile(case, rows, warps, cap)
                yield tile, (decision, _warps_decision(case, tile, estimate), *decisions)
        rows //= 2


def _shapes(gpu: Gpu) -> Iterator[tuple[int, int]]:
    """`SHAPES` as far as the GPU's limits on a block and a thread allow, the largest cap last."""
    for warps, cap in SHAPES:
        most = gpu.threads_per_block.integer // 32
        registers = min(cap, gpu.registers_per_thread.integer)
        fitting = gpu.registers_per_block.integer // (32 * _round_up(registers, 8))
        if fitting >= 1:
            yield _power_of_two_at_most(min(warps, most, fitting)), registers


def _rows_per_warp(case: _Case) -> tuple[int, Decision]:
    sm_count = case.gpu.sm_count.integer
    along = _power_of_two_at_most(min(case.layout.segments, 4))
    rows = MAX_ROWS
    while rows > 1 and case.rows * along // rows < FEWEST_WARPS * sm_count:
        rows //= 2
    return rows, Decision(
        "rows_per_warp",
        rows,
        f"largest power of two <= {MAX_ROWS} with n * warps_along_row / rows >= {FEWEST_WARPS} warps per SM",
        {"n": case.rows, "warps_along_row": along, "sm_count": sm_count},
        "rows of a warp share each loaded activation; too few warps leave SMs idle",
    )


def _registers(case: _Case, rows: int) -> int:
    """Registers live in the inner loop, roughly: with several rows of x, all rows' weights wait for them."""
    decoded_rows = rows if case.batch > 1 else 1
    vector = case.algorithm.vector_size
    entries = decoded_rows * case.algorithm.residuals * case.algorithm.entry_stride // 4
    activations = 2 * case.batch if case.batch > 1 else 0  # loaded ahead of their multiply-adds
    owned = rows * (case.batch + case.layout.chunk_words)
    return BASE_REGISTERS + owned + (decoded_rows + 1) * vector + entries + activations


def _tile(case: _Case, rows: int, warps: int, cap: int) -> tuple[GemvTile, tuple[Decision, ...]]:
    along = _power_of_two_at_most(min(warps, case.layout.segments, 4))
    if (
        case.resident_book_bytes + warps * rows * case.batch * 4 + 16
        > case.gpu.shared_bytes_per_block.integer
    ):
        along = 1
    across = _warps_across(case, rows, warps // along)
    vector_work = rows * case.batch * case.algorithm.vector_size
    budget = max(1, min(MAX_UNROLLED // vector_work, MAX_ACTIVATIONS // case.batch))
    unroll = max(d for d in _divisors(case.layout.chunk_vectors) if d <= budget)
    tile = GemvTile(
        batch=case.batch,
        dtype=case.variant.dtype,
        rows_per_warp=rows,
        warps_across_rows=across,
        warps_along_row=along,
        unroll=unroll,
        activation_alignment=activation_alignment(case.algorithm.vector_size),
        resident_tiles=case.placement.resident_tiles,
        in_shared=case.placement.in_shared,
        row_blocks=_row_blocks(case, rows * across),
        minimum_blocks=_minimum_blocks(case, 32 * across * along, cap),
    )
    return tile, (
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
            f"largest divisor of chunk_vectors with rows * m * vector_size * unroll <= {MAX_UNROLLED} "
            f"and m * unroll <= {MAX_ACTIVATIONS}",
            {"chunk_vectors": case.layout.chunk_vectors, "m": case.batch, "rows_per_warp": rows},
            "independent look-ups in flight, without outgrowing the instruction cache",
        ),
    )


def _row_blocks(case: _Case, rows_per_block: int) -> int:
    """Blocks of rows; none crosses from one band of codebook tiles to the next."""
    return -(-case.rows // case.tile_rows) * -(-case.tile_rows // rows_per_block)


def _warps_across(case: _Case, rows: int, most: int) -> int:
    """Warps with rows of their own: no more than a band has rows for, fewer if a quarter of the SMs would idle."""
    across = min(most, _power_of_two_at_least(-(-case.tile_rows // rows)))
    while across > 1 and 4 * _row_blocks(case, rows * across) < 3 * case.gpu.sm_count.integer:
        across //= 2
    return across


def _minimum_blocks(case: _Case, threads: int, cap: int) -> int:
    """Blocks an SM must hold: as many as the register cap, the codebooks and the threads of an SM allow."""
    gpu = case.gpu
    by_shared = gpu.shared_bytes_per_sm.integer // (
        case.resident_book_bytes + gpu.shared_bytes_reserved.integer
    )
    by_registers = gpu.registers_per_sm.integer // (threads * (cap + 1 if cap % 2 else cap))
    by_threads = gpu.threads_per_sm.integer // threads
    return max(1, min(by_shared, by_registers, by_threads, gpu.blocks_per_sm.integer))


def _warps_decision(case: _Case, tile: GemvTile, estimate: int) -> Decision:
    return Decision(
        "warps",
        tile.warps,
        "first of (16 warps, 64 registers), (8, 80), (16, 128), (8, 255) whose registers suffice; halved while "
        "row blocks < 3/4 of the SMs or a band of codebooks has too few rows",
        {
            "registers_estimate": estimate,
            "row_blocks": tile.row_blocks,
            "sm_count": case.gpu.sm_count.integer,
            "band_rows": case.tile_rows,
        },
        f"as many warps as registers allow hide latency; an SM must hold {tile.minimum_blocks} blocks",
    )


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


def _power_of_two_at_most(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _power_of_two_at_least(value: int) -> int:
    return 1 << (max(value, 1) - 1).bit_length()
