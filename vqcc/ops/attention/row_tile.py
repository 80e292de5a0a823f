"""Tiles of kernels that look entries up by rows: their shared memory, and what a token block takes.

Shared memory is counted here as the device headers lay it out; `tests/ops/attention/test_tile.py` holds them together.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from vqcc.cache_layouts import BLOCK_TOKENS, TABLE_ROWS
from vqcc.ops.attention.cycles import BlockCounts, SegmentCounts
from vqcc.ops.attention.tile import (
    CELL_BYTES,
    FLOAT_BYTES,
    HALF_FLOAT_BYTES,
    MAX_CELL_ROWS,
    REGION_BYTES,
    REGION_ROW_BYTES,
    SCORE_INSTRUCTIONS,
    SCORE_OVERLAP,
    SCORE_ROW_INSTRUCTIONS,
    WARP_SIZE,
    WAVEFRONT_BYTES,
    AttentionTile,
)
from vqcc.ops.tiles import round_up
from vqcc.plan import Constant

__all__ = ["FragmentTile", "RowTile", "ScoreTile"]

FRAGMENT_INSTRUCTIONS, FRAGMENT_BLOCK_INSTRUCTIONS, FRAGMENT_OVERLAP = 4.0, 200.0, 0.8


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
        queries = FLOAT_BYTES * self._query_floats
        return (
            own
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
