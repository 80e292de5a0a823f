"""Grids of attention: blocks share token blocks as the device does, and are no more than are worth it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.ops.attention.dealing import SEGMENT_BLOCKS, Dealing, deal

SIZES = {"pairs": st.integers(1, 300), "blocks": st.integers(1, 200)}


@given(**SIZES, grid=st.integers(1, 300))
def test_shares_and_segments_are_those_of_the_device(pairs: int, blocks: int, grid: int) -> None:
    """Shares::of and for_each_segment, step by step."""
    dealing = Dealing(pairs, blocks, min(grid, pairs * blocks))
    whole = pairs * blocks
    share, more = divmod(whole, dealing.grid)
    first_of = [block * share + min(block, more) for block in range(dealing.grid + 1)]
    assert first_of[-1] == whole
    segments = [
        len({unit // blocks for unit in range(first_of[b], first_of[b + 1])}) for b in range(dealing.grid)
    ]
    assert dealing.segments == max(segments)
    assert dealing.share == max(first_of[b + 1] - first_of[b] for b in range(dealing.grid))


@given(**SIZES, filling=st.integers(1, 264))
def test_no_worse_than_a_grid_that_fills_the_gpu(pairs: int, blocks: int, filling: int) -> None:
    dealing = deal(pairs, blocks, filling)
    assert 1 <= dealing.grid <= min(filling, pairs * blocks)
    assert dealing.cost <= Dealing(pairs, blocks, min(filling, pairs * blocks)).cost


@pytest.mark.parametrize(
    ("pairs", "blocks", "grid", "segments"),
    [
        (32, 32, 128, 1),  # a short context: four blocks a sequence, none of two
        (256, 128, 128, 2),
        (8, 6144, 128, 1),
        (512, 1024, 132, 5),  # a long one: every SM counts more than a segment
        (100, 1024, 132, 2),
    ],
)
def test_known_grids(pairs: int, blocks: int, grid: int, segments: int) -> None:
    dealing = deal(pairs, blocks, 132)
    assert (dealing.grid, dealing.segments) == (grid, segments)
    assert dealing.cost == dealing.share + SEGMENT_BLOCKS * segments
