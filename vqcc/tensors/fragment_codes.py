"""Codes in the order of tensor-core fragments: packed, and taken apart again (docs/packed-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vqcc.code_layouts import FragmentLayout

__all__ = ["pack_fragments", "unpack_fragments"]


def pack_fragments(codes: NDArray[Any], layout: FragmentLayout) -> NDArray[np.uint32]:
    """Codes [residuals, n, vectors] to words of the layout's `code_shape`; padding is zero."""
    residuals, rows, _ = codes.shape
    steps, blocks, _ = layout.code_shape(rows)
    padded = np.zeros((residuals, blocks * layout.BLOCK_ROWS, layout.vectors + 1), codes.dtype)
    padded[:, :rows, :-1] = codes  # the last vector stands for those past the row's end
    numbers = _vectors(layout)
    words = np.zeros((padded.shape[1], layout.QUAD, steps, layout.step_words + 1), np.uint32)
    for place, residual, bit in _places(layout):
        code = padded[residual][:, numbers[:, :, place]].astype(np.uint64) << np.uint64(bit % 32)
        words[..., bit // 32] |= (code & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        words[..., bit // 32 + 1] |= (code >> np.uint64(32)).astype(np.uint32)
    groups = layout.BLOCK_ROWS // layout.GROUP_ROWS
    own = words[..., :-1].reshape(blocks, groups, layout.GROUP_ROWS, layout.QUAD, steps, layout.step_words)
    return np.ascontiguousarray(own.transpose(4, 0, 5, 2, 3, 1)).reshape(layout.code_shape(rows))


def unpack_fragments(words: NDArray[np.uint32], layout: FragmentLayout) -> NDArray[np.uint16]:
    """Inverse of `pack_fragments`: codes [residuals, rows, vectors], padded to whole blocks of rows."""
    steps, blocks, _ = words.shape
    groups = layout.BLOCK_ROWS // layout.GROUP_ROWS
    lanes = words.reshape(steps, blocks, layout.step_words, layout.GROUP_ROWS, layout.QUAD, groups)
    rows = blocks * layout.BLOCK_ROWS
    own = lanes.transpose(1, 5, 3, 4, 0, 2).reshape(rows, layout.QUAD, steps, layout.step_words)
    own = np.concatenate([own, np.zeros_like(own[..., :1])], axis=-1).astype(np.uint64)
    codes = np.zeros((layout.residuals, rows, layout.vectors + 1), np.uint16)
    numbers = _vectors(layout)
    for place, residual, bit in _places(layout):
        value = own[..., bit // 32] >> np.uint64(bit % 32)
        if bit % 32 + layout.code_bits > 32:
            value |= own[..., bit // 32 + 1] << np.uint64(32 - bit % 32)
        codes[residual][:, numbers[:, :, place]] = value & np.uint64((1 << layout.code_bits) - 1)
    return codes[:, :, :-1]


def _vectors(layout: FragmentLayout) -> NDArray[np.int64]:
    """Vector number [lanes of a quad, steps, vectors of a step]; `layout.vectors` for those past the row's end."""
    own = np.arange(layout.steps * layout.step_vectors).reshape(1, layout.steps, layout.step_vectors)
    lane = np.arange(layout.QUAD).reshape(-1, 1, 1)
    span = layout.span_vectors
    numbers: NDArray[np.int64] = (own // span * layout.QUAD + lane) * span + own % span
    return np.minimum(numbers, layout.vectors, dtype=np.int64)


def _places(layout: FragmentLayout) -> Iterator[tuple[int, int, int]]:
    """Vector of a step, residual stage, and first bit of that code."""
    for place in range(layout.step_vectors):
        for residual in range(layout.residuals):
            yield place, residual, (place * layout.residuals + residual) * layout.code_bits
