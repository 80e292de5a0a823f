"""What a block of the kernels that append works on: some channel groups of a kv-head's keys or values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.ops.tiles import ELEMENT_TYPES, power_of_two_at_least, power_of_two_at_most, round_up
from vqcc.plan import Constant

if TYPE_CHECKING:
    from vqcc.cache_layouts import CacheLayout
    from vqcc.ops.base import Dtype

__all__ = ["AppendTile", "propose_append_tile"]

#: Warps of a block at most; those that an SM's registers are kept for, by kernels for a token each and for many.
MAX_WARPS = 16
SM_WARPS, SM_WARPS_OF_MANY = 16, 12
WORD_BITS = 32
#: Channel groups of values whose streams a block writes.
MAX_VALUE_GROUPS = 4
#: Of a multiply of tensor cores: rows, and elements of one, or twice as many.
ROWS, ROW_ELEMENTS = 16, 8
#: Books and the squares of their entries that a block has in shared memory, at most.
MAX_BOOK_BYTES = 24 * 1024
#: Where a slot's codes go: an address and a token.
PLACE_BYTES = 16


@dataclass(frozen=True)
class _Search:
    """How warps find nearest entries, for `groups` channel groups (device/attention/nearest.cuh)."""

    groups: int
    size: int
    bits: int
    stages: int

    @property
    def width(self) -> int:
        """Elements of a stored entry."""
        return power_of_two_at_least(self.size)

    @property
    def tile(self) -> int:
        """Vectors that a warp searches for at a time."""
        return min(self.width, ROW_ELEMENTS)

    @property
    def sheet_multiplies(self) -> int:
        """Multiplies for a sheet of entries, at most: a lane has registers for so many."""
        return 4 if self.width > ROW_ELEMENTS else 8

    def shared_bytes(self, warps: int) -> int:
        """Codes of 32 tokens; books, if they fit; and what each warp searches with.

        Of a warp: the squares of a sheet's entries, vectors, also in two parts, and their limits.
        """
        codes = 4 * BLOCK_TOKENS * self.groups * self.stages
        entries = self.stages << self.bits
        books = (count * entries * (2 * self.width + 4) for count in (1, self.groups))
        staged = max((each for each in books if each <= MAX_BOOK_BYTES), default=0)
        of_multiply = ROWS * ROW_ELEMENTS // self.tile
        sheet = min(self.sheet_multiplies, -(-(1 << self.bits) // of_multiply)) * of_multiply
        vectors = round_up(-(-BLOCK_TOKENS // max(1, warps // self.groups)), self.tile)
        of_warp = 4 * (sheet + vectors * (self.size + 2 * -(-self.width // 2) + 1))
        return codes + staged + warps * round_up(of_warp, 16)


@dataclass(frozen=True)
class AppendTile:
    """A block encodes `key_groups` channel groups of keys, or `value_groups` of values, of 32 tokens at a time."""

    layout: CacheLayout
    dtype: Dtype
    batch: int
    warps: int
    key_groups: int
    value_groups: int

    @property
    def parts(self) -> int:
        """Blocks that share the channel groups of all kv-heads; a grid is a multiple of it."""
        layout = self.layout
        keys, values = layout.key_groups // self.key_groups, layout.value_groups // self.value_groups
        return layout.heads * (keys + values)

    def minimum_blocks(self, *, single: bool) -> int:
        """Blocks that an SM must have registers for."""
        return max(1, (SM_WARPS if single else SM_WARPS_OF_MANY) // self.warps)

    @property
    def shared_bytes(self) -> int:
        """What searches for keys or values take, places of 32 codes, and where token blocks of sequences begin."""
        of_searches = max(search.shared_bytes(self.warps) for search in self.searches)
        return of_searches + BLOCK_TOKENS * PLACE_BYTES + 4 * (self.batch + 1)

    @property
    def searches(self) -> tuple[_Search, _Search]:
        """For entries of keys, and of values."""
        layout = self.layout
        return (
            _Search(self.key_groups, layout.key_size, layout.key_bits, layout.key_stages),
            _Search(self.value_groups, layout.value_size, layout.value_bits, layout.value_stages),
        )

    def grid(self, tokens: int, resident_blocks: int) -> int:
        """Blocks for `tokens` new tokens of each sequence of a launch, of which the GPU holds `resident_blocks`.

        One new token each: a share of blocks for each 32 sequences. More: blocks take token blocks in turn, as many as
        there is room for.
        """
        if tokens == 1:
            return self.parts * _shares(self.batch)
        units = self.batch * (-(-(tokens - 1) // BLOCK_TOKENS) + 1)
        return self.parts * max(1, min(units, resident_blocks // self.parts))

    def constants(self) -> tuple[Constant, ...]:
        """The template's `Tile` of kernels that append."""
        return (
            Constant("int", "kWarps", self.warps, "of a block"),
            Constant("int", "kBatch", self.batch, "sequences of a launch, at most"),
            Constant("int", "kKeyGroups", self.key_groups, "channel groups of keys that a block encodes"),
            Constant(
                "int", "kValueGroups", self.value_groups, "channel groups of values that a block encodes"
            ),
            Constant(
                "vqcc::ElementType", "kElement", ELEMENT_TYPES[self.dtype], "type of keys, values and windows"
            ),
            Constant("int", "kOwnSharedBytes", self.shared_bytes, "shared memory of a block"),
        )


def propose_append_tile(layout: CacheLayout, dtype: Dtype, batch: int, sm_count: int) -> AppendTile:
    """As few channel groups to a block as leave its codes of a key whole words, and a warp for each.

    Several warps share a group's sequences if all SMs have room for them at once, and each has a tile of vectors.
    """
    bits = layout.key_bits * layout.key_stages
    key_groups = next(
        count for count in (1, 2, 4, 8, 16, 32) if count == layout.set_groups or count * bits % WORD_BITS == 0
    )
    value_groups = min(MAX_VALUE_GROUPS, layout.value_groups)
    groups = max(key_groups, value_groups)
    alone = AppendTile(layout, dtype, batch, min(MAX_WARPS, groups), key_groups, value_groups)
    teams = min(
        MAX_WARPS // alone.warps,
        -(-min(batch, BLOCK_TOKENS) // min(search.tile for search in alone.searches)),
        SM_WARPS * sm_count // (alone.parts * _shares(batch) * alone.warps),
    )
    return replace(alone, warps=alone.warps * power_of_two_at_most(teams))


def _shares(batch: int) -> int:
    return -(-batch // BLOCK_TOKENS)
