"""What a block and a warp of an attention kernel work on: a tile for each dataflow (device/attention/*_kernel.cuh).

Shared memory is counted here as the device headers lay it out; `tests/ops/attention/test_tile.py` holds them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS, EntryRows
from vqcc.ops.attention.cycles import BlockCounts, SegmentCounts, count_phases
from vqcc.ops.attention.dealing import Dealing
from vqcc.ops.exchanges import exchange_instructions, exchange_scratch_bytes, exchange_wavefronts
from vqcc.ops.tiles import ELEMENT_TYPES, round_up
from vqcc.plan import Constant, Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.cache_layouts import CacheLayout
    from vqcc.ops.base import Dtype, TimedMachine

__all__ = ["AttentionTile", "AttentionWork", "DecodeTile"]

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
#: Query rows that have score tables at a time, at most.
MAX_SCORE_ROWS = 8
#: Query rows whose sums a thread of a kernel that decodes keeps at a time: 32-bit words of all of them, at most.
DECODE_SUM_WORDS = 32
#: Fitted (cycles.py). Of kernels that decode, cycles of a look-up, of a query row, of rotations, and of a segment.
DECODE_LOOK_UP, DECODE_ROW, DECODE_TURNS, DECODE_SEGMENT = 12.0, 100.0, 850.0, 10500.0
#: Warp instructions that an SM issues a cycle: those of exchanges come on top of a look-up's fitted cycles, guessed
#: until it is measured.
EXCHANGE_ISSUE = 4
#: Of others, instructions of a look-up or of a block, and how long busy times are felt together.
SCORE_INSTRUCTIONS, SCORE_ROW_INSTRUCTIONS, SCORE_OVERLAP = 5.0, 250.0, 0.74


@dataclass(frozen=True)
class AttentionWork:
    """A launch in numbers: `batch` sequences of `context` tokens at most, `query_rows` query rows to each kv-head.

    `rotated`: keys are rotated by their positions after decoding. `counters` are there for blocks that merge, in all
    kernels of a library alike: they share a workspace. `exchange` is that of decoded values.
    """

    layout: CacheLayout
    dtype: Dtype
    batch: int
    context: int
    query_rows: int
    counters: int
    rotated: bool = False
    window: int = 0
    exchange: Exchange = field(default_factory=Exchange)

    @property
    def exchange_bytes(self) -> int:
        """Shared memory through which a warp exchanges decoded values."""
        return exchange_scratch_bytes(self.exchange, self.layout.value_size)

    def exchange_cycles(self, groups: int) -> float:
        """Cycles in which a token block's values of so many channel groups are exchanged: of their sums over stages."""
        size = self.layout.value_size
        instructions = exchange_instructions(self.exchange, size) / EXCHANGE_ISSUE
        return groups * BLOCK_TOKENS / WARP_SIZE * (instructions + exchange_wavefronts(self.exchange, size))

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
        return Dealing(pairs, self.work.sequence_blocks, self.blocks, self.row_sets * self.work.batch)

    @property
    def has_room(self) -> bool:
        """Whether all lies where it must, given shared memory enough."""
        return True

    @property
    def row_sets(self) -> int:
        """Sets of query rows of a kv-head: each reads the head's codes anew."""
        return -(-self.work.query_rows // self.rows)

    @property
    def panel_rows(self) -> int:
        """A launch has the same blocks for any size."""
        return 0

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
        exchanged = self.work.exchange_cycles(layout.value_groups)
        busy = DECODE_LOOK_UP * look_ups + DECODE_ROW * self.rows + turns + exchanged
        return BlockCounts(busy, 0, 0, layout.block_bytes, 1.0)

    @property
    def segment_counts(self) -> SegmentCounts:
        """Books that are cached are read again for each head, entry by entry."""
        return SegmentCounts(0, DECODE_SEGMENT)

    @property
    def shared_bytes(self) -> int:
        """Queries, scores or the sums of warps in their place, rows' state, starts of sequences, rotations, scratch."""
        scores = self.rows * self.chunk_blocks * BLOCK_TOKENS
        scratch = max(scores, self._query_floats * self.warps)
        state = round_up(3 * self.rows + 1, 4)
        pairs = self.work.layout.head_dim // 2 if self.work.rotated else 0
        rotations = pairs * 8 * (BLOCK_TOKENS + self.warps)
        exchanged = self.warps * self.work.exchange_bytes
        floats = self._query_floats + scratch + state
        return FLOAT_BYTES * floats + self._progress_bytes + rotations + exchanged

    def _shared_comment(self) -> str:
        return "shared memory behind the books"

    def _own_constants(self) -> tuple[Constant, ...]:
        return (
            Constant("int", "kChunkBlocks", self.chunk_blocks, "token blocks between a softmax and the next"),
        )
