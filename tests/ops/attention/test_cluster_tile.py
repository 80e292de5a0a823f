"""Shared memory of clusters' tiles, against what the device headers lay out; chunks and grids that fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from device.attention import Case, Fusion, headers_of, kernel_type, structs
from device.sources import device_source
from device.test_attention_cluster import DECODE, EXCHANGED, SCORE

from vqcc.emulator import Buffer, build
from vqcc.ops.attention.cluster_tile import ClusterTile, DecodedClusterTile, ScoredClusterTile
from vqcc.ops.attention.tile import AttentionWork
from vqcc.plan import Exchange

if TYPE_CHECKING:
    from pathlib import Path

CASES = {
    **{f"score, {name}": case for name, case in SCORE.items()},
    **{f"decode, {name}": case for name, case in DECODE.items()},
    **{
        f"decode, {name}, {fusion}": replace(case, fusion=fusion)
        for name, case in EXCHANGED.items()
        for fusion in get_args(Fusion)
    },
}


def tile_of(case: Case) -> ClusterTile:
    work = AttentionWork(
        case.layout,
        "float16",
        len(case.lengths),
        1000,
        case.query_tokens * case.query_heads // case.heads,
        0,
        case.rope != "none",
        case.window,
        case.exchange if case.decodes else Exchange(),
    )
    kind = ScoredClusterTile if case.kernel == "cluster score" else DecodedClusterTile
    return kind(
        work, case.warps, case.rows, case.grid, 128, 10, case.cluster, case.chunk_blocks, *case.depths
    )


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_those_that_the_headers_lay_out(name: str, cache_directory: Path) -> None:
    case = replace(CASES[name], shared_bytes=10**9)
    source = device_source(
        headers_of(case),
        structs(case)
        + f"""
extern "C" __global__ void sizes(int* out) {{ out[0] = {kernel_type(case)}::kSharedBytes; }}
""",
    )
    out = np.zeros(1, np.int32)
    build(source, cache_directory=cache_directory / "emulator").launch(
        "sizes", (1, 1, 1), (1, 1, 1), 0, [Buffer("out", out, "output")]
    )
    assert tile_of(CASES[name]).shared_bytes == out[0]


def test_two_blocks_of_cq_2_share_an_sm() -> None:
    """Half of a head's scores and entries take 64 KB, and 4096 tokens' partial scores fit beside them twice."""
    tile = tile_of(SCORE["two blocks"])
    tile = replace(tile, warps=8, work=replace(tile.work, context=4096), key_depth=4, chunk_blocks=32)
    whole = tile.with_largest_chunk(113 * 1024)
    assert whole is not None
    assert whole.chunk_blocks == 128
    assert 64 * 1024 < whole.shared_bytes <= 100 * 1024


def test_chunks_are_as_long_as_they_may_be() -> None:
    tile = replace(
        tile_of(SCORE["four blocks"]), work=replace(tile_of(SCORE["four blocks"]).work, context=10**6)
    )
    fitting = tile.with_largest_chunk(113 * 1024)
    assert fitting is not None
    assert fitting.shared_bytes <= 113 * 1024
    longer = replace(fitting, chunk_blocks=fitting.chunk_blocks + fitting.chunk_step)
    assert longer.shared_bytes > 113 * 1024
    assert tile.with_largest_chunk(65536) is None


def test_grids_are_whole_clusters() -> None:
    tile = tile_of(SCORE["four blocks"])
    assert tile.units == 2 * 3
    assert tile.with_grid(264).blocks == 24
    assert tile.with_grid(11).blocks == 8
    assert tile.with_grid(2).blocks == 4
    assert tile.workspace_bytes == 0


def test_what_blocks_cannot_share_out_is_refused() -> None:
    tile = tile_of(SCORE["four blocks"])
    with pytest.raises(ValueError, match="channel groups"):
        replace(tile, cluster=64)
    with pytest.raises(ValueError, match="a multiple of"):
        replace(tile, chunk_blocks=tile.chunk_step + 1)


def test_constants_name_what_the_kernel_reads() -> None:
    names = {constant.name for constant in tile_of(SCORE["four blocks"]).constants()}
    assert names >= {"kWarps", "kRows", "kRowSets", "kElement", "kOwnSharedBytes"}
    assert names >= {"kClusterBlocks", "kChunkBlocks", "kKeyDepth", "kValueDepth"}
