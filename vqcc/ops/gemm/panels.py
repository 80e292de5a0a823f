"""Panels: how many rows of x share one decoding of the weights, of those that a launch has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.ops.base import DeviceEngine
from vqcc.ops.gemm.dense_tile import (
    DenseTile,
    count_dense_cycles,
    every_dense_tile,
    explain_dense_tile,
)
from vqcc.ops.gemm.warpgroup_tile import (
    MAX_GRID,
    MAX_ROWS,
    WARPGROUP_ROWS,
    WarpgroupTile,
    count_warpgroup_cycles,
    every_warpgroup_tile,
    explain_warpgroup_tile,
    spare_warpgroup_registers,
)
from vqcc.ops.gemv.dataflows import DATAFLOWS
from vqcc.ops.gemv.fragment_tile import FragmentTile, every_fragment_tile
from vqcc.ops.linear.dataflow import LinearDataflow
from vqcc.ops.linear.tile import TILE_ROWS
from vqcc.ops.tiles import round_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vqcc.levels import Dataflow
    from vqcc.ops.base import TimedMachine, Variant, Workload

__all__ = ["GEMM_DATAFLOWS", "MAX_ROWS", "counters_of", "decode_panels"]

#: Tiles of a panel, by what multiplies: sums of all of them are in registers.
FRAGMENT_TILES, MMA_TILES = (1, 2, 3, 4, 6, 8), (4, 3, 2, 1)
#: Rows of x that a kernel on the CUDA cores has at a time.
SCALAR_ROWS = 8


def decode_panels(variant: Variant, engine: str) -> Iterator[tuple[Variant, int]]:
    """Variants of one panel's rows and their number, for kernels that decode, the most rows first."""
    if engine == "mma":
        yield from _panels(variant, [TILE_ROWS * tiles for tiles in MMA_TILES])
    else:
        yield from _panels(variant, [SCALAR_ROWS])


def _every_panel_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[FragmentTile]:
    counters = counters_of(rows, variant, work, machine)
    for panel, panels in _panels(variant, [TILE_ROWS * tiles for tiles in FRAGMENT_TILES]):
        for tile in every_fragment_tile(rows, panel, work, machine, panels):
            if tile.blocks * panels <= MAX_GRID:
                yield replace(tile, arrivals=counters)


def counters_of(rows: int, variant: Variant, work: Workload, machine: TimedMachine) -> int:
    """Counters of arrivals at the head of the workspace, of kernels over this order of codes for W of `rows` rows.

    As many as any of them needs, whatever the rows of x: they share a workspace, and sums must lie past all counters.
    """
    panel = replace(variant, sizes={"m": WARPGROUP_ROWS[0]})
    of_warpgroups = [tile.arrivals for tile in every_warpgroup_tile(rows, panel, work, machine)]
    return max(
        [rows, *of_warpgroups, *(tile.arrivals for tile in every_dense_tile(rows, panel, work, machine))]
    )


def _panels(variant: Variant, choices: Sequence[int]) -> Iterator[tuple[Variant, int]]:
    """Of `choices` of rows those that the bound fills; a panel has no more than the bound, in whole tiles."""
    bound = variant.sizes["m"]
    seen = set()
    for choice in choices:
        rows = min(choice, round_up(bound, TILE_ROWS))
        if rows not in seen:
            seen.add(rows)
            yield replace(variant, sizes={"m": rows}), -(-bound // rows)


def _every_warpgroup_panel_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[WarpgroupTile]:
    bound, counters = variant.sizes["m"], counters_of(rows, variant, work, machine)
    for choice in WARPGROUP_ROWS:
        if choice < 2 * bound:
            panel = replace(variant, sizes={"m": choice})
            for tile in every_warpgroup_tile(rows, panel, work, machine, -(-bound // choice)):
                yield replace(tile, arrivals=counters)


def _every_dense_panel_tile(
    rows: int, variant: Variant, work: Workload, machine: TimedMachine
) -> Iterator[DenseTile]:
    counters = counters_of(rows, variant, work, machine)
    for tile in every_dense_tile(rows, variant, work, machine):
        yield replace(tile, arrivals=counters)


#: Those that there are: score tables and buckets are for few rows.
GEMM_DATAFLOWS: Mapping[Dataflow, LinearDataflow] = {
    "fragment": replace(DATAFLOWS["fragment"], every=_every_panel_tile, rows=MAX_ROWS),
    "warpgroup": LinearDataflow(
        WarpgroupTile,
        _every_warpgroup_panel_tile,
        count_warpgroup_cycles,
        explain_warpgroup_tile,
        MAX_ROWS,
        DeviceEngine("gemm/warpgroup_kernel.cuh", "vqcc::WarpgroupGemm"),
        spare_warpgroup_registers,
        adds_stages=True,
    ),
    "dense": LinearDataflow(
        DenseTile,
        _every_dense_panel_tile,
        count_dense_cycles,
        explain_dense_tile,
        MAX_ROWS,
        DeviceEngine("gemm/dense_kernel.cuh", "vqcc::DenseGemm"),
    ),
}
