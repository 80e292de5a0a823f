"""Codes rotated by row, for score tables: packed, and taken apart again (docs/packed-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqcc.code_layouts import RotatedLayout

__all__ = ["pack_rotated", "unpack_rotated"]

#: In byte k of a word of low bits: where the low and the high two bits stand of codes k and 4 + k, and of which byte.
LOW_BITS, HIGH_BITS, LATER_LOW_BITS, LATER_HIGH_BITS = 0, 6, 4, 2


def pack_rotated(codes: NDArray[Any], layout: RotatedLayout) -> NDArray[np.uint32]:
    """Codes [residuals, n, vectors] to words of the layout's `code_shape`; padding is zero."""
    residuals, rows, vectors = codes.shape
    panels, groups, _ = layout.code_shape(rows)
    lanes, panel = layout.GROUP_ROWS, layout.panel_codes
    stages = np.zeros((groups * lanes, residuals, layout.padded_vectors), dtype=np.uint16)
    stages[:rows, :, :vectors] = codes.transpose(1, 0, 2)
    whole = np.zeros((groups * lanes, panels * panel), dtype=np.uint16)
    whole[:, : residuals * layout.padded_vectors] = stages.reshape(groups * lanes, -1)
    sets = whole.reshape(groups, lanes, -1, layout.set_codes)
    rotated = np.take_along_axis(sets, _turns(layout)[None, :, None, :], axis=3)
    in_panels = rotated.reshape(groups, lanes, panels, panel)
    held = in_panels.astype(np.uint8) if layout.code_bits == 8 else _to_wide_bytes(in_panels)
    runs = held.reshape(groups, lanes, panels, -1, layout.run_bytes).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(runs).view(np.uint32).reshape(layout.code_shape(rows))


def unpack_rotated(words: NDArray[np.uint32], layout: RotatedLayout) -> NDArray[np.uint16]:
    """Inverse of `pack_rotated`: codes [residuals, rows, vectors], padded to whole groups of rows."""
    panels, groups, _ = words.shape
    lanes = layout.GROUP_ROWS
    runs = np.ascontiguousarray(words).view(np.uint8).reshape(panels, groups, -1, lanes, layout.run_bytes)
    held = runs.transpose(1, 3, 0, 2, 4).reshape(groups, lanes, panels, layout.panel_bytes)
    in_panels = held.astype(np.uint16) if layout.code_bits == 8 else _from_wide_bytes(held)
    rotated = in_panels.reshape(groups, lanes, -1, layout.set_codes)
    sets = np.take_along_axis(rotated, _turns(layout)[None, :, None, :], axis=3)
    rows = groups * lanes
    whole = sets.reshape(rows, -1)[:, : layout.residuals * layout.padded_vectors]
    return whole.reshape(rows, layout.residuals, -1)[:, :, : layout.vectors].transpose(1, 0, 2)


def _turns(layout: RotatedLayout) -> NDArray[np.int64]:
    """Which code of a set stands in place s of row r: s ^ (r % set_codes) [rows, places]. It is its own inverse."""
    lanes, places = np.arange(layout.GROUP_ROWS), np.arange(layout.set_codes)
    return lanes[:, None] % layout.set_codes ^ places[None, :]


def _to_wide_bytes(codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Sixteen codes of twelve bits to 24 bytes: their high eight bits, then two words of their low four."""
    fours = codes.reshape(*codes.shape[:-1], 2, 2, 4)  # a word of low bits has eight codes, by byte
    sooner, later = (fours[..., i, :] & 15 for i in range(2))
    low = (sooner & 3) << LOW_BITS | (sooner >> 2) << HIGH_BITS | (later & 3) << LATER_LOW_BITS
    low |= np.roll(later >> 2, 1, axis=-1) << LATER_HIGH_BITS
    return np.concatenate([codes >> 4, low.reshape(*codes.shape[:-1], 8)], axis=-1).astype(np.uint8)


def _from_wide_bytes(held: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Inverse of `_to_wide_bytes`."""
    low = held[..., 16:].reshape(*held.shape[:-1], 2, 4)
    sooner = low >> LOW_BITS & 3 | (low >> HIGH_BITS & 3) << 2
    later = low >> LATER_LOW_BITS & 3 | np.roll(low >> LATER_HIGH_BITS & 3, -1, axis=-1) << 2
    fours = np.stack([sooner, later], axis=-2).reshape(*held.shape[:-1], 16)
    return (held[..., :16].astype(np.uint16) << 4 | fours).astype(np.uint16)
