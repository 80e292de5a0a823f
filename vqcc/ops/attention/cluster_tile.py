"""What clusters of blocks work on that share out a head's channels (device/attention/cluster_kernel.cuh).

Blocks of a cluster take the same tokens, each its own channel groups: `blocks` of the grid are a multiple of `cluster`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.ops.attention.cycles import (
    START_CYCLES,
    BlockCounts,
    SegmentCounts,
    block_cycles,
    segment_cycles,
)
from vqcc.ops.attention.tile import (
    CELL_BYTES,
    DECODE_ROW,
    DECODE_SEGMENT,
    DECODE_TURNS,
    FLOAT_BYTES,
    HALF_FLOAT_BYTES,
    MAX_CELL_ROWS,
    REGION_BYTES,
    SCORE_INSTRUCTIONS,
    SCORE_OVERLAP,
    SCORE_ROW_INSTRUCTIONS,
    WARP_SIZE,
    WAVEFRONT_BYTES,
    AttentionTile,
)
from vqcc.plan import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from vqcc.ops.base import TimedMachine

__all__ = ["CLUSTER_SIZES", "ClusterTile", "DecodedClusterTile", "ScoredClusterTile"]

#: Blocks of a cluster: what every GPU of compute capability 9.0 or more can have.
CLUSTER_SIZES = (2, 4, 8)
#: Of half a row of tables in shared memory; a region has 256 rows of two halves (device/attention/cluster_share.cuh).
HALF_BYTES = 128
#: Counted (docs/decisions/012-clusters.md): what partial scores of a token block and row take for each block.
PARTIAL_WAVEFRONTS, PARTIAL_INSTRUCTIONS, TABLE_CYCLES = 2.5, 12.0, 800.0
#: Fitted (docs/performance.md): what a unit and a chunk take beside their token blocks, and how much longer than a
#: block that has no others to wait for a token block's busy times are felt, by the blocks of a cluster.
UNIT_CYCLES, CHUNK_CYCLES = 2000, 2000
OWN_OVERLAP, CLUSTER_OVERLAP = 0.7, 0.35
#: Fitted: cycles of a look-up of a cluster that decodes, fewer than DECODE_LOOK_UP for its blocks have whole books, and
#: what these take to load, as a part of a DecodeTile's segment.
CLUSTER_LOOK_UP, CLUSTER_BOOKS = 4.0, 0.5


@dataclass(frozen=True)
class ClusterTile(AttentionTile):
    """`cluster` blocks make scores of `chunk_blocks` token blocks at a time, and exchange them.

    Warps have codes of `key_depth` token blocks of keys on their way, and of `value_depth` of values for each team of
    lanes. Raises ValueError if blocks have no channel groups of their own, or chunks no whole turns of these.
    """

    cluster: int = 2
    chunk_blocks: int = 64
    key_depth: int = 4
    value_depth: int = 2

    def __post_init__(self) -> None:
        layout = self.work.layout
        if layout.key_groups % self.cluster or layout.value_groups % self.cluster:
            raise ValueError(f"{self.cluster} blocks do not share the channel groups out equally")
        if self.chunk_blocks % self.chunk_step:
            raise ValueError(f"chunks of {self.chunk_blocks} token blocks: a multiple of {self.chunk_step}")

    @property
    def one_item_per_block(self) -> bool:
        """The grid is whole clusters, however many blocks are resident."""
        return True

    def phase_cycles(self, machine: TimedMachine) -> Mapping[str, float]:
        """Clusters take units in turn; the blocks of an SM share its pipes, and hide each other's waits."""
        resident = -(-self.blocks // machine.sm_count)
        turns = -(-self.units // (self.blocks // self.cluster))
        chunks = -(-self.work.sequence_blocks // self.chunk_blocks)
        return {
            "start": START_CYCLES
            + machine.dram_latency_cycles
            + segment_cycles(self.segment_counts, machine),
            "units": turns * (UNIT_CYCLES + chunks * CHUNK_CYCLES),
            "token_blocks": turns
            * self.work.sequence_blocks
            * resident
            * block_cycles(self.block_counts, machine),
        }

    @property
    def own_key_groups(self) -> int:
        """Channel groups of keys that a block has."""
        return self.work.layout.key_groups // self.cluster

    @property
    def own_value_groups(self) -> int:
        """Channel groups of values that a block has."""
        return self.work.layout.value_groups // self.cluster

    @property
    @abstractmethod
    def team_lanes(self) -> int:
        """Lanes that have different value groups of one token block."""

    @property
    def teams(self) -> int:
        """Token blocks whose values a warp adds up at a time."""
        return WARP_SIZE // self.team_lanes

    @property
    def chunk_step(self) -> int:
        """What a chunk's token blocks must be a multiple of: codes on their way go on from chunk to chunk."""
        return math.lcm(self.warps * self.key_depth, self.warps * self.teams * self.value_depth)

    @property
    def units(self) -> int:
        """Row sets of all kv-heads times sequences: a cluster works on one at a time."""
        return self.work.layout.heads * self.row_sets * self.work.batch

    @property
    def workspace_bytes(self) -> int:
        """None: each block has all tokens of its channels, so nothing is merged."""
        return 0

    def with_grid(self, resident_blocks: int) -> Self:
        """The tile whose grid is whole clusters: no more of them than units, nor blocks than are resident at a time."""
        return replace(self, blocks=max(1, min(self.units, resident_blocks // self.cluster)) * self.cluster)

    def with_largest_chunk(self, shared_bytes: int) -> Self | None:
        """The tile whose chunks are as long as `shared_bytes` allow or a sequence can be; None if none fits."""
        longest = self.work.sequence_blocks
        least = replace(self, chunk_blocks=self.chunk_step)
        room = shared_bytes - least.shared_bytes
        if room < 0:
            return None
        steps = 1 + room // least.room_bytes
        return replace(self, chunk_blocks=min(steps, -(-longest // self.chunk_step)) * self.chunk_step)

    def with_least_chunk(self, shared_bytes: int) -> Self | None:
        """The tile of the shortest chunks; None if it does not fit."""
        least = replace(self, chunk_blocks=self.chunk_step)
        return least if least.shared_bytes <= shared_bytes else None

    @property
    def room_bytes(self) -> int:
        """Of the partial scores that the cluster's blocks leave in one of them."""
        return self.cluster * self.chunk_blocks * BLOCK_TOKENS * self.rows * FLOAT_BYTES

    @property
    def shared_bytes(self) -> int:
        """Products' tables, partial scores, weights or the sums of warps in their place, rows' state, queries."""
        weights = self.teams * BLOCK_TOKENS * self.rows * self._weight_bytes
        sums = FLOAT_BYTES * self._query_floats // self.cluster
        state = FLOAT_BYTES * 2 * self.rows * (1 + self.warps)
        queries = FLOAT_BYTES * self._query_floats if self._has_queries else 0
        return self._table_bytes + self.room_bytes + self.warps * max(weights, sums) + state + queries

    @property
    @abstractmethod
    def _table_bytes(self) -> int:
        """Shared memory that depends on how products come about, beside a codebook cache."""

    @property
    @abstractmethod
    def _weight_bytes(self) -> int:
        """Of a token's weight."""

    @property
    @abstractmethod
    def _has_queries(self) -> bool:
        """Whether queries are in shared memory."""

    def _own_constants(self) -> tuple[Constant, ...]:
        return (
            Constant("int", "kClusterBlocks", self.cluster, "blocks of a cluster, which share out channels"),
            Constant(
                "int", "kChunkBlocks", self.chunk_blocks, "token blocks whose scores they exchange at a time"
            ),
            Constant(
                "int", "kKeyDepth", self.key_depth, "token blocks of a warp whose keys are on their way"
            ),
            Constant(
                "int", "kValueDepth", self.value_depth, "token blocks of a team whose values are on their way"
            ),
        )


@dataclass(frozen=True)
class ScoredClusterTile(ClusterTile):
    """Scores of a block's key groups are tabulated, entries of its value groups lie by rows, in halves of rows."""

    @property
    def block_counts(self) -> BlockCounts:
        """A block's part of what ScoreTile counts, and partial scores in every block."""
        layout, cells = self.work.layout, -(-self.rows // MAX_CELL_ROWS)
        cell_words = CELL_BYTES[min(self.rows, MAX_CELL_ROWS)] / 4
        values = self.own_value_groups * layout.value_size / 2
        weights = self.rows * BLOCK_TOKENS / 2
        exchanged = PARTIAL_WAVEFRONTS * self.cluster * self.rows
        codes = layout.block_bytes / self.cluster
        wavefronts = self.own_key_groups * cells * cell_words + values + weights / self.cluster + exchanged
        look_ups = self.own_key_groups * cells + self.own_value_groups
        own_rows = SCORE_ROW_INSTRUCTIONS / self.cluster + PARTIAL_INSTRUCTIONS * self.cluster
        instructions = look_ups * SCORE_INSTRUCTIONS + own_rows * self.rows
        overlap = SCORE_OVERLAP * (OWN_OVERLAP + CLUSTER_OVERLAP * self.cluster)
        return BlockCounts(wavefronts + codes / WAVEFRONT_BYTES, instructions, 0, codes, overlap)

    @property
    def segment_counts(self) -> SegmentCounts:
        """Rows of the block's own groups of both books, and its tables."""
        rows = (self.work.key_rows, self.work.value_rows)
        return SegmentCounts(sum(each.bytes for each in rows) / self.cluster, TABLE_CYCLES)

    @property
    def team_lanes(self) -> int:
        """As many as have words of entries in half a row."""
        return min(self.own_value_groups, HALF_BYTES // self.work.value_rows.word_bytes)

    @property
    def key_halves(self) -> int:
        """Halves of rows that score tables take."""
        cell_rows = min(self.rows, MAX_CELL_ROWS)
        set_groups = min(self.own_key_groups, WARP_SIZE)
        columns = max(HALF_BYTES // CELL_BYTES[cell_rows], set_groups)
        sets = self.rows // cell_rows * self.own_key_groups // set_groups
        return sets * columns * CELL_BYTES[cell_rows] // HALF_BYTES

    @property
    def value_halves(self) -> int:
        """Halves of rows that entries take."""
        rows = self.work.value_rows
        return self.own_value_groups // self.team_lanes * (rows.entry_bytes // rows.word_bytes)

    @property
    def _table_bytes(self) -> int:
        return -(-(self.key_halves + self.value_halves) // 2) * REGION_BYTES

    @property
    def _weight_bytes(self) -> int:
        return HALF_FLOAT_BYTES

    @property
    def _has_queries(self) -> bool:
        return self.work.window > 0


@dataclass(frozen=True)
class DecodedClusterTile(ClusterTile):
    """Entries of a block's groups are decoded; their books, in the codebook cache, come on top."""

    @property
    def block_counts(self) -> BlockCounts:
        """A block's part of what DecodeTile counts, and partial scores in every block."""
        layout = self.work.layout
        look_ups = self.own_key_groups * layout.key_stages + self.own_value_groups * layout.value_stages
        turns = DECODE_TURNS if self.work.rotated else 0
        partial = PARTIAL_WAVEFRONTS * self.cluster * self.rows
        exchanged = self.work.exchange_cycles(self.own_value_groups)
        busy = (
            CLUSTER_LOOK_UP * look_ups + DECODE_ROW * self.rows / self.cluster + turns + partial + exchanged
        )
        return BlockCounts(busy, 0, 0, layout.block_bytes / self.cluster, 1.0)

    @property
    def segment_counts(self) -> SegmentCounts:
        """Books of the block's own groups, entry by entry, each of them a wait."""
        return SegmentCounts(0, CLUSTER_BOOKS * DECODE_SEGMENT)

    @property
    def team_lanes(self) -> int:
        """As many as there are groups."""
        return min(self.own_value_groups, WARP_SIZE)

    @property
    def _table_bytes(self) -> int:
        """Rotations of positions, scratch in which values are exchanged."""
        pairs = self.work.layout.head_dim // 2 if self.work.rotated else 0
        return pairs * 8 * (BLOCK_TOKENS + self.warps) + self.warps * self.work.exchange_bytes

    @property
    def _weight_bytes(self) -> int:
        return FLOAT_BYTES

    @property
    def _has_queries(self) -> bool:
        return True

    def _shared_comment(self) -> str:
        return "shared memory behind the books"
