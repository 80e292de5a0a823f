"""What a block of the kernels that append works on: some channel groups of a kv-head's keys or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.ops.tiles import ELEMENT_TYPES
from vqcc.plan import Constant

if TYPE_CHECKING:
    from vqcc.cache_layouts import CacheLayout
    from vqcc.ops.base import Dtype

__all__ = ["AppendTile", "propose_append_tile"]

#: Warps of a block: with 8 entries of a lane each, as many as the SM's schedulers keep busy.
WARPS = 16
WORD_BITS = 32
#: Channel groups of values whose streams a block writes.
MAX_VALUE_GROUPS = 4


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

    @property
    def shared_bytes(self) -> int:
        """Codes of 32 tokens, and where the token blocks of each sequence begin."""
        layout = self.layout
        codes = max(self.key_groups * layout.key_stages, self.value_groups * layout.value_stages)
        return 4 * (BLOCK_TOKENS * codes + self.batch + 1)

    def grid(self, tokens: int, resident_blocks: int) -> int:
        """Blocks for `tokens` new tokens of each sequence of a launch, of which the GPU holds `resident_blocks`.

        One new token each: blocks take 32 sequences at a time; more: token blocks of any sequence.
        """
        units = (
            -(-self.batch // BLOCK_TOKENS)
            if tokens == 1
            else self.batch * (-(-(tokens - 1) // BLOCK_TOKENS) + 1)
        )
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


def propose_append_tile(layout: CacheLayout, dtype: Dtype, batch: int) -> AppendTile:
    """As few channel groups to a block as leave its codes of a key whole words."""
    bits = layout.key_bits * layout.key_stages
    key_groups = next(
        count for count in (1, 2, 4, 8, 16, 32) if count == layout.set_groups or count * bits % WORD_BITS == 0
    )
    return AppendTile(layout, dtype, batch, WARPS, key_groups, min(MAX_VALUE_GROUPS, layout.value_groups))
