"""What a block and a warp of an attention kernel work on: a tile for each dataflow (device/attention/*_kernel.cuh).

Shared memory is counted here as the device headers lay it out; `tests/ops/attention/test_tile.py` holds them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS, TABLE_ROWS, EntryRows
from vqcc.ops.attention.cycles import BlockCounts, SegmentCounts, count_phases
from vqcc.ops.attention.dealing import Dealing
from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.cache_layouts import CacheLayout
    from vqcc.ops.base import Dtype, TimedMachine

__all__ = ["AttentionTile", "AttentionWork", "DecodeTile", "FragmentTile", "RowTile", "ScoreTile"]

WARP_SIZE, FLOAT_BYTES, HALF_FLOAT_BYTES, WAVEFRONT_BYTES = 32, 4, 2, 128
#: Counters of arrivals are padded to so many bytes, parts follow (device/attention/merge.cuh).
ARRIVAL_ALIGNMENT = 256
#: Of a block's way through its segments, before the starts of sequences (device/attention/work.cuh).
PROGRESS_BYTES = 64
#: Of a region of score tables, and of a row of it (device/score_table.cuh).
REGION_BYTES, REGION_ROW_BYTES = 65536, 256
#: Rows of queries whose scores lie in a cell, at most, and the bytes of one by its rows.
MAX_CELL_ROWS = 4
CELL_BYTES: Mapping[int, int] = {1: 4, 2: 4, 4: 8}
#: Fitted (cycles.py). Of kernels that decode, cycles of a look-up, of a query row, of rotations, and of a segment.
DECODE_LOOK_UP, DECODE_ROW, DECODE_TURNS, DECODE_SEGMENT = 12.0, 100.0, 850.0, 8000.0
#: Of others, instructions of a look-up or of a block, and how long busy times are felt together.
SCORE_INSTRUCTIONS, SCORE_ROW_INSTRUCTIONS, SCORE_OVERLAP = 5.0, 250.0, 0.74
FRAGMENT_INSTRUCTIONS, FRAGMENT_BLOCK_INSTRUCTIONS, FRAGMENT_OVERLAP = 4.0, 200.0, 0.8


@dataclass(frozen=True)
class AttentionWork:
    """A launch in numbers: `batch` sequences of `context` tokens at most, `query_rows` query rows to each kv-head.

    `rotated`: keys are rotated by their positions after decoding. `counters` are there for blocks that merge, in all
    kernels of a library alike: they share a workspace.
    """

    layout: CacheLayout
    dtype: Dtype
    batch: int
    context: int
    query_rows: int
    counters: int
    rotated: bool = False
    window: int = 0

    @property
    def sequence_blocks(self) -> int:
        """Token blocks of a sequence, at most: those of a window begin anew."""
        return -(-self.context // BLOCK_TOKENS) + (self.window > 0)

    @property
    def key_rows(self) -> EntryRows:
        """A head's key entries by rows."""
        return EntryRows(self.layout.head_dim, self.layout.key_size)

    @property
    def value_rows(self) -> EntryRows:
        """A head's value entries by rows."""
        return EntryRows(self.layout.head_dim, self.layout.value_size)


@dataclass(frozen=True)
class AttentionTile(ABC):
    """A block works on `rows` query rows of a kv-head at a time, in `warps` warps; the grid has up to `blocks` blocks.

    Threads have `register_cap` registers. `roundings` bounds those of an fp32 sum on its way to an output.
    """

    work: AttentionWork
    warps: int
    rows: int
    blocks: int
    register_cap: int
    roundings: int

    @property
    @abstractmethod
    def shared_bytes(self) -> int:
        """Shared memory of a block beside codebooks that are cached by entry."""

    @property
    @abstractmethod
    def block_counts(self) -> BlockCounts:
        """What a token block takes."""

    @property
    @abstractmethod
    def segment_counts(self) -> SegmentCounts:
        """What a segment begins with."""

    def phase_cycles(self, machine: TimedMachine) -> Mapping[str, float]:
        """Cycles of a launch of sequences as long as the context, phase by phase."""
        return count_phases(self, machine)

    @property
    def dealing(self) -> Dealing:
        """How the grid's blocks share sequences as long as the context."""
        pairs = self.work.layout.heads * self.row_sets * self.work.batch
        return Dealing(pairs, self.work.sequence_blocks, self.blocks)

    @property
    def row_sets(self) -> int:
        """Sets of query rows of a kv-head: each reads the head's codes anew."""
        return -(-self.work.query_rows // self.rows)

    @property
    def one_item_per_block(self) -> bool:
        """Blocks share all token blocks equally, however many there are."""
        return False

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which blocks merge: counters, then two parts for each block."""
        part_floats = self.rows * (self.work.layout.head_dim + 2)
        return self.arrival_bytes + self.blocks * 2 * part_floats * FLOAT_BYTES

    @property
    def arrival_bytes(self) -> int:
        """Bytes of the counters, behind which parts lie."""
        return round_up(4 * self.work.counters, ARRIVAL_ALIGNMENT)

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile`."""
        return (
            Constant("int", "kWarps", self.warps, "of a block"),
            Constant("int", "kRows", self.rows, "query rows of a kv-head that a block works on at a time"),
            Constant("int", "kRowSets", self.row_sets, "such sets of a kv-head's query rows"),
            Constant("int", "kBatch", self.work.batch, "sequences of a launch, at most"),
            Constant(
                "int", "kArrivalBytes", self.arrival_bytes, "of the workspace: counters, before the parts"
            ),
            Constant(
                "vqcc::ElementType",
                "kElement",
                ELEMENT_TYPES[self.work.dtype],
                "type of queries, windows and outputs",
            ),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, self._shared_comment()),
            *self._own_constants(),
        )

    def _shared_comment(self) -> str:
        return "shared memory of a block, books included"

    @abstractmethod
    def _own_constants(self) -> tuple[Constant, ...]:
        """What only kernels of this dataflow read."""

    @property
    def _query_floats(self) -> int:
        return self.rows * self.work.layout.head_dim

    @property
    def _progress_bytes(self) -> int:
        """A block's way through its segments, and where the token blocks of each sequence begin."""
        return round_up(round_up(PROGRESS_BYTES + 4 * (self.work.batch + 1), 8), 16)


