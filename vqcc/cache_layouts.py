"""How packed codes of a KV cache lie in memory (docs/packed-layout.md): the same for every kernel of a library.

Kernels read it (device/attention/cache.cuh), the one that appends writes it; `vqcc.tensors.cache_codes` does both.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BLOCK_TOKENS", "CacheLayout", "CodeStream"]

#: Tokens whose codes lie together: the lanes of a warp.
BLOCK_TOKENS = 32


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
class CacheLayout:
    """Pages of token blocks: of each kv-head, of each block of 32 tokens, codes of keys, then codes of values.

    Keys: lane = token, a stream for each set of up to 32 channel groups; if `rotated`, position p of token t is group
    p ^ t of its set (both modulo the set), else group p. Values: lane = channel group, a stream of the block's tokens.
    Codes of a vector's stages follow one another. `page_tokens` is 0 for a contiguous cache, whose pages are sequences.
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
    rotated: bool

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

    def page_bytes(self, tokens: int) -> int:
        """Bytes of a page of `tokens` tokens, a multiple of 32."""
        return self.heads * (tokens // BLOCK_TOKENS) * self.block_bytes
