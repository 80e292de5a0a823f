"""What gemv has for each dataflow past the paper's: tiles, the cycles of a launch, rows of x, and an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.ops.base import DeviceEngine, TimedMachine, Variant, Workload
from vqcc.ops.gemv.bucket_tile import BucketTile, count_bucket_cycles, propose_bucket_tiles, rank_bucket_tiles
from vqcc.ops.gemv.fragment_tile import (
    FragmentTile,
    count_fragment_cycles,
    propose_fragment_tiles,
    rank_fragment_tiles,
)
from vqcc.ops.gemv.score_tile import ScoreTile, count_score_cycles, propose_score_tiles, rank_score_tiles

if TYPE_CHECKING:
    from vqcc.levels import Dataflow
    from vqcc.plan import Decision, Tile

__all__ = ["DATAFLOWS", "MAX_BATCH", "GemvDataflow"]

#: Rows of x that one launch takes at most.
MAX_BATCH = 16

Proposals = Callable[[int, Variant, Workload, TimedMachine], "Iterator[tuple[Any, tuple[Decision, ...]]]"]


@dataclass(frozen=True)
class GemvDataflow:
    """A dataflow's kernels: of up to `rows` rows of x.

    `propose` gives tiles to compile, `rank` all that are worth timing, both the most promising first; `cycles` counts
    those of a launch, phase by phase.
    """

    tile: type[Tile]
    propose: Proposals
    rank: Proposals
    cycles: Callable[[Any, Workload, TimedMachine], Mapping[str, float]]
    rows: int
    engine: DeviceEngine


#: Those that there are.
DATAFLOWS: Mapping[Dataflow, GemvDataflow] = {
    "score": GemvDataflow(
        ScoreTile,
        propose_score_tiles,
        rank_score_tiles,
        count_score_cycles,
        4,
        DeviceEngine("gemv/score_kernel.cuh", "vqcc::ScoreGemv"),
    ),
    "fragment": GemvDataflow(
        FragmentTile,
        propose_fragment_tiles,
        rank_fragment_tiles,
        count_fragment_cycles,
        MAX_BATCH,
        DeviceEngine("gemv/fragment_kernel.cuh", "vqcc::FragmentGemv"),
    ),
    "bucket": GemvDataflow(
        BucketTile,
        propose_bucket_tiles,
        rank_bucket_tiles,
        count_bucket_cycles,
        4,
        DeviceEngine("gemv/bucket_kernel.cuh", "vqcc::BucketGemv"),
    ),
}
