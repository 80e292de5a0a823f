"""Grids of attention: blocks share token blocks as the device does, and are no more than are worth it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.ops.attention.dealing import Dealing, deal

SIZES = {"pairs": st.integers(1, 60), "blocks": st.integers(1, 70)}


@given(**SIZES, grid=st.integers(1, 300))
def test_shares_and_segments_are_those_of_the_device(pairs: int, blocks: int, grid: int) -> None:
    """Shares::of and for_each_segment, step by step."""
    dealing = Dealing(pairs, blocks, min(grid, pairs * blocks))
    whole = pairs * blocks
    first_of = [whole * block // dealing.grid for block in range(dealing.grid + 1)]
    for unit in range(whole):
        own = ((unit + 1) * dealing.grid - 1) // whole  # Shares::block_of
        assert first_of[own] <= unit < first_of[own + 1]
    shares = [range(first_of[block], first_of[block + 1]) for block in range(dealing.grid)]
    assert dealing.segments == max(len({unit // blocks for unit in share}) for share in shares)
    assert dealing.share == max(first_of[b + 1] - first_of[b] for b in range(dealing.grid))


@given(**SIZES, parts=st.integers(1, 9))
def test_shares_end_where_equal_sequences_do(pairs: int, blocks: int, parts: int) -> None:
    assert Dealing(pairs, blocks, min(parts, blocks) * pairs).segments == 1


@given(**SIZES, filling=st.integers(1, 264), segment=st.floats(0, 200), merge=st.floats(0, 50))
def test_no_worse_than_a_grid_that_fills_the_gpu(
    pairs: int, blocks: int, filling: int, segment: float, merge: float
) -> None:
    dealing = deal(pairs, blocks, filling, segment, merge)
    assert 1 <= dealing.grid <= min(filling, pairs * blocks)
    assert dealing.cost(segment, merge) <= Dealing(pairs, blocks, min(filling, pairs * blocks)).cost(
        segment, merge
    )


@pytest.mark.parametrize(
    ("pairs", "blocks", "grid", "segments"),
    [
        (32, 32, 128, 1),  # a short context: four blocks a sequence, none of two
        (256, 128, 128, 2),
        (8, 6144, 128, 1),
        (512, 1024, 132, 5),  # a long one: every SM counts more than a segment
        (100, 1024, 132, 2),
        (64, 4, 64, 1),  # a merge would take longer than what it spares
    ],
)
def test_known_grids(pairs: int, blocks: int, grid: int, segments: int) -> None:
    dealing = deal(pairs, blocks, 132, 48.0, 10.0)
    assert (dealing.grid, dealing.segments) == (grid, segments)
    assert dealing.merges == (pairs % grid > 0)
    assert dealing.cost(48.0, 10.0) == dealing.share + 48.0 * segments + 10.0 * dealing.merges
