"""Tiles of kernels that look entries up by rows: their shared memory, and what a token block takes.

Shared memory is counted here as the device headers lay it out; `tests/ops/attention/test_tile.py` holds them together.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from vqcc.cache_layouts import BLOCK_TOKENS, TABLE_ROWS
from vqcc.ops.attention.cycles import BlockCounts, SegmentCounts
from vqcc.ops.attention.tile import (
    CELL_BYTES,
    FLOAT_BYTES,
    HALF_FLOAT_BYTES,
    MAX_CELL_ROWS,
    REGION_BYTES,
    REGION_ROW_BYTES,
    WARP_SIZE,
    WAVEFRONT_BYTES,
    AttentionTile,
)
from vqcc.ops.tiles import round_up
from vqcc.plan import Constant

__all__ = ["FragmentTile", "RopeFragmentTile", "RowTile", "ScoreTile"]

#: Warp instructions, counted in machine code: of a look-up, place and load; of adding a score up, and more for each row
#: of a cell; of a channel of a value, for each row, or on tensor cores beside the multiply; of a token block, of a row.
LOOK_UP, SCORE, SCORE_ROW = 2.0, 0.4, 0.6
CHANNEL, MULTIPLIED_CHANNEL = 0.7, 0.5
BLOCK, ROW = 60.0, 30.0
#: Of products on tensor cores: what brings them to their tokens' lanes; and, fitted, cycles until queries are operands.
PRODUCTS, QUERY_CYCLES = 70.0, 9000.0
#: Warp instructions of keys that are rotated: of a channel's entries, and of a token block's queries, which are rotated
#: back; these are read in fp32, written, and read in each of four turns (QUERY_PASSES, in float16).
ROTATION, ROTATED_QUERIES, QUERY_PASSES = 1.2, 130.0, 7
#: Fitted: how long busy times are felt together, longer where codes come straight to registers, and where fewer
#: warps work while others wait.
BUSY, WAITS = 0.82, 2.9
ROW_OVERLAP, DIRECT, FRAGMENT_OVERLAP, ROPE_OVERLAP = 0.85, 1.1, 1.35, 1.1


@dataclass(frozen=True)
class RowTile(AttentionTile):
    """Entries are looked up by rows (device/attention/row_shared.cuh).

    A warp has codes of `stages` iterations on their way through shared memory; without any, those of the next one come
    straight to registers. With `tables_region`, tables begin so many regions into a block's window of shared memory, of
    which the driver has the first `reserved_bytes`: what is looked up there has a place that needs no addition.
    """

    stages: int = 1
    tables_region: int = 0
    reserved_bytes: int = 0

    @property
    @abstractmethod
    def product_bytes(self) -> int:
        """Tables or rows of keys, whole regions."""

    @property
    @abstractmethod
    def remakes_tables(self) -> bool:
        """Whether they are made for every segment: what lay there is lost between."""

    @property
    @abstractmethod
    def multiplies_values(self) -> bool:
        """Whether weighted values are added up on tensor cores."""

    @property
    def warp_weight_bytes(self) -> int:
        """A warp's weights in float16, for each team of lanes."""
        return self._teams * BLOCK_TOKENS * self.rows * HALF_FLOAT_BYTES

    @property
    def warp_scratch_bytes(self) -> int:
        """What scores of a warp pass through."""
        return 0

    @property
    def rotation_bytes(self) -> int:
        """Rotations of a token block's tokens, where keys need them."""
        return 0

    @property
    def _look_up(self) -> float:
        """Instructions of a look-up: a place that is counted from where tables lie takes an addition."""
        return LOOK_UP + (0 if self.tables_region else 1)

    def _count(
        self, key_wavefronts: float, key_instructions: float, key_multiplies: float, overlap: float
    ) -> BlockCounts:
        """What a token block takes: keys, an entry of each channel group of values, weights, and codes."""
        layout, rows = self.work.layout, self.rows
        codes = (
            layout.block_bytes / WAVEFRONT_BYTES * (2 if self.stages else 1)
        )  # stored and loaded, or loaded
        if self.multiplies_values:
            channel, multiplies, weights = MULTIPLIED_CHANNEL, layout.head_dim / 4, 1.0 * BLOCK_TOKENS + rows
        else:
            channel, multiplies, weights = CHANNEL * rows, 0.0, BLOCK_TOKENS * rows / 4
        values = layout.value_groups * self._look_up + layout.head_dim * channel + multiplies
        return BlockCounts(
            key_wavefronts + layout.head_dim / 2 + weights + codes,
            key_instructions + values + BLOCK + ROW * rows,
            key_multiplies + multiplies,
            layout.block_bytes,
            overlap * (1 if self.stages else DIRECT) * (BUSY + WAITS / self.warps),
        )

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
    def has_room(self) -> bool:
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
        queries = FLOAT_BYTES * self._query_floats
        return (
            own
            + self.rotation_bytes
            + queries
            + state
            + self._progress_bytes
            + (0 if self._sums_have_room else self.warps * queries)
        )

    @property
    def _sums_have_room(self) -> bool:
        """Whether sums of warps fit where tables were that are made anew, or codes."""
        sums = self.warps * FLOAT_BYTES * self._query_floats
        in_tables = self.remakes_tables and sums <= self.product_bytes
        return in_tables or (self.stages > 0 and sums <= self._stage_bytes)

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
        """A look-up a channel group: of scores a cell for each four rows, of values an entry."""
        layout, cells = self.work.layout, -(-self.rows // MAX_CELL_ROWS)
        cell_rows = min(self.rows, MAX_CELL_ROWS)
        look_ups = layout.key_groups * cells
        return self._count(
            look_ups * CELL_BYTES[cell_rows] / 4,
            look_ups * (self._look_up + SCORE + SCORE_ROW * cell_rows),
            0.0,
            ROW_OVERLAP,
        )

    @property
    def segment_counts(self) -> SegmentCounts:
        """A table of every key entry, for every segment; rows of values, for every head."""
        work = self.work
        entries = TABLE_ROWS * -(-work.layout.key_groups // WARP_SIZE)
        cycles = entries * work.layout.key_size / 2 * (1 + 2 * self.rows)
        return SegmentCounts(work.key_rows.bytes, cycles, work.value_rows.bytes)

    @property
    def remakes_tables(self) -> bool:
        """Queries differ."""
        return True

    @property
    def multiplies_values(self) -> bool:
        """As it was proposed."""
        return self.multiplied

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
    def remakes_tables(self) -> bool:
        """Rows stay."""
        return False

    @property
    def multiplies_values(self) -> bool:
        """They are."""
        return True

    @property
    def block_counts(self) -> BlockCounts:
        """Entries of keys are operands of a multiply, or two; products reach their tokens' lanes by shared memory."""
        layout = self.work.layout
        multiplies = layout.head_dim / 4 * (2 if layout.key_size == 2 else 1)
        products = BLOCK_TOKENS * self.rows * FLOAT_BYTES * 2 / WAVEFRONT_BYTES
        return self._count(
            layout.key_groups * layout.key_size / 2 + products,
            layout.key_groups * self._look_up + multiplies + PRODUCTS,
            multiplies,
            FRAGMENT_OVERLAP,
        )

    @property
    def segment_counts(self) -> SegmentCounts:
        """Rows of both books, for every head, and operands of queries."""
        books = self.work.key_rows.bytes + self.work.value_rows.bytes
        return SegmentCounts(0, QUERY_CYCLES, books)

    @property
    def product_bytes(self) -> int:
        """Rows of keys."""
        return self.work.key_rows.bytes

    @property
    def warp_scratch_bytes(self) -> int:
        """Scores on their way from the lanes that have columns to those that have tokens."""
        return BLOCK_TOKENS * self.rows * FLOAT_BYTES


@dataclass(frozen=True)
class RopeFragmentTile(FragmentTile):
    """The same for keys that are rotated after decoding (device/attention/rope_keys.cuh).

    Queries are rotated back once a token block, entries by what is left.
    """

    @property
    def block_counts(self) -> BlockCounts:
        """Beside what keys take that are not rotated: turns of entries and queries, by tables in shared memory."""
        counts, head_dim = super().block_counts, self.work.layout.head_dim
        queries = self.rows * head_dim * HALF_FLOAT_BYTES * QUERY_PASSES / WAVEFRONT_BYTES
        return replace(
            counts,
            overlap=counts.overlap * ROPE_OVERLAP / FRAGMENT_OVERLAP,
            wavefronts=counts.wavefronts + head_dim / 2 + queries,
            instructions=counts.instructions + ROTATION * head_dim + ROTATED_QUERIES,
        )

    @property
    def rotation_bytes(self) -> int:
        """Of each token of a block, cosine and sine of each pair of channels in float16."""
        return BLOCK_TOKENS * 2 * self.work.layout.head_dim

    @property
    def warp_scratch_bytes(self) -> int:
        """Rotated queries in float16, of each row 16 bytes more; then scores in their place."""
        queries = self.rows * (self.work.layout.head_dim * HALF_FLOAT_BYTES + 16)
        return max(queries, super().warp_scratch_bytes)