@dataclass(frozen=True)
class DecodeTile(AttentionTile):
    """Scores of `chunk_blocks` token blocks, their softmax, then weighted values, entries decoded for each."""

    chunk_blocks: int = 8

    @property
    def block_counts(self) -> BlockCounts:
        """A look-up of a warp meets banks, or lines of the first-level cache, as codes have it."""
        layout = self.work.layout
        look_ups = layout.key_groups * layout.key_stages + layout.value_groups * layout.value_stages
        turns = DECODE_TURNS if self.work.rotated else 0
        busy = DECODE_LOOK_UP * look_ups + DECODE_ROW * self.rows + turns
        return BlockCounts(busy, 0, 0, layout.block_bytes, 1.0)

    @property
    def segment_counts(self) -> SegmentCounts:
        """Books that are cached are read again for each head, entry by entry."""
        return SegmentCounts(0, DECODE_SEGMENT)

    @property
    def shared_bytes(self) -> int:
        """Queries, scores or the sums of warps in their place, rows' state, starts of sequences, rotations."""
        scores = self.rows * self.chunk_blocks * BLOCK_TOKENS
        scratch = max(scores, self._query_floats * self.warps)
        state = round_up(3 * self.rows + 1, 4)
        pairs = self.work.layout.head_dim // 2 if self.work.rotated else 0
        rotations = pairs * 8 * (BLOCK_TOKENS + self.warps)
        return FLOAT_BYTES * (self._query_floats + scratch + state) + self._progress_bytes + rotations

    def _shared_comment(self) -> str:
        return "shared memory behind the books"

    def _own_constants(self) -> tuple[Constant, ...]:
        return (
            Constant("int", "kChunkBlocks", self.chunk_blocks, "token blocks between a softmax and the next"),
        )


