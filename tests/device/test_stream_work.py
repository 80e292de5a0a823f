"""What blocks that stay are dealt: every unit of every tile once, in groups of panels, and waits for blocks that were
started before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqcc.emulator import Buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated

#: Blocks, tiles of a panel, units of a tile and panels of a group: fewer tiles than blocks, more, and as many; fewer
#: units than blocks; groups of one panel, and of more than there are.
SHAPES = ((7, 3, 8, 1), (7, 5, 1, 4), (4, 9, 5, 2), (6, 6, 4, 8), (5, 1, 3, 4), (3, 40, 2, 2))
PANELS = (1, 2, 5, 11)
MOST = 200
FIELDS = 7

_SOURCE = "".join(
    f"""
extern "C" __global__ void deal_{number}(int panels, int* out) {{
  const StreamWork<{blocks}, {sets}, {units}, {group}> work(panels);
  WorkPiece piece = {{}};
  for (int i = 0; work.find(i, piece); ++i) {{
    int* own = out + (static_cast<int>(blockIdx.x) * {MOST} + i) * {FIELDS};
    own[0] = 1;
    own[1] = piece.panel * {sets} + piece.set;
    own[2] = piece.tile;
    own[3] = piece.first_unit;
    own[4] = piece.end_unit;
    own[5] = work.own_place();
    own[6] = piece.whole() ? -1 : work.last_place(piece.tile);
  }}
}}
"""
    for number, (blocks, sets, units, group) in enumerate(SHAPES)
)


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("gemm/stream_work.cuh",), _SOURCE)


def pieces(kernels: Emulated, number: int, panels: int) -> NDArray[np.int32]:
    """Of each block, FIELDS numbers of MOST pieces, the first 0 where there is none."""
    blocks, *_ = SHAPES[number]
    out = np.zeros((blocks, MOST, FIELDS), np.int32)
    arguments = [panels, Buffer("out", out, "inout")]
    kernels.launch(f"deal_{number}", (blocks, 1, 1), (1, 1, 1), 0, arguments)
    return out


@pytest.mark.parametrize("panels", PANELS)
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_every_unit_is_dealt_once(kernels: Emulated, number: int, panels: int) -> None:
    blocks, sets, units, _ = SHAPES[number]
    out = pieces(kernels, number, panels)
    dealt = np.zeros((panels * sets, units), int)
    sizes = np.zeros(blocks, int)
    tiles_of: dict[int, int] = {}
    parts: dict[int, list[tuple[int, int, int, int]]] = {}
    for block in range(blocks):
        for present, tile, shared, first, end, place, last in out[block]:
            if not present:
                continue
            assert 0 <= first < end <= units
            dealt[tile, first:end] += 1
            sizes[block] += end - first
            if shared >= 0:
                assert tiles_of.setdefault(shared, tile) == tile
                parts.setdefault(shared, []).append((place, first, block, last))
            else:
                assert (first, end) == (0, units)
    assert (dealt == 1).all()
    assert sizes.max() - sizes.min() <= 1
    for own in parts.values():
        own.sort()
        places, firsts, numbers, lasts = zip(*own, strict=True)
        assert list(places) == list(range(places[0], lasts[0] + 1))
        assert list(firsts) == sorted(firsts)
        assert firsts[0] == 0  # the first place adds up, and waits for the others
        assert list(numbers) == sorted(numbers, reverse=True)
        assert len(places) == 1 or max(numbers[1:]) < numbers[0]


@pytest.mark.parametrize("panels", PANELS)
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_panels_of_a_group_take_turns(kernels: Emulated, number: int, panels: int) -> None:
    """Whole tiles, in the order of rounds and blocks: a set of all panels of a group, then the next set."""
    blocks, sets, _, group = SHAPES[number]
    grouped = panels // group * group
    order = [
        (panel, own)
        for first in range(0, grouped, group)
        for own in range(sets)
        for panel in range(first, first + group)
    ]
    order += [(panel, own) for panel in range(grouped, panels) for own in range(sets)]
    out = pieces(kernels, number, panels)
    whole = [[piece[1] for piece in own if piece[0] and piece[2] < 0] for own in out]
    rounds = len(order) // blocks
    found = [
        whole[block][len(whole[block]) - rounds + turn] for turn in range(rounds) for block in range(blocks)
    ]
    expected = [panel * sets + own for panel, own in order[len(order) - rounds * blocks :]]
    assert found == expected


def test_those_who_wait_come_last(kernels: Emulated) -> None:
    """A block's part that others wait for is its first piece; that for which it waits itself is its last shared one."""
    blocks, *_ = SHAPES[0]
    out = pieces(kernels, 0, 1)
    for block in range(blocks):
        own = [piece for piece in out[block] if piece[0]]
        assert all(piece[3] == 0 for piece in own[1:])
        assert all(piece[2] < 0 for piece in own[1:-1])
