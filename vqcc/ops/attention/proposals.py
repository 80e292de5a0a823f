"""Tiles of attention to try: how many query rows a block works on at a time, and in how many warps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.ops.attention.cluster_proposals import propose_cluster_tiles
from vqcc.ops.attention.cycles import PARTS_CYCLES, block_cycles, segment_cycles
from vqcc.ops.attention.dealing import Dealing, deal
from vqcc.ops.attention.row_tile import FragmentTile, RopeFragmentTile, ScoreTile
from vqcc.ops.attention.tile import DECODE_SUM_WORDS, MAX_SCORE_ROWS, AttentionTile, AttentionWork, DecodeTile
from vqcc.ops.tiles import power_of_two_at_least
from vqcc.plan import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.levels import Dataflow
    from vqcc.ops.base import Machine, TimedMachine

__all__ = ["propose_tiles"]

#: Warps of a block and registers of their threads, to be tried in this order.
DECODE_BLOCKS = ((8, 128), (8, 255))
SCORE_BLOCKS = ((16, 128), (12, 160), (8, 255), (4, 255))
FRAGMENT_BLOCKS = ((12, 160), (8, 255), (4, 255))
FRAGMENT_ROWS = 4
CHUNK_BLOCKS = 8
#: Iterations of a warp whose codes are on their way through shared memory where there is room; none: to registers.
STAGES = (1, 0)
WARP_SIZE = 32
#: Roundings of a weight and of its sum beside those of the additions: scores, their power of two, scaling, merging.
OTHER_ROUNDINGS = 16

Proposal = tuple[AttentionTile, tuple[Decision, ...]]


def propose_tiles(
    dataflow: Dataflow,
    work: AttentionWork,
    machine: TimedMachine,
    clusters: Sequence[int] = (),
    book_bytes: int = 0,
) -> Iterator[Proposal]:
    """Tiles of a dataflow that fit a block's shared memory, the fastest by prediction first; for `clusters`, if any.

    Books that are cached whole, `book_bytes` of a head, come on top of what a tile of `decode` needs.
    """
    if clusters:
        yield from propose_cluster_tiles(dataflow, work, machine, clusters, book_bytes, _roundings(work))
        return
    make = {"decode": _decode_tiles, "score": _score_tiles, "fragment": _fragment_tiles}[dataflow]
    found = [
        _filling(tile, machine, book_bytes)
        for tile in make(work, machine)
        if tile.has_room
        and tile.shared_bytes <= machine.shared_bytes_per_block
        and 32 * tile.warps <= machine.threads_per_block
    ]
    # The model tells no finer than a hundredth: of equals the first has more warps an SM, or more registers in use.
    found.sort(key=lambda pair: round(100 * math.log(sum(pair[0].phase_cycles(machine).values()))))
    for tile, decision in found:
        yield tile, (*_decisions(tile, machine), decision)


def _decode_tiles(work: AttentionWork, _machine: Machine) -> Iterator[AttentionTile]:
    """As many query rows as a thread has registers for: fewer, and codes would be decoded several times."""
    lane_channels = work.layout.head_dim // min(work.layout.value_groups, WARP_SIZE)
    rows = min(work.query_rows, max(1, DECODE_SUM_WORDS // lane_channels))
    for warps, registers in DECODE_BLOCKS:
        yield DecodeTile(work, warps, rows, 1, registers, _roundings(work), CHUNK_BLOCKS)


def _score_tiles(work: AttentionWork, machine: Machine) -> Iterator[AttentionTile]:
    """All query rows at once, and half of them: codes are read as often, and tables are smaller."""
    rows = min(MAX_SCORE_ROWS, power_of_two_at_least(work.query_rows))
    while rows:
        for stages, region, warps, registers in _row_blocks(SCORE_BLOCKS):
            placed = stages, region, machine.shared_bytes_reserved
            yield ScoreTile(
                work, warps, rows, 1, registers, _roundings(work), *placed, _multiplies(work, rows)
            )
        rows //= 2


def _fragment_tiles(work: AttentionWork, machine: Machine) -> Iterator[AttentionTile]:
    """Four query rows, and as many codes on their way as fit."""
    make = RopeFragmentTile if work.rotated else FragmentTile
    for stages, region, warps, registers in _row_blocks(FRAGMENT_BLOCKS):
        placed = stages, region, machine.shared_bytes_reserved
        yield make(work, warps, FRAGMENT_ROWS, 1, registers, _roundings(work), *placed)


def _multiplies(work: AttentionWork, rows: int) -> bool:
    """Whether values of so many query rows are operands: four rows, and as many channel groups as a warp has lanes."""
    return rows == FRAGMENT_ROWS and work.value_rows.team_lanes == WARP_SIZE


def _row_blocks(blocks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """Stages, the region of tables, warps and registers to try."""
    for warps, registers in blocks:
        for stages in STAGES:
            for region in (1, 0):
                yield stages, region, warps, registers


def _filling(tile: AttentionTile, machine: TimedMachine, book_bytes: int) -> tuple[AttentionTile, Decision]:
    """The tile with its grid: of no more blocks than the GPU may hold at a time, by registers and shared memory."""
    by_registers = machine.registers_per_block // (tile.register_cap * WARP_SIZE * tile.warps)
    shared = tile.shared_bytes + book_bytes + machine.shared_bytes_reserved
    per_sm = max(1, min(by_registers, machine.shared_bytes_per_sm // shared))
    block = block_cycles(tile.block_counts, machine)
    segment, merge = segment_cycles(tile.segment_counts, machine) / block, PARTS_CYCLES / block
    most = machine.sm_count * per_sm
    dealing = deal(tile.dealing.pairs, tile.work.sequence_blocks, most, segment, merge)
    return replace(tile, blocks=dealing.grid), _dealing_decision(dealing, segment)


def _dealing_decision(dealing: Dealing, segment: float) -> Decision:
    return Decision(
        "shares",
        dealing.grid,
        "least share + segment * segments + what a merge takes, of sequences as long as the context, in token blocks",
        {
            "pairs": dealing.pairs,
            "blocks": dealing.blocks,
            "share": dealing.share,
            "segments": dealing.segments,
            "segment": round(segment, 1),
        },
        "a segment, of one row set and sequence, begins with its books and tables and ends with a merge",
    )


def _roundings(work: AttentionWork) -> int:
    """A sum of weighted values has a term for each token, one of weights too; a score has one for each channel."""
    return work.context + work.layout.head_dim + OTHER_ROUNDINGS


def _decisions(tile: AttentionTile, machine: Machine) -> tuple[Decision, ...]:
    sets = (
        f"{tile.row_sets} sets read a kv-head's codes one after another" if tile.row_sets > 1 else "one set"
    )
    return (
        Decision(
            "query_rows",
            tile.rows,
            "the most rows whose sums and tables a block holds",
            {"query_rows": tile.work.query_rows, "head_dim": tile.work.layout.head_dim},
            sets,
        ),
        Decision(
            "warps",
            tile.warps,
            "the most warps of register_cap registers that compile without spills",
            {
                "register_cap": tile.register_cap,
                "shared_bytes": tile.shared_bytes,
                "shared_bytes_per_block": machine.shared_bytes_per_block,
            },
            "warps take token blocks in turn: more of them hide more latency",
        ),
    )