@dataclass(frozen=True)
class RowTile(AttentionTile):
    """Entries are looked up by rows; a warp has codes of `stages` iterations on their way (device/attention/row_shared.cuh).

    With `tables_region`, tables begin that many regions into a block's window of shared memory, of which the driver has
    the first `reserved_bytes`: what is looked up there has a place that needs no addition.
    """

    stages: int = 1
    tables_region: int = 0
    reserved_bytes: int = 0

    @property
    @abstractmethod
    def product_bytes(self) -> int:
        """Tables or rows of keys, whole regions."""

    @property
    def warp_weight_bytes(self) -> int:
        """A warp's weights in float16, for each team of lanes."""
        return self._teams * BLOCK_TOKENS * self.rows * HALF_FLOAT_BYTES

    @property
    def warp_scratch_bytes(self) -> int:
        """What scores of a warp pass through."""
        return 0

    @property
    def tables_offset(self) -> int:
        """Where tables begin in the shared memory that a launch asks for."""
        return self.tables_region * REGION_BYTES - self.reserved_bytes if self.tables_region else 0

    @property
    def front_stages(self) -> int:
        """Stages that lie in front of tables."""
        if not self.tables_region:
            return 0
        return min(self.stages, (self.tables_offset - self._part_bytes) // self._stage_bytes)

    @property
    def fits_in_front(self) -> bool:
        """Whether there is room in front of tables for what has no other place."""
        return not self.tables_region or self._part_bytes <= self.tables_offset

    @property
    def shared_bytes(self) -> int:
        """Tables, rows of values, codes on their way, weights, queries, rows' state, starts of sequences."""
        tables = self.product_bytes + self.work.value_rows.bytes
        front = self.tables_offset or self._part_bytes
        return front + tables + (self.stages - self.front_stages) * self._stage_bytes

    @property
    def _teams(self) -> int:
        return WARP_SIZE // self.work.value_rows.team_lanes

    @property
    def _stage_bytes(self) -> int:
        return self.warps * self._teams * self.work.layout.block_bytes

    @property
    def _part_bytes(self) -> int:
        """All but tables and codes."""
        own = self.warps * (self.warp_weight_bytes + self.warp_scratch_bytes)
        state = FLOAT_BYTES * (round_up(2 * self.rows + 1, 4) + 2 * self.rows * self.warps)
        return own + FLOAT_BYTES * self._query_floats + state + self._progress_bytes

    def _own_constants(self) -> tuple[Constant, ...]:
        return (
            Constant("int", "kStages", self.stages, "iterations of a warp whose codes are on their way"),
            Constant(
                "int",
                "kTablesRegion",
                self.tables_region,
                "64 KB of the window of shared memory before tables",
            ),
            Constant("int", "kTablesOffset", self.tables_offset, "of what a launch asks for, before tables"),
        )


@dataclass(frozen=True)
class ScoreTile(RowTile):
    """Products of a kv-head's key entries with the queries are tabulated.

    `multiplied`: weighted values are added up on tensor cores, of four query rows.
    """

    multiplied: bool = False

    @property
    def block_counts(self) -> BlockCounts:
        """A look-up a channel group: of scores a cell for each four rows, of values an entry; weights, and codes."""
        layout, cells = self.work.layout, -(-self.rows // MAX_CELL_ROWS)
        cell_words = CELL_BYTES[min(self.rows, MAX_CELL_ROWS)] / 4
        values = layout.value_groups * layout.value_size / 2
        codes = layout.block_bytes / WAVEFRONT_BYTES
        wavefronts = layout.key_groups * cells * cell_words + values + BLOCK_TOKENS * self.rows / 2 + codes
        look_ups = layout.key_groups * cells + layout.value_groups
        instructions = look_ups * SCORE_INSTRUCTIONS + SCORE_ROW_INSTRUCTIONS * self.rows
        return BlockCounts(wavefronts, instructions, 0, layout.block_bytes, SCORE_OVERLAP)

    @property
    def segment_counts(self) -> SegmentCounts:
        """Rows of both books, and a table of every key entry."""
        work = self.work
        entries = TABLE_ROWS * -(-work.layout.key_groups // WARP_SIZE)
        wavefronts = entries * (work.layout.key_size / 2 + self.rows)
        return SegmentCounts(work.key_rows.bytes + work.value_rows.bytes, wavefronts)

    @property
    def product_bytes(self) -> int:
        """Bytes of the score tables."""
        cell_rows = min(self.rows, MAX_CELL_ROWS)
        region_sets = REGION_ROW_BYTES // (WARP_SIZE * CELL_BYTES[cell_rows])
        sets = -(-self.work.layout.key_groups // WARP_SIZE)
        return self.rows // cell_rows * -(-sets // region_sets) * REGION_BYTES


@dataclass(frozen=True)
class FragmentTile(RowTile):
    """Key entries of four query rows are operands of tensor cores, as are values."""

    @property
    def multiplied(self) -> bool:
        """Values are."""
        return True

    @property
    def block_counts(self) -> BlockCounts:
        """Entries of keys and of values are operands of a multiply each; weights, and codes."""
        layout = self.work.layout
        look_ups = layout.key_groups + layout.value_groups
        words = (layout.key_groups * layout.key_size + layout.value_groups * layout.value_size) / 2
        wavefronts = words + BLOCK_TOKENS + layout.block_bytes / WAVEFRONT_BYTES
        multiplies = layout.head_dim / 4 * (2 if layout.key_size == 2 else 1) + layout.head_dim / 4
        instructions = look_ups * FRAGMENT_INSTRUCTIONS + multiplies + FRAGMENT_BLOCK_INSTRUCTIONS
        return BlockCounts(wavefronts, instructions, multiplies, layout.block_bytes, FRAGMENT_OVERLAP)

    @property
    def segment_counts(self) -> SegmentCounts:
        """Rows of both books."""
        return SegmentCounts(self.work.key_rows.bytes + self.work.value_rows.bytes, 0)

    @property
    def product_bytes(self) -> int:
        """Rows of keys."""
        return self.work.key_rows.bytes

    @property
    def warp_scratch_bytes(self) -> int:
        """Scores on their way from the lanes that have columns to those that have tokens."""
        return BLOCK_TOKENS * self.rows * FLOAT_BYTES
