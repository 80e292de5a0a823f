"""Tiles of the kernels that append: who shares what, and room for it as the device headers lay it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from device.attention import Books, Case, structs
from device.sources import device_source

from vqcc.emulator import Buffer, build
from vqcc.ops.attention.append_tile import propose_append_tile

if TYPE_CHECKING:
    from pathlib import Path

SM_COUNT = 132
SIDES = [
    (Books(), Books()),
    (Books(2), Books(8)),
    (Books(8, 10, 1, "head"), Books(4, 5, 2, "layer")),
    (Books(16, 12, 1, "layer"), Books(1, 8, 1, "layer")),
    (Books(4, 8, 2), Books(16, 8, 2)),
    (Books(2, 4, 3), Books(2, 1)),
]


@pytest.mark.parametrize(
    ("heads", "batch", "warps"),
    [(8, 1, 4), (8, 4, 4), (8, 16, 16), (8, 32, 16), (32, 1, 4), (32, 32, 4), (16, 32, 8), (2, 1024, 4)],
)
def test_warps_share_sequences_as_long_as_all_are_resident(heads: int, batch: int, warps: int) -> None:
    """A warp has four vectors of CQ-2 at a time; blocks have four channel groups."""
    layout = Case(heads=heads, head_dim=128).layout
    tile = propose_append_tile(layout, "float16", batch, SM_COUNT)
    assert (tile.key_groups, tile.value_groups, tile.warps) == (4, 4, warps)
    assert tile.parts == heads * 16
    assert tile.grid(1, 1) == tile.parts * -(-batch // 32), "a share for each 32 sequences, resident or not"
    assert tile.grid(4096, 10 * tile.parts) == tile.parts * min(10, batch * 129)
    assert tile.minimum_blocks(single=True) * tile.warps == 16


@pytest.mark.parametrize("keys_values", SIDES)
@pytest.mark.parametrize("batch", [1, 32])
def test_shared_memory_has_room(keys_values: tuple[Books, Books], batch: int, cache_directory: Path) -> None:
    """Kernels say what they lay out; the plan has at least that, and what it has too much is less than the books."""
    keys, values = keys_values
    case = Case(keys=keys, values=values, head_dim=128, lengths=(1,) * batch)
    tile = propose_append_tile(case.layout, "float16", batch, SM_COUNT)
    text = structs(case, attends=False).replace(f"kWarps = {case.warps}", f"kWarps = {tile.warps}")
    source = device_source(
        ("attention/append_kernel.cuh", "algorithms/kmeans.cuh"),
        text
        + """
extern "C" __global__ void room(int* bytes) {
  bytes[0] = AppendTokens<Keys, Values, Shape, Cache, KeyTile, ValueTile, Tile, false>::kSharedBytes;
}
""",
    )
    needed = np.zeros(1, np.int32)
    emulated = build(source, cache_directory=cache_directory / "emulator")
    emulated.launch("room", (1, 1, 1), (1, 1, 1), 0, [Buffer("bytes", needed, "output")])
    assert needed[0] <= tile.shared_bytes <= needed[0] + 24 * 1024
