"""Tiles for gemv on the CUDA cores: rows that share activations, then as many warps as registers allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.exchanges import exchange_scratch_bytes
from vqcc.ops.linear.tile import (
    LinearTile,
    Shape,
    fill_decision,
    make_tile,
    phases,
    row_blocks,
)
from vqcc.ops.tiles import largest_divisor, power_of_two_at_least, power_of_two_at_most
from vqcc.plan import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.ops.base import Machine, Variant, Workload

__all__ = ["propose_fma_tiles"]

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
BLOCKS = ((16, 64), (8, 80), (16, 128), (8, 255))


def propose_fma_tiles(
    rows: int, variant: Variant, work: Workload, machine: Machine
) -> Iterator[tuple[LinearTile, tuple[Decision, ...]]]:
    """Tiles for W of `rows` rows, the most promising first; later ones leave a thread more registers.

    Measured on an H200 over rows, block sizes and register caps (docs/performance.md): sharing activations
    among 4 rows matters most, then as many warps as the registers allow.
    """
    rows_per_warp, decision = _rows_per_warp(rows, work, machine)
    while rows_per_warp:
        estimate = _registers(rows_per_warp, variant, work)
        for warps, cap in _blocks(machine):
            if cap >= min(estimate, machine.registers_per_thread):
                tile, decisions = _tile(rows, variant, work, machine, (rows_per_warp, warps, cap))
                formula = (
                    "first of (16 warps, 64 registers), (8, 80), (16, 128), (8, 255) whose registers suffice; "
                    "halved while items < 3/4 of the SMs or a band of codebooks has too few rows"
                )
                yield tile, (decision, fill_decision(tile, machine, formula, estimate), *decisions)
        rows_per_warp //= 2


def _blocks(machine: Machine) -> Iterator[tuple[int, int]]:
    """`BLOCKS` as far as the limits on a block and a thread allow, the largest cap last."""
    for warps, cap in BLOCKS:
        registers = min(cap, machine.registers_per_thread)
        fitting = machine.registers_per_block // (32 * -(-registers // 8) * 8)
        if fitting >= 1:
            yield power_of_two_at_most(min(warps, machine.threads_per_block // 32, fitting)), registers


def _rows_per_warp(rows: int, work: Workload, machine: Machine) -> tuple[int, Decision]:
    along = power_of_two_at_most(min(_visits(work), 4)) * work.split.factor
    chosen = MAX_ROWS
    while chosen > 1 and rows * along // chosen < FEWEST_WARPS * machine.sm_count:
        chosen //= 2
    return chosen, Decision(
        "rows_per_warp",
        chosen,
        f"largest power of two <= {MAX_ROWS} with n * warps_along_row * parts / rows >= {FEWEST_WARPS} warps per SM",
        {"n": rows, "warps_and_parts": along, "sm_count": machine.sm_count},
        "rows of a warp share each loaded activation; too few warps leave SMs idle",
    )


def _visits(work: Workload) -> int:
    """Times that a warp's 32 lanes take 32 chunks of a part of a row."""
    chunks = work.chunked.row_words // work.chunked.chunk_words
    return -(-chunks // (32 * work.split.tiles))


def _registers(rows: int, variant: Variant, work: Workload) -> int:
    """Registers live in the inner loop, roughly: with several rows of x, all rows' weights wait for them."""
    batch = variant.sizes["m"]
    exchanged = work.exchange.fusion in {"register", "shared"}
    decoded_rows = rows if batch > 1 or exchanged else 1
    entries = decoded_rows * work.stages * work.entry_words
    activations = 2 * batch if batch > 1 else 0  # loaded ahead of their multiply-adds
    owned = rows * (batch + work.chunked.chunk_words)
    columns = work.vector_size if exchanged else 0
    return BASE_REGISTERS + owned + (decoded_rows + 1) * work.vector_size + entries + activations + columns


def _tile(
    rows: int, variant: Variant, work: Workload, machine: Machine, choice: tuple[int, int, int]
) -> tuple[LinearTile, tuple[Decision, ...]]:
    rows_per_warp, warps, cap = choice
    batch = variant.sizes["m"]
    along = power_of_two_at_most(min(warps, _visits(work), 4))
    scratch = exchange_scratch_bytes(work.exchange, work.vector_size)
    if work.book_bytes + warps * (rows_per_warp * batch * 4 + scratch) + 128 > machine.shared_bytes_per_block:
        along = 1
    across = _warps_across(rows, work, machine, rows_per_warp, warps // along)
    vector_work = rows_per_warp * batch * work.vector_size
    budget = max(1, min(MAX_UNROLLED // vector_work, MAX_ACTIVATIONS // batch))
    if work.exchange.fusion in {"register", "shared"}:  # each step keeps a row's elements and their columns
        budget = max(1, budget // 4)
    unroll = largest_divisor(work.chunked.chunk_vectors, budget)
    visits = -(-_visits(work) // along) + phases(work)
    shape = Shape(rows_per_warp, across, along, unroll, cap)
    roundings = visits * work.chunked.chunk_vectors * work.vector_size + 5
    tile = make_tile(rows, variant, work, shape, scratch=scratch, roundings=roundings)
    return tile, (
        Decision(
            "warps_along_row",
            along,
            "largest power of two <= min(visits, 4, warps); 1 where shared memory is full of codebooks",
            {"visits": _visits(work), "book_bytes": work.book_bytes},
            "more loads in flight for each row; their sums meet in shared memory in a fixed order",
        ),
        Decision(
            "unroll",
            unroll,
            f"largest divisor of chunk_vectors with rows * m * vector_size * unroll <= {MAX_UNROLLED} "
            f"and m * unroll <= {MAX_ACTIVATIONS}",
            {"chunk_vectors": work.chunked.chunk_vectors, "m": batch, "rows_per_warp": rows_per_warp},
            "independent look-ups in flight, without outgrowing the instruction cache",
        ),
    )


def _warps_across(rows: int, work: Workload, machine: Machine, rows_per_warp: int, most: int) -> int:
    """Warps with rows of their own: no more than a band has rows for, fewer if a quarter of the SMs would idle."""
    across = min(most, power_of_two_at_least(-(-work.band_rows // rows_per_warp)))
    while across > 1:
        items = row_blocks(rows, work.band_rows, rows_per_warp * across) * work.split.factor
        if 4 * items >= 3 * machine.sm_count:
            break
        across //= 2
    return across
