"""What gemv has for each dataflow past the paper's: tiles, the cycles of a launch, rows of x, and an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.base import DeviceEngine
from vqcc.ops.gemv.bucket_tile import BucketTile, count_bucket_cycles, every_bucket_tile, explain_bucket_tile
from vqcc.ops.gemv.fragment_tile import (
    FragmentTile,
    count_fragment_cycles,
    every_fragment_tile,
    explain_fragment_tile,
    spare_registers,
)
from vqcc.ops.gemv.score_tile import ScoreTile, count_score_cycles, every_score_tile, explain_score_tile
from vqcc.ops.linear.dataflow import LinearDataflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.levels import Dataflow

__all__ = ["DATAFLOWS", "MAX_BATCH"]

#: Rows of x that one launch takes at most.
MAX_BATCH = 16


#: Those that there are.
DATAFLOWS: Mapping[Dataflow, LinearDataflow] = {
    "score": LinearDataflow(
        ScoreTile,
        every_score_tile,
        count_score_cycles,
        explain_score_tile,
        4,
        DeviceEngine("gemv/score_kernel.cuh", "vqcc::ScoreGemv"),
    ),
    "fragment": LinearDataflow(
        FragmentTile,
        every_fragment_tile,
        count_fragment_cycles,
        explain_fragment_tile,
        MAX_BATCH,
        DeviceEngine("gemv/fragment_kernel.cuh", "vqcc::FragmentGemv"),
        spare_registers,
    ),
    "bucket": LinearDataflow(
        BucketTile,
        every_bucket_tile,
        count_bucket_cycles,
        explain_bucket_tile,
        4,
        DeviceEngine("gemv/bucket_kernel.cuh", "vqcc::BucketGemv"),
    ),
}
