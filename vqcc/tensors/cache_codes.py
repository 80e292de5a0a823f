"""Codes of a KV cache in the kernels' layout, and what encodes vectors as `kv_append` does (docs/packed-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.cache_layouts import BLOCK_TOKENS, FragmentOrder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqcc.cache_layouts import CacheLayout, CodeStream

__all__ = ["nearest_codes", "pack_token_blocks", "unpack_token_blocks"]


def pack_token_blocks(keys: NDArray[Any], values: NDArray[Any], layout: CacheLayout) -> NDArray[np.uint32]:
    """Codes of whole token blocks to words [..., tokens / 32, block_bytes / 4].

    `keys` and `values` are [..., tokens, channel groups, stages]; tokens a multiple of 32.
    """
    keys, values = (_in_blocks(codes) for codes in (keys, values))
    sets = keys.reshape(*keys.shape[:-2], layout.key_sets, layout.set_groups, layout.key_stages)
    sets = _turned(sets, layout)
    key_words = _pack_streams(np.moveaxis(sets, -3, -4), layout.key_stream)
    value_words = _pack_streams(np.moveaxis(values, -2, -3), layout.value_stream)
    return np.concatenate([key_words.reshape(*value_words.shape[:-1], -1), value_words], axis=-1)


def unpack_token_blocks(
    words: NDArray[np.uint32], layout: CacheLayout
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Inverse of `pack_token_blocks`: codes of keys and of values [..., tokens, channel groups, stages]."""
    outer = words.shape[:-1]
    key_words = layout.key_sets * layout.key_stream.bytes // 4
    of_sets = words[..., :key_words].reshape(*outer, layout.key_sets, -1)
    sets = _unpack_streams(of_sets, layout.key_stream)
    sets = sets.reshape(*outer, layout.key_sets, BLOCK_TOKENS, layout.set_groups, layout.key_stages)
    sets = _turned(np.moveaxis(sets, -4, -3), layout, back=True)
    keys = sets.reshape(*outer, BLOCK_TOKENS, layout.key_groups, layout.key_stages)
    values = _unpack_streams(words[..., key_words:], layout.value_stream)
    values = values.reshape(*outer, layout.value_groups, BLOCK_TOKENS, layout.value_stages)
    return _out_of_blocks(keys), _out_of_blocks(np.moveaxis(values, -3, -2))


def nearest_codes(vectors: NDArray[Any], book: NDArray[Any]) -> NDArray[np.uint16]:
    """Codes [..., stages] of `vectors` [..., x]: each stage's nearest entry to what the stages before have left.

    `book` is [stages, entries, x]. In float32 in the order of the kernel, channel by channel, ties to the lower entry:
    the same bits. A vector with NaN gets entry 0, whose distance the kernel takes for infinite.
    """
    rest = vectors.astype(np.float32)
    codes = np.empty((*rest.shape[:-1], len(book)), np.uint16)
    for stage, table in enumerate(book):
        entries = table.astype(np.float32)
        distances = np.zeros((*rest.shape[:-1], len(entries)), np.float32)
        for channel in range(rest.shape[-1]):
            difference = rest[..., None, channel] - entries[:, channel]
            distances += difference * difference
        nearest = np.where(np.isnan(distances), np.float32(np.inf), distances).argmin(axis=-1)
        codes[..., stage] = nearest
        rest = rest - entries[nearest]
    return codes


def _in_blocks(codes: NDArray[Any]) -> NDArray[Any]:
    *outer, tokens, groups, stages = codes.shape
    return codes.reshape(*outer, tokens // BLOCK_TOKENS, BLOCK_TOKENS, groups, stages)


def _out_of_blocks(codes: NDArray[Any]) -> NDArray[Any]:
    *outer, blocks, _, groups, stages = codes.shape
    return codes.reshape(*outer, blocks * BLOCK_TOKENS, groups, stages)


def _turned(sets: NDArray[Any], layout: CacheLayout, *, back: bool = False) -> NDArray[Any]:
    """Codes [..., tokens, sets, groups, stages] with groups where their positions are, or the other way round."""
    if layout.key_order == "fragment":
        return _fragments(sets, layout, back=back)
    if layout.key_order == "plain":
        return sets
    tokens, positions = np.arange(BLOCK_TOKENS)[:, None], np.arange(layout.set_groups)[None, :]
    groups = ((tokens ^ positions) % layout.set_groups)[:, None, :, None]
    turned: NDArray[Any] = np.take_along_axis(
        sets, groups.reshape((1,) * (sets.ndim - 4) + groups.shape), axis=-2
    )
    return turned


def _fragments(sets: NDArray[Any], layout: CacheLayout, *, back: bool) -> NDArray[Any]:
    """Codes [..., tokens, sets, groups, stages] as lanes have them [..., lanes, sets, places, stages], or back."""
    order = FragmentOrder(layout.key_groups, layout.key_size)
    where = np.array(
        [[order.place(token, group) for group in range(layout.key_groups)] for token in range(BLOCK_TOKENS)]
    )
    lanes, places = where[..., 0], where[..., 1]
    flat = sets.reshape(*sets.shape[:-3], layout.key_groups, layout.key_stages)
    turned = np.empty_like(flat)
    if back:
        turned[...] = flat[..., lanes, places, :]
    else:
        turned[..., lanes, places, :] = flat
    return turned.reshape(sets.shape)


def _pack_streams(codes: NDArray[Any], stream: CodeStream) -> NDArray[np.uint32]:
    """Codes [..., lanes, (anything), stages] to the words of all lanes' streams [..., lanes * words]."""
    lanes_axis = codes.ndim - 3
    outer = codes.shape[:lanes_axis]
    flat = np.ascontiguousarray(codes, dtype=np.uint32).reshape(*outer, stream.lanes, stream.codes)
    bits = flat[..., None] >> np.arange(stream.code_bits, dtype=np.uint32) & 1
    padded = np.zeros((*outer, stream.lanes, stream.words * 32), np.uint8)
    padded[..., : stream.codes * stream.code_bits] = bits.reshape(*outer, stream.lanes, -1)
    words = np.packbits(padded, axis=-1, bitorder="little").view("<u4")
    pieces = words.reshape(*outer, stream.lanes, -1, stream.piece_words)
    return np.ascontiguousarray(np.swapaxes(pieces, -2, -3)).reshape(*outer, -1).astype(np.uint32)


def _unpack_streams(words: NDArray[np.uint32], stream: CodeStream) -> NDArray[np.uint16]:
    """Inverse of `_pack_streams`: codes [..., lanes, codes]."""
    outer = words.shape[:-1]
    pieces = words.reshape(*outer, -1, stream.lanes, stream.piece_words)
    own = np.ascontiguousarray(np.swapaxes(pieces, -2, -3)).reshape(*outer, stream.lanes, stream.words)
    bits = np.unpackbits(own.astype("<u4").view(np.uint8), axis=-1, bitorder="little")
    held = bits[..., : stream.codes * stream.code_bits].reshape(*outer, stream.lanes, stream.codes, -1)
    weights = np.arange(stream.code_bits, dtype=np.uint16)
    codes: NDArray[np.uint16] = np.sum(held.astype(np.uint16) << weights, axis=-1, dtype=np.uint16)
    return codes
