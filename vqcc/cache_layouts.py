"""How packed codes of a KV cache lie in memory (docs/packed-layout.md): the same for every kernel of a library.

Kernels read it (device/attention/cache.cuh), the one that appends writes it; `vqcc.tensors.cache_codes` does both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "BLOCK_TOKENS",
    "ROW_BYTES",
    "TABLE_ROWS",
    "CacheLayout",
    "CodeStream",
    "EntryRows",
    "FragmentOrder",
    "KeyOrder",
]

#: In what order a token block's keys lie: a lane for each token, its groups in order or rotated, or as operands of
#: tensor cores (device/attention/cache.cuh).
KeyOrder = Literal["plain", "rotated", "fragment"]

#: Tokens whose codes lie together: the lanes of a warp.
BLOCK_TOKENS = 32
WARP_SIZE = 32

#: Of a table of entries by rows: its rows, and the bytes of one.
TABLE_ROWS, ROW_BYTES = 256, 256


@dataclass(frozen=True)
class CodeStream:
    """A lane's codes of one token block: a little-endian bit stream, padded to whole 32-bit words.

    It holds `codes` codes of `code_bits` each. Pieces of `piece_words` words of `lanes` streams lie side by side.
    """

    codes: int
    code_bits: int
    lanes: int

    @property
    def words(self) -> int:
        """Words of a stream."""
        return -(-self.codes * self.code_bits // 32)

    @property
    def piece_words(self) -> int:
        """Words that a lane loads at once."""
        return next(words for words in (4, 2, 1) if self.words % words == 0)

    @property
    def bytes(self) -> int:
        """Bytes of all lanes' streams."""
        return 4 * self.words * self.lanes


@dataclass(frozen=True)
class FragmentOrder:
    """Keys as operand B of m16n8k16, columns tokens: lane 4 g + t has tokens g, g + 8, g + 16 and g + 24.

    Of every `block_groups` channel groups it has group t (and t + 4). It meets the blocks of a token in the order of
    step ^ turn, so that no two lanes that look up at a time meet in a bank.
    """

    groups: int
    vector_size: int

    @property
    def block_groups(self) -> int:
        """Channel groups of a block: 16 channels or more."""
        return 8 if self.vector_size == 2 else 4

    @property
    def steps(self) -> int:
        """Blocks of a token."""
        return self.groups // self.block_groups

    @property
    def turns(self) -> int:
        """Turns in which tokens meet the blocks: rows of operand A that are one query's have four."""
        return min(self.steps, self.block_groups)

    def place(self, token: int, group: int) -> tuple[int, int]:
        """The lane that has a channel group of a token of the block, and the number of its code there."""
        look_ups = self.block_groups // 4
        turn = token % 8 % self.turns
        step = (group // self.block_groups) ^ turn
        # Tokens of the upper four of eight turns meet the halves of a block the other way round.
        look_up = group % self.block_groups // 4 ^ turn // 4 % look_ups
        return token % 8 * 4 + group % 4, (token // 8 * self.steps + step) * look_ups + look_up


@dataclass(frozen=True)
class CacheLayout:
    """Pages of token blocks: of each kv-head, of each block of 32 tokens, codes of keys, then codes of values.

    Keys: lane = token, a stream for each set of up to 32 channel groups. Position p of token t's is group p, or, if
    `key_order` is `rotated`, group p ^ t of its set (both modulo the set); `fragment` has an order of its own
    (FragmentOrder). Values: lane = channel group, a stream of the block's tokens. Codes of a vector's stages follow one
    another. `page_tokens` is 0 where launches say how long pages are: of a contiguous cache, whose pages are sequences,
    and of a library whose kernels have several sizes of pages. Token blocks are the same in all of them.
    """

    heads: int
    head_dim: int
    key_size: int
    key_bits: int
    key_stages: int
    value_size: int
    value_bits: int
    value_stages: int
    page_tokens: int
    key_order: KeyOrder

    @property
    def key_groups(self) -> int:
        """Channel groups of a key."""
        return self.head_dim // self.key_size

    @property
    def value_groups(self) -> int:
        """Channel groups of a value."""
        return self.head_dim // self.value_size

    @property
    def set_groups(self) -> int:
        """Channel groups of a key that share a stream."""
        return min(self.key_groups, BLOCK_TOKENS)

    @property
    def key_sets(self) -> int:
        """Streams of a key."""
        return self.key_groups // self.set_groups

    @property
    def key_stream(self) -> CodeStream:
        """Codes of a token's set of channel groups."""
        return CodeStream(self.set_groups * self.key_stages, self.key_bits, BLOCK_TOKENS)

    @property
    def value_stream(self) -> CodeStream:
        """Codes of a channel group's tokens."""
        return CodeStream(BLOCK_TOKENS * self.value_stages, self.value_bits, self.value_groups)

    @property
    def block_bytes(self) -> int:
        """Bytes of a kv-head's token block."""
        return self.key_sets * self.key_stream.bytes + self.value_stream.bytes

    def in_pages(self, page_tokens: int) -> CacheLayout:
        """The same token blocks in pages of `page_tokens` tokens, a multiple of 32; 0: in contiguous sequences."""
        return replace(self, page_tokens=page_tokens)

    def page_bytes(self, tokens: int) -> int:
        """Bytes of a page of `tokens` tokens, a multiple of 32."""
        return self.heads * (tokens // BLOCK_TOKENS) * self.block_bytes


@dataclass(frozen=True)
class EntryRows:
    """Tables of 256 rows of 256 bytes. Row e holds entry e of a head's channel groups, for the lanes that look it up.

    Group g is lane g % team_lanes of slot g / team_lanes; where there is room teams of lanes have copies of their own.
    Entries of more than `word_bytes` are cut into such words, each beside those of the other lanes.
    """

    head_dim: int
    vector_size: int

    @property
    def groups(self) -> int:
        """Channel groups of a head."""
        return self.head_dim // self.vector_size

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry of float16."""
        return 2 * self.vector_size

    @property
    def word_bytes(self) -> int:
        """Bytes that a lane loads at once."""
        return min(16, self.entry_bytes)

    @property
    def team_lanes(self) -> int:
        """Lanes that look different groups of a token up at once."""
        return min(self.groups, WARP_SIZE, ROW_BYTES // self.entry_bytes)

    @property
    def copies(self) -> int:
        """Copies of a slot, for teams of lanes."""
        return min(WARP_SIZE // self.team_lanes, ROW_BYTES // (self.team_lanes * self.entry_bytes))

    @property
    def slot_lanes(self) -> int:
        """Entries of a slot, copies included."""
        return self.copies * self.team_lanes

    @property
    def table_slots(self) -> int:
        """Slots of a row."""
        return ROW_BYTES // (self.entry_bytes * self.slot_lanes)

    @property
    def tables(self) -> int:
        """Tables of a head."""
        return -(-self.groups // (self.team_lanes * self.table_slots))

    @property
    def bytes(self) -> int:
        """Bytes of a head's tables."""
        return self.tables * TABLE_ROWS * ROW_BYTES
