"""Tiles of attention by clusters to try: how many blocks share a head's channels out, and in how many warps each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.attention.cluster_tile import DecodedClusterTile, ScoredClusterTile
from vqcc.ops.attention.tile import DECODE_SUM_WORDS, MAX_SCORE_ROWS
from vqcc.ops.tiles import power_of_two_at_least
from vqcc.plan import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.ops.attention.cluster_tile import ClusterTile
    from vqcc.ops.attention.tile import AttentionWork
    from vqcc.ops.base import TimedMachine

__all__ = ["propose_cluster_tiles"]

#: Warps of a block and blocks of an SM, with registers of their threads; by the blocks of a cluster, for in larger ones
#: so many warps wait for one another: half as long again (docs/decisions/012-clusters.md).
BLOCKS = ((8, 2, 128), (16, 1, 128), (8, 1, 255), (4, 1, 255))
LARGE_BLOCKS = tuple(each for each in BLOCKS if each[0] < 16)
MOST_OF_ALL_BLOCKS = 2
#: Token blocks whose codes are on their way: of a warp's keys, of a team's values.
SCORED_DEPTHS, DECODED_DEPTHS = (4, 2), (1, 1)


def propose_cluster_tiles(
    dataflow: str,
    work: AttentionWork,
    machine: TimedMachine,
    sizes: Sequence[int],
    book_bytes: int,
    roundings: int,
) -> Iterator[tuple[ClusterTile, tuple[Decision, ...]]]:
    """Tiles for clusters of `sizes`, the fastest by prediction first.

    `book_bytes` of a head, each block's part of them, have room beside a tile, or as much of them as its least chunk
    leaves.
    """
    make = _scored if dataflow == "score" else _decoded
    found: list[ClusterTile] = []
    for size in sizes:
        for warps, per_sm, registers in BLOCKS if size <= MOST_OF_ALL_BLOCKS else LARGE_BLOCKS:
            room = min(
                machine.shared_bytes_per_block,
                machine.shared_bytes_per_sm // per_sm - machine.shared_bytes_reserved,
            )
            for tile in make(work, warps, registers, size, roundings):
                fitting = tile.with_largest_chunk(room - book_bytes // size) or tile.with_least_chunk(room)
                if fitting is not None and 32 * warps <= machine.threads_per_block:
                    found.append(fitting.with_grid(per_sm * machine.sm_count))
                    break  # fewer rows would read codes more often
    found.sort(key=lambda tile: sum(tile.phase_cycles(machine).values()))
    for tile in found:
        yield tile, (_decision(tile),)


def _scored(
    work: AttentionWork, warps: int, registers: int, size: int, roundings: int
) -> Iterator[ClusterTile]:
    rows = min(MAX_SCORE_ROWS, power_of_two_at_least(work.query_rows))
    while rows:
        yield ScoredClusterTile(
            work, warps, rows, 1, registers, roundings, size, _step(warps), *SCORED_DEPTHS
        )
        rows //= 2


def _decoded(
    work: AttentionWork, warps: int, registers: int, size: int, roundings: int
) -> Iterator[ClusterTile]:
    lane_channels = work.layout.head_dim // size // min(work.layout.value_groups // size, 32)
    most = min(work.query_rows, max(1, DECODE_SUM_WORDS // lane_channels))
    rows = 1 << most.bit_length() - 1  # partial scores of a token fill words
    yield DecodedClusterTile(work, warps, rows, 1, registers, roundings, size, _step(warps), *DECODED_DEPTHS)


def _step(warps: int) -> int:
    """Token blocks of a chunk that any tile may have: with_largest_chunk sets them."""
    return 256 * warps


def _decision(tile: ClusterTile) -> Decision:
    return Decision(
        "cluster",
        tile.cluster,
        "least predicted time of the tiles that fit",
        {
            "warps": tile.warps,
            "query_rows": tile.rows,
            "chunk_blocks": tile.chunk_blocks,
            "units": tile.units,
            "shared_bytes": tile.shared_bytes,
        },
        "its blocks share out the channels of a head, a unit of one row set and sequence at a time",
    )
