"""Codes in buckets: packed, taken apart again, and checked (docs/packed-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.tensors.bucket_order import CLASSES, order_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqcc.code_layouts import BucketLayout

__all__ = ["deal_orders", "pack_buckets", "unpack_buckets", "wrong_buckets"]

#: Units that are packed at a time: it bounds memory.
_UNITS_AT_A_TIME = 4096
#: Lanes whose entries are read at once.
_PHASE_LANES = 8


def deal_orders(orders: NDArray[np.int64], layout: BucketLayout) -> NDArray[np.int64]:
    """Orders of entries [..., entries] dealt to the parts in turn, so that each part has as many frequent ones."""
    dealt = orders.reshape(*orders.shape[:-1], layout.part_entries, layout.parts_of_table)
    return np.ascontiguousarray(np.swapaxes(dealt, -1, -2)).reshape(orders.shape)


def pack_buckets(codes: NDArray[Any], layout: BucketLayout) -> NDArray[np.uint32]:
    """Codes [residuals, n, vectors] to words: first chunks of units, their rows, chunks."""
    rows = codes.shape[1]
    blocks, panels, parts = layout.blocks(rows), layout.panels, layout.parts
    shape = (panels, parts, blocks, layout.BLOCK_UNITS)
    chunks = np.zeros(shape, np.int64)
    members = np.zeros((*shape, layout.UNIT_ROWS), np.uint8)
    words: dict[tuple[int, int], list[NDArray[np.uint32]]] = {}
    at_a_time = max(1, _UNITS_AT_A_TIME // (parts * layout.BLOCK_UNITS))
    for first in range(0, blocks, at_a_time):
        some = slice(first, min(blocks, first + at_a_time))
        rows_of = codes[:, first * layout.BLOCK_ROWS : some.stop * layout.BLOCK_ROWS]
        for panel in range(panels):
            vectors = slice(panel * layout.panel_vectors, (panel + 1) * layout.panel_vectors)
            packed = _pack_panel(rows_of[:, :, vectors], layout)
            members[panel, :, some], chunks[panel, :, some] = packed[0], packed[1]
            for part in range(parts):
                words.setdefault((panel, part), []).append(packed[2][part])
    ends = np.cumsum(chunks.reshape(-1))
    head = np.zeros(layout.row_offset(rows), np.uint32)
    head[1 : len(ends) + 1] = ends
    # Byte i of word g is the row of lane 8 i + g.
    named = members.reshape(-1, layout.UNIT_ROWS // _PHASE_LANES, _PHASE_LANES).transpose(0, 2, 1)
    pieces = [piece.reshape(-1) for key in sorted(words) for piece in words[key]]
    return np.concatenate([head, np.ascontiguousarray(named).view(np.uint32).reshape(-1), *pieces])


def _pack_panel(
    codes: NDArray[Any], layout: BucketLayout
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[NDArray[np.uint32]]]:
    """One panel of whole blocks of rows, codes [residuals, rows, vectors].

    Returns the rows of units [parts, blocks, units, lanes], their chunks [parts, blocks, units], and for each part the
    words of its chunks [chunks, words].
    """
    rows, parts, lanes = codes.shape[1], layout.parts, layout.UNIT_ROWS
    blocks = layout.blocks(rows)
    slots, counts = _sorted_slots(codes, layout)
    lengths = counts.sum(axis=2)
    units = _share_units(lengths.reshape(blocks, layout.BLOCK_ROWS, parts).transpose(2, 0, 1), layout)
    part = np.arange(parts)[:, None, None, None]
    row = units + (np.arange(blocks) * layout.BLOCK_ROWS)[:, None, None]
    chunks = -(-lengths[row, part].max(axis=-1) // layout.CHUNK_STEPS)
    # Units in order of their steps, the most first; each is four phases.
    flat_chunks = chunks.reshape(-1)
    falling = np.argsort(-flat_chunks, kind="stable")
    own_row = row.reshape(-1, lanes)[falling]
    own_part = np.broadcast_to(part, row.shape).reshape(-1, lanes)[falling]
    own_counts = counts[own_row, own_part].reshape(-1, _PHASE_LANES, CLASSES)
    steps = np.repeat(flat_chunks[falling] * layout.CHUNK_STEPS, lanes // _PHASE_LANES)
    chosen, free = order_codes(own_counts, steps)
    firsts = np.cumsum(lengths.reshape(-1)) - lengths.reshape(-1)
    first = firsts[own_row * parts + own_part].reshape(-1, 1, _PHASE_LANES)
    null = np.uint32(layout.panel_vectors << layout.ENTRY_BITS)
    filled = np.where(chosen >= 0, slots[np.maximum(chosen + first, 0)], free[:, :, None] | null)
    words = _chunk_words(filled, layout)
    # Back to the order of units, and only the chunks that each has.
    back = np.empty_like(falling)
    back[falling] = np.arange(len(falling))
    words = words[back].reshape(parts, -1, *words.shape[1:])
    held = np.arange(words.shape[2]) < chunks.reshape(parts, -1, 1)
    return units, chunks, [words[number][held[number]] for number in range(parts)]


def _sorted_slots(codes: NDArray[Any], layout: BucketLayout) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Slots of all codes [residuals, rows, vectors] by row, part and class, and how many there are of each.

    Counts are [rows, parts, classes], rows padded to whole blocks.
    """
    residuals, rows, vectors = codes.shape
    padded = layout.blocks(rows) * layout.BLOCK_ROWS
    by_row = codes.transpose(1, 0, 2).astype(np.uint32)
    entries = by_row & np.uint32(layout.part_entries - 1)
    stage = np.arange(residuals, dtype=np.uint32)[:, None]
    parts = by_row // np.uint32(layout.part_entries) + stage * np.uint32(layout.parts_of_table)
    keys = (parts * np.uint32(CLASSES) + entries % np.uint32(CLASSES)).reshape(rows, -1)
    slots = entries | np.arange(vectors, dtype=np.uint32) << np.uint32(layout.ENTRY_BITS)
    # Sixteen bits are sorted by radix.
    order = np.argsort(keys.astype(np.uint16), axis=1, kind="stable")
    places = layout.parts * CLASSES
    flat = keys + (np.arange(rows, dtype=np.int64) * places)[:, None]
    counts = np.bincount(flat.reshape(-1), minlength=padded * places)
    sorted_slots = np.take_along_axis(slots.reshape(rows, -1), order, axis=1).reshape(-1)
    return sorted_slots, counts.reshape(padded, layout.parts, CLASSES)


