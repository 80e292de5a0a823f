from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.cache_layouts import CacheLayout, FragmentOrder
from vqcc.tensors.cache_codes import nearest_codes, pack_token_blocks, unpack_token_blocks


def layouts() -> st.SearchStrategy[CacheLayout]:
    size, bits, stages = st.sampled_from((2, 4, 8, 16)), st.integers(1, 16), st.integers(1, 3)
    return st.builds(
        CacheLayout,
        st.integers(1, 2),
        st.sampled_from((64, 128, 256)),
        size, bits, stages, size, bits, stages,
        st.sampled_from((0, 32, 96)),
        st.sampled_from(("plain", "rotated", "fragment")),
    )  # fmt: skip


def draw_codes(layout: CacheLayout, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 1 << layout.key_bits, (2, 64, layout.key_groups, layout.key_stages))
    values = rng.integers(0, 1 << layout.value_bits, (2, 64, layout.value_groups, layout.value_stages))
    return keys.astype(np.uint16), values.astype(np.uint16)


@given(layouts(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_blocks_come_back(layout: CacheLayout, seed: int) -> None:
    keys, values = draw_codes(layout, seed)
    words = pack_token_blocks(keys, values, layout)
    assert words.shape == (2, 2, layout.block_bytes // 4)
    for packed, own in zip(unpack_token_blocks(words, layout), (keys, values), strict=True):
        np.testing.assert_array_equal(packed, own)


@given(layouts(), st.integers(0, 2**32), st.integers(0, 63))
@settings(max_examples=60)
def test_a_code_is_where_the_page_says(layout: CacheLayout, seed: int, token: int) -> None:
    """docs/packed-layout.md, bit by bit."""
    keys, values = draw_codes(layout, seed)
    block = pack_token_blocks(keys, values, layout)[1, token // 32].tobytes()
    lane = token % 32

    def bits_at(start: int, stream_lane: int, lanes: int, words: int, first: int, count: int) -> int:
        piece = next(size for size in (4, 2, 1) if words % size == 0)
        found = 0
        for i in range(count):
            word, bit = divmod(first + i, 32)
            offset = start + ((word // piece * lanes + stream_lane) * piece + word % piece) * 4
            found |= (int.from_bytes(block[offset : offset + 4], "little") >> bit & 1) << i
        return found

    for group in {0, layout.key_groups // 2, layout.key_groups - 1}:
        in_set = group % layout.set_groups
        position = (in_set ^ lane) % layout.set_groups if layout.key_order == "rotated" else in_set
        start, own_lane = group // layout.set_groups * layout.key_stream.bytes, lane
        if layout.key_order == "fragment":
            own_lane, place = FragmentOrder(layout.key_groups, layout.key_size).place(lane, group)
            position = place % layout.set_groups
            start = place // layout.set_groups * layout.key_stream.bytes
        for stage in range(layout.key_stages):
            first = (position * layout.key_stages + stage) * layout.key_bits
            found = bits_at(start, own_lane, 32, layout.key_stream.words, first, layout.key_bits)
            assert found == keys[1, token, group, stage]
    for group in {0, layout.value_groups - 1}:
        start = layout.key_sets * layout.key_stream.bytes
        for stage in range(layout.value_stages):
            first = (lane * layout.value_stages + stage) * layout.value_bits
            found = bits_at(
                start, group, layout.value_groups, layout.value_stream.words, first, layout.value_bits
            )
            assert found == values[1, token, group, stage]


def test_ties_go_to_the_lower_entry_and_stages_to_what_is_left() -> None:
    book = np.array([[[0, 0], [2, 0], [2, 0], [8, 8]], [[0, 0], [1, 0], [0, 1], [0, 0]]], np.float16)
    vectors = np.array([[1, 0], [3, 0], [2, 1], [8, 8], [np.nan, 0]], np.float16)
    assert nearest_codes(vectors, book).tolist() == [[0, 1], [1, 1], [1, 2], [3, 0], [0, 0]]


def test_lanes_that_look_up_together_meet_no_bank() -> None:
    """16 lanes for entries of 8 bytes, 32 for 4 and 8 for 16: their places in a row of all groups are apart."""
    for size, together in ((2, 32), (4, 16), (8, 8)):
        order = FragmentOrder(128 // size, size)
        by_place: dict[tuple[int, int], int] = {}
        for token in range(8):
            for group in range(order.groups):
                lane, index = order.place(token, group)
                assert by_place.setdefault((lane, index), group) == group
        for index in range(order.groups // 4):
            for first in range(0, 32, together):
                groups = {by_place[lane, index] for lane in range(first, first + together)}
                assert len({group * 2 * size // 4 % 32 for group in groups}) == together
