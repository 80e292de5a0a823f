"""Shared memory and workspaces of tiles, against what the device headers lay out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from device.attention import Books, Case, headers_of, kernel_type, structs
from device.sources import device_source

from vqcc.emulator import Buffer, build
from vqcc.ops.attention.row_tile import FragmentTile, RopeFragmentTile, ScoreTile
from vqcc.ops.attention.tile import AttentionTile, AttentionWork, DecodeTile

if TYPE_CHECKING:
    from pathlib import Path

CASES = {
    "decode": Case(head_dim=128, warps=8),
    "decode, a window and rows": Case(
        head_dim=128, query_heads=8, rows=3, warps=4, rope="half", chunk_blocks=16
    ),
    "decode, many sequences": Case(lengths=(1,) * 50, rope="interleaved"),
    "decode, exchanging through registers": Case(head_dim=128, warps=8, fusion="register"),
    "decode, exchanging through shared memory": Case(
        head_dim=128, warps=8, fusion="shared", values=Books(8), rope="half"
    ),
    "decode, exchanging in teams": Case(fusion="shared", values=Books(16), query_heads=6, rows=3),
    "score": Case(kernel="score", head_dim=128, key_order="rotated"),
    "score, twelve warps": Case(
        kernel="score",
        head_dim=128,
        key_order="rotated",
        warps=12,
        query_heads=4,
        rows=2,
    ),
    "score, 64 groups": Case(
        kernel="score", head_dim=128, key_order="rotated", keys=Books(2), values=Books(2)
    ),
    "score, four rows of 64 groups": Case(
        kernel="score",
        key_order="rotated",
        head_dim=128,
        rows=4,
        query_heads=8,
        keys=Books(2),
    ),
    "score, eight rows": Case(
        kernel="score",
        head_dim=128,
        key_order="rotated",
        query_heads=16,
        rows=8,
        warps=2,
    ),
    "score, teams": Case(kernel="score", keys=Books(16), values=Books(16), key_order="rotated"),
    "score, tables at 64 KB": Case(
        kernel="score", head_dim=128, key_order="rotated", tables_region=1, warps=16, stages=3
    ),
    "score, codes straight to registers": Case(
        kernel="score", head_dim=128, key_order="rotated", tables_region=1, stages=0
    ),
    "score, values on tensor cores": Case(
        kernel="score", head_dim=128, key_order="rotated", query_heads=8, rows=4, multiplied=True, stages=1
    ),
    "fragment": Case(kernel="fragment", head_dim=128, key_order="fragment", query_heads=8, rows=4, stages=3),
    "fragment, tables at 64 KB": Case(
        kernel="fragment",
        head_dim=128,
        key_order="fragment",
        query_heads=8,
        rows=4,
        tables_region=1,
        warps=12,
    ),
    "fragment, rotated keys": Case(
        kernel="fragment",
        head_dim=128,
        key_order="fragment",
        query_heads=8,
        rows=4,
        tables_region=1,
        rope="half",
    ),
    "fragment, rotated keys of a small head": Case(
        kernel="fragment",
        head_dim=64,
        key_order="fragment",
        query_heads=4,
        rows=4,
        keys=Books(2),
        values=Books(2),
        warps=12,
        rope="interleaved",
    ),
    "fragment, entries of two": Case(
        kernel="fragment",
        head_dim=128,
        key_order="fragment",
        query_heads=8,
        rows=4,
        keys=Books(2),
        values=Books(2),
    ),
}


def tile_of(case: Case) -> AttentionTile:
    work = AttentionWork(
        case.layout,
        "float16",
        len(case.lengths),
        1000,
        case.query_tokens * case.query_heads // case.heads,
        case.heads * case.row_sets * len(case.lengths),
        case.rope != "none",
        exchange=case.exchange,
    )
    common = (work, case.warps, case.rows, case.grid, 128, 10)
    if case.kernel == "decode":
        return DecodeTile(*common, case.chunk_blocks)
    placed = case.stages, case.tables_region, 1024
    if case.kernel == "score":
        return ScoreTile(*common, *placed, case.multiplied)
    return (FragmentTile if case.rope == "none" else RopeFragmentTile)(*common, *placed)


def sizes_on_the_device(case: Case, cache: Path) -> tuple[int, int]:
    """A block's shared memory and the counters' bytes, as the headers have them."""
    source = device_source(
        headers_of(case),
        structs(case)
        + f"""
extern "C" __global__ void sizes(int* out) {{
  out[0] = {kernel_type(case)}::kSharedBytes;
  out[1] = static_cast<int>(Parts<Shape, Tile>::kArrivalBytes);
}}
""",
    )
    out = np.zeros(2, np.int32)
    build(source, cache_directory=cache / "emulator").launch(
        "sizes", (1, 1, 1), (1, 1, 1), 0, [Buffer("out", out, "output")]
    )
    return int(out[0]), int(out[1])


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_bytes_are_those_that_the_headers_lay_out(case: Case, cache_directory: Path) -> None:
    tile = tile_of(case)
    shared, counters = sizes_on_the_device(replace(case, shared_bytes=10**9), cache_directory)
    assert tile.shared_bytes == shared
    parts = case.grid * 2 * case.rows * (case.head_dim + 2) * 4
    assert tile.workspace_bytes == counters + parts


def test_constants_name_what_each_kernel_reads() -> None:
    for case in CASES.values():
        names = {constant.name for constant in tile_of(case).constants()}
        assert names >= {"kWarps", "kRows", "kRowSets", "kBatch", "kElement", "kOwnSharedBytes"}
    assert "kChunkBlocks" in {c.name for c in tile_of(CASES["decode"]).constants()}
    for name in ("score", "fragment"):
        names = {constant.name for constant in tile_of(CASES[name]).constants()}
        assert names >= {"kStages", "kTablesRegion", "kTablesOffset"}


def test_row_sets_cover_all_query_rows() -> None:
    tile = tile_of(replace(CASES["fragment"], query_heads=20, heads=2))
    assert (tile.rows, tile.row_sets) == (4, 3)
