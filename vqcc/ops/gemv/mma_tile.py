"""Tiles for gemv on tensor cores: groups of eight rows, the operand B of one multiply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.exchanges import exchange_scratch_bytes
from vqcc.ops.linear.tile import (
    TILE_ROWS,
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

__all__ = ["propose_mma_tiles"]

#: Rows of W that one multiply takes (PTX ISA, mma.m16n8k16: operand B has eight columns).
GROUP_ROWS = 8
#: Groups of a warp share each loaded activation.
MAX_GROUPS = 4
#: Instructions of an unrolled loop: past these they outgrow the instruction cache.
MAX_INSTRUCTIONS = 1000
#: Instructions of a look-up beside what makes an entry of it, and of a step beside its look-ups.
LOOKUP_INSTRUCTIONS, STEP_INSTRUCTIONS = 4, 16
#: Registers a thread needs beside its sums, codes, weights and activations: addresses and loop state.
BASE_REGISTERS = 50
#: How far the estimate may be above the cap: the compiler finds ways, and says so if it does not.
SLACK = 24
#: The tensor cores' fp32 sums are not rounded to nearest after each product but cut: a bit or two more each.
ROUNDINGS_PER_PRODUCT = 4


def propose_mma_tiles(
    rows: int, variant: Variant, work: Workload, machine: Machine
) -> Iterator[tuple[LinearTile, tuple[Decision, ...]]]:
    """Tiles for W of `rows` rows, the most promising first; later ones leave a thread more registers."""
    groups, decision = _groups(rows, variant, work, machine)
    while groups:
        estimate = _registers(groups, variant, work)
        for warps, cap, unroll in _blocks(rows, groups, work, machine):
            if cap + SLACK < min(estimate, 255) or 32 * warps > machine.threads_per_block:
                continue
            registers = min(cap, machine.registers_per_thread)
            shape = _shape(rows, work, machine, (groups, warps, unroll, registers))
            roundings = _roundings(shape, work)
            scratch = exchange_scratch_bytes(work.exchange, work.vector_size // 2)
            tile = make_tile(rows, variant, work, shape, scratch=scratch, roundings=roundings)
            formula = (
                "8 warps of 128 registers, two blocks to an SM, or of 255; 16 of 128 where an SM has one block "
                "anyway; warps go along the row first, then across rows while items fill the SMs"
            )
            yield tile, (decision, fill_decision(tile, machine, formula, estimate))
        groups //= 2


def _blocks(rows: int, groups: int, work: Workload, machine: Machine) -> Iterator[tuple[int, int, int]]:
    """Warps, registers of a thread and steps in one piece, to be tried in this order."""
    unroll = _unroll(groups, work)
    items = row_blocks(rows, work.band_rows, groups * GROUP_ROWS) * work.split.factor
    # A larger block where an SM gets no second one.
    lone = items <= machine.sm_count or 2 * work.book_bytes > machine.shared_bytes_per_sm
    yield (16 if lone else 8), 128, unroll
    if work.entry_operations and not lone:
        # Entries that are computed make every warp wait: a second block is worth less code in one piece.
        yield 8, 128, largest_divisor(unroll, 2)
    yield 8, 255, unroll


def _units(work: Workload) -> int:
    """Times that four lanes take four chunks of a part of a row."""
    chunks = work.chunked.row_words // work.chunked.chunk_words
    return -(-chunks // (4 * work.split.tiles))


def _groups(rows: int, variant: Variant, work: Workload, machine: Machine) -> tuple[int, Decision]:
    """Groups of a warp: fewer where their warps would not fill the GPU."""
    groups = MAX_GROUPS
    fewest = 8 * machine.sm_count
    along = power_of_two_at_most(min(16, _units(work))) * work.split.factor
    while groups > 1 and (
        groups * GROUP_ROWS > work.band_rows or -(-rows // (groups * GROUP_ROWS)) * along < fewest
    ):
        groups //= 2
    return groups, Decision(
        "row_groups_per_warp",
        groups,
        f"largest power of two <= {MAX_GROUPS} with n / (8 groups) * warps_along_row * parts >= 8 warps per SM",
        {"n": rows, "warps_and_parts": along, "sm_count": machine.sm_count, "m": variant.sizes["m"]},
        "groups of eight rows share each loaded activation; too few warps leave SMs idle",
    )


def _unroll(groups: int, work: Workload) -> int:
    """Steps in one piece, a whole chunk if that is not too much code: codes then need not be moved along."""
    vectors = 2 if work.vector_size == 2 else 1
    steps = work.chunked.chunk_vectors // vectors
    lookup = LOOKUP_INSTRUCTIONS + work.entry_operations + work.vector_size // 4
    step = groups * work.stages * vectors * lookup + STEP_INSTRUCTIONS
    return largest_divisor(steps, max(1, MAX_INSTRUCTIONS // step))


def _registers(groups: int, variant: Variant, work: Workload) -> int:
    """Registers live in the inner loop, roughly."""
    pairs = max(2, work.vector_size // 2)
    tiles = -(-variant.sizes["m"] // TILE_ROWS)
    halves = 2 * tiles if variant.sizes["m"] > GROUP_ROWS else 1
    codes = 2 * groups * work.chunked.chunk_words
    weights = work.stages * max(pairs, work.entry_words) * min(groups, 2)
    addresses = 2 * (halves - 2) if tiles > 1 else 0  # of rows of x
    sums = 4 * groups * work.stage_sums * tiles
    return BASE_REGISTERS + sums + codes + weights + 2 * halves * pairs + addresses


def _shape(rows: int, work: Workload, machine: Machine, choice: tuple[int, int, int, int]) -> Shape:
    groups, warps, unroll, cap = choice
    along = power_of_two_at_most(min(warps, _units(work)))
    across = min(warps // along, power_of_two_at_least(-(-work.band_rows // (groups * GROUP_ROWS))))
    while across > 1:
        items = row_blocks(rows, work.band_rows, groups * GROUP_ROWS * across) * work.split.factor
        if 4 * items >= 3 * machine.sm_count:
            break
        across //= 2
    return Shape(groups * GROUP_ROWS, across, along, unroll, cap)


def _roundings(shape: Shape, work: Workload) -> int:
    units = -(-_units(work) // shape.warps_along_row) + phases(work)
    products = units * 4 * work.chunked.chunk_vectors * work.vector_size * work.stages
    return ROUNDINGS_PER_PRODUCT * products
