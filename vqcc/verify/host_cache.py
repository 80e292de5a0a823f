"""A KV cache in host memory, and what appending tokens to it must give: the reference of the kernels that append."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.tensors.cache_codes import nearest_codes, pack_token_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vqcc.cache_layouts import CacheLayout
    from vqcc.tensors.cache_tensor import CacheTensor

__all__ = ["HostCache", "draw_cache", "encode"]

#: What lies where no token has ever been.
GARBAGE = 0xDEADBEEF
#: Pages that no sequence has.
SPARE_PAGES = 2


@dataclass(frozen=True, eq=False)
class HostCache:
    """Codes and windows of some sequences, and where their token blocks lie.

    `codes` of keys and of values [sequences, kv_heads, tokens, groups, stages], zero from `coded` tokens on; windows
    [sequences, kv_heads, window, head_dim], position p at slot p % window. `pages` [pages, kv_heads, page blocks,
    words] have them packed; `table` [sequences, pages of each], or None for one page to a sequence.
    """

    layout: CacheLayout
    window: int
    lengths: NDArray[np.int32]
    key_codes: NDArray[np.uint16]
    value_codes: NDArray[np.uint16]
    key_window: NDArray[Any]
    value_window: NDArray[Any]
    pages: NDArray[np.uint32]
    table: NDArray[np.int32] | None

    @property
    def page_blocks(self) -> int:
        """Token blocks of a page."""
        return int(self.pages.shape[2])

    @property
    def coded(self) -> NDArray[np.int32]:
        """Tokens of each sequence that are in codes."""
        return np.maximum(self.lengths - self.window, 0)

    def decoded(self, tensor: CacheTensor, sequence: int, *, keys: bool) -> NDArray[np.float64]:
        """Keys or values of a sequence [kv_heads, tokens, head_dim] in float64, the newest from the window."""
        codes, window = (self.key_codes, self.key_window) if keys else (self.value_codes, self.value_window)
        coded, length = int(self.coded[sequence]), int(self.lengths[sequence])
        own = replace(tensor, codes=codes[sequence : sequence + 1, :, :coded]).decode()[0]
        slots = [position % max(1, self.window) for position in range(coded, length)]
        return np.concatenate([own, window[sequence][:, slots].astype(np.float64)], axis=1)

    def appended(
        self,
        tensors: tuple[CacheTensor, CacheTensor],
        new: tuple[NDArray[Any], NDArray[Any]],
        counts: Sequence[int],
    ) -> HostCache:
        """The cache once each sequence has its count of new keys and values [sequences, tokens, kv_heads, head_dim]."""
        codes = [self.key_codes.copy(), self.value_codes.copy()]
        windows = [self.key_window.copy(), self.value_window.copy()]
        lengths = self.lengths + np.array(counts, np.int32)
        for side, (tensor, tokens) in enumerate(zip(tensors, new, strict=True)):
            for sequence, count in enumerate(counts):
                for number in range(count):
                    position = int(self.lengths[sequence]) + number
                    leaving = tokens[sequence, number]
                    if self.window:
                        slot = windows[side][sequence, :, position % self.window]
                        leaving, slot[:] = slot.copy(), tokens[sequence, number]
                    if position >= self.window:
                        codes[side][sequence, :, position - self.window] = encode(tensor, leaving)
        own = replace(
            self,
            lengths=lengths,
            key_codes=codes[0],
            value_codes=codes[1],
            key_window=windows[0],
            value_window=windows[1],
        )
        return replace(own, pages=own._packed(self.pages))

    def used_table(self) -> NDArray[np.int32]:
        """The page table with -1 for pages that have no token in codes, which no kernel that attends may look at."""
        assert self.table is not None
        used = self.table.copy()
        for sequence, coded in enumerate(self.coded):
            used[sequence, -(-int(coded) // (self.page_blocks * BLOCK_TOKENS)) :] = -1
        return used

    def _packed(self, pages: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """`pages` with every token block that has a token in codes."""
        packed = pages.copy()
        words = pack_token_blocks(self.key_codes, self.value_codes, self.layout)
        for sequence, coded in enumerate(self.coded):
            for block in range(-(-int(coded) // BLOCK_TOKENS)):
                page, place = divmod(block, self.page_blocks)
                number = sequence if self.table is None else self.table[sequence, page]
                packed[number, :, place] = words[sequence, :, block]
        return packed


def encode(tensor: CacheTensor, vectors: NDArray[Any]) -> NDArray[np.uint16]:
    """Codes [kv_heads, groups, stages] of one token's vectors [kv_heads, head_dim], by the codebooks of `tensor`."""
    size = tensor.algorithm.vector_size
    grouped = vectors.reshape(*vectors.shape[:-1], -1, size)
    heads, groups = grouped.shape[:2]
    return np.stack(
        [
            np.stack(
                [nearest_codes(grouped[head, group], tensor.book_of(head, group)) for group in range(groups)]
            )
            for head in range(heads)
        ]
    )


def draw_cache(
    rng: np.random.Generator,
    layout: CacheLayout,
    window: int,
    element: Any,
    tensors: tuple[CacheTensor, CacheTensor],
    lengths: Sequence[int],
    capacity: int,
) -> HostCache:
    """A cache with room for `capacity` tokens of each sequence, with the codes of `tensors` as far as they reach.

    Further codes are random, and so are windows and the order of pages. What no token has holds garbage.
    """
    sequences = len(lengths)
    blocks = max(1, -(-capacity // BLOCK_TOKENS))
    page_blocks = layout.page_tokens // BLOCK_TOKENS or blocks
    own_pages = -(-blocks // page_blocks)
    blocks = own_pages * page_blocks
    coded = np.maximum(np.array(lengths, np.int32) - window, 0)
    key_codes, value_codes = (_draw_codes(rng, tensor, coded, blocks * BLOCK_TOKENS) for tensor in tensors)
    shape = (sequences, layout.heads, max(1, window), layout.head_dim)
    keys, values = (rng.standard_normal(shape, dtype=np.float32).astype(element) for _ in "kv")
    spare = SPARE_PAGES if layout.page_tokens else 0
    pages = np.full(
        (sequences * own_pages + spare, layout.heads, page_blocks, layout.block_bytes // 4),
        GARBAGE,
        np.uint32,
    )
    table = None
    if layout.page_tokens:
        order = rng.permutation(len(pages))[: sequences * own_pages]
        table = order.reshape(sequences, own_pages).astype(np.int32)
    own_lengths = np.array(lengths, np.int32)
    cache = HostCache(layout, window, own_lengths, key_codes, value_codes, keys, values, pages, table)
    return replace(cache, pages=cache._packed(pages))


def _draw_codes(
    rng: np.random.Generator, tensor: CacheTensor, coded: NDArray[np.int32], tokens: int
) -> NDArray[np.uint16]:
    """Codes of `coded` tokens of each sequence, in room for `tokens`."""
    algorithm, held = tensor.algorithm, tensor.codes
    sequences, heads = len(coded), tensor.shape[0]
    shape = (sequences, heads, tokens, tensor.groups, algorithm.residuals)
    codes = rng.integers(0, algorithm.entries, shape, dtype=np.uint16)
    known = min(tokens, held.shape[2])
    for sequence in range(sequences):
        codes[sequence, :, :known] = held[sequence % len(held), :, :known]
        codes[sequence, :, coded[sequence] :] = 0
    return codes