def _share_units(lengths: NDArray[np.int64], layout: BucketLayout) -> NDArray[np.int64]:
    """Rows of a block that share a unit: [..., units, lanes] from lengths [..., rows of a block].

    Rows of like lengths: little is padded. The longest unit stands beside the shortest, so that neighbours together
    have about as many steps as others.
    """
    order = np.argsort(-lengths, axis=-1, kind="stable")
    units = order.reshape(*order.shape[:-1], layout.BLOCK_UNITS, layout.UNIT_ROWS)
    count = layout.BLOCK_UNITS
    turns = [number // 2 if number % 2 == 0 else count - 1 - number // 2 for number in range(count)]
    return units[..., turns, :]


def _chunk_words(slots: NDArray[np.uint32], layout: BucketLayout) -> NDArray[np.uint32]:
    """Slots of phases [phases, steps, lanes] as words of units' chunks [units, chunks, words]."""
    phases = layout.UNIT_ROWS // _PHASE_LANES
    own = slots.reshape(-1, phases, slots.shape[1] // layout.CHUNK_STEPS, layout.CHUNK_STEPS, _PHASE_LANES)
    units, _, chunks, _, _ = own.shape
    a, b, c, d = (own[:, :, :, step].transpose(0, 2, 1, 3) for step in range(layout.CHUNK_STEPS))
    words = np.empty((units, chunks, 3, phases, _PHASE_LANES), np.uint32)
    words[:, :, 0] = a | b << np.uint32(24)
    words[:, :, 1] = b >> np.uint32(8) | c << np.uint32(16)
    words[:, :, 2] = c >> np.uint32(16) | d << np.uint32(8)
    return words.reshape(units, chunks, layout.CHUNK_WORDS)


def unpack_buckets(words: NDArray[np.uint32], layout: BucketLayout, rows: int) -> NDArray[np.uint16]:
    """Inverse of `pack_buckets`: codes [residuals, rows, vectors]."""
    units, blocks = layout.units(rows), layout.blocks(rows)
    ends = words[: units + 1].astype(np.int64)
    chunks = ends[1:] - ends[:-1]
    unit = np.repeat(np.arange(units), chunks)[:, None, None]
    slots = _slots_of(words[layout.chunk_offset(rows) :], layout)
    named = words[layout.row_offset(rows) : layout.chunk_offset(rows)]
    members = np.ascontiguousarray(named).view(np.uint8).reshape(units, _PHASE_LANES, -1).transpose(0, 2, 1)
    block = unit // layout.BLOCK_UNITS % blocks
    row = block * layout.BLOCK_ROWS + members.reshape(units, 1, -1)[unit[:, 0, 0]]
    bucket = unit // (layout.BLOCK_UNITS * blocks)
    part, panel = bucket % layout.parts, bucket // layout.parts
    vector = slots >> np.uint32(layout.ENTRY_BITS)
    held = vector < layout.panel_vectors
    code = (slots & np.uint32(layout.part_entries - 1)) + part % layout.parts_of_table * layout.part_entries
    stage = np.broadcast_to(part // layout.parts_of_table, held.shape)[held]
    row = np.broadcast_to(row, held.shape)[held]
    codes = np.zeros((layout.residuals, rows, layout.vectors), np.uint16)
    codes[stage, row, (vector + panel * layout.panel_vectors)[held]] = code[held]
    return codes


def _slots_of(words: NDArray[np.uint32], layout: BucketLayout) -> NDArray[np.uint32]:
    """Slots [chunks, steps, lanes] of the words of chunks."""
    a, b, c = np.moveaxis(words.reshape(-1, 3, layout.UNIT_ROWS), 1, 0)
    mask = np.uint32((1 << layout.SLOT_BITS) - 1)
    eight, sixteen, more = np.uint32(8), np.uint32(16), np.uint32(24)
    slots = [a, a >> more | b << eight, b >> sixteen | c << sixteen, c >> eight]
    return np.stack(slots, axis=1) & mask


def wrong_buckets(words: NDArray[np.uint32], layout: BucketLayout, rows: int) -> str | None:
    """What would lead a kernel past these packed codes of `rows` rows, or have it mix rows up; None if nothing."""
    units, first = layout.units(rows), layout.chunk_offset(rows)
    if len(words) < first:
        return f"{len(words)} words are fewer than the {first} before the first chunk"
    ends = words[: units + 1].astype(np.int64)
    if ends[0] != 0 or (np.diff(ends) < 0).any():
        return "units do not follow one another"
    needed = first + int(ends[-1]) * layout.CHUNK_WORDS
    if needed != len(words):
        return f"units end after {needed} words, not {len(words)}"
    members = words[layout.row_offset(rows) : first].view(np.uint8).reshape(-1, layout.BLOCK_ROWS)
    if (np.sort(members, axis=1) != np.arange(layout.BLOCK_ROWS)).any():
        return "units of a block name a row twice"
    of_last_panel = int(ends[units - units // layout.panels])  # first chunk
    return _wrong_slots(_slots_of(words[first:], layout), layout, of_last_panel)


def _wrong_slots(slots: NDArray[np.uint32], layout: BucketLayout, of_last_panel: int) -> str | None:
    """What a slot names that there is not; the last panel, from a chunk on, may be shorter than the others."""
    vectors = slots >> np.uint32(layout.ENTRY_BITS)
    length = layout.vectors - (layout.panels - 1) * layout.panel_vectors
    last = vectors[of_last_panel:]
    past_the_end = (last >= length) & (last != layout.panel_vectors)
    if (vectors > layout.panel_vectors).any() or past_the_end.any():
        return "a code names a vector past its panel"
    if ((slots & np.uint32((1 << layout.ENTRY_BITS) - 1)) >= layout.part_entries).any():
        return "a code names an entry past its part"
    return None
