"""What gemv has for each dataflow past the paper's: tiles, the cycles of a launch, rows of x, and an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vqcc.levels import Dataflow
    from vqcc.ops.base import TimedMachine, Variant, Workload
    from vqcc.plan import Decision, Tile

__all__ = ["DATAFLOWS", "MAX_BATCH", "GemvDataflow"]

#: Rows of x that one launch takes at most.
MAX_BATCH = 16


def _register_cap(tile: Tile, work: Workload) -> int:  # noqa: ARG001
    return tile.register_cap


@dataclass(frozen=True)
class GemvDataflow:
    """A dataflow's kernels, of up to `rows` rows of x.

    `every` gives the tiles that fit, `cycles` counts those of a launch phase by phase, `explain` says why the first of
    some tiles is taken. `spare` grows with the registers that a tile leaves a thread.
    """

    tile: type[Tile]
    every: Callable[[int, Variant, Workload, TimedMachine], Iterator[Any]]
    cycles: Callable[[Any, Workload, TimedMachine], Mapping[str, float]]
    explain: Callable[[Sequence[Any], Workload, TimedMachine], tuple[Decision, ...]]
    rows: int
    engine: DeviceEngine
    spare: Callable[[Any, Workload], int] = _register_cap

    def propose(
        self, rows: int, variant: Variant, work: Workload, machine: TimedMachine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """Tiles for W of `rows` rows, by estimated time; later ones leave a thread more registers."""
        candidates = self._ranked(rows, variant, work, machine)
        while candidates:
            yield candidates[0], self.explain(candidates, work, machine)
            spare = self.spare(candidates[0], work)
            candidates = [tile for tile in candidates if self.spare(tile, work) > spare]

    def rank(
        self, rows: int, variant: Variant, work: Workload, machine: TimedMachine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """All tiles for W of `rows` rows, by estimated time."""
        candidates = self._ranked(rows, variant, work, machine)
        for i, tile in enumerate(candidates):
            yield tile, self.explain([tile, *candidates[:i], *candidates[i + 1 :]], work, machine)

    def _ranked(self, rows: int, variant: Variant, work: Workload, machine: TimedMachine) -> list[Tile]:
        tiles = self.every(rows, variant, work, machine)
        return sorted(tiles, key=lambda tile: sum(self.cycles(tile, work, machine).values()))


#: Those that there are.
DATAFLOWS: Mapping[Dataflow, GemvDataflow] = {
    "score": GemvDataflow(
        ScoreTile,
        every_score_tile,
        count_score_cycles,
        explain_score_tile,
        4,
        DeviceEngine("gemv/score_kernel.cuh", "vqcc::ScoreGemv"),
    ),
    "fragment": GemvDataflow(
        FragmentTile,
        every_fragment_tile,
        count_fragment_cycles,
        explain_fragment_tile,
        MAX_BATCH,
        DeviceEngine("gemv/fragment_kernel.cuh", "vqcc::FragmentGemv"),
        spare_registers,
    ),
    "bucket": GemvDataflow(
        BucketTile,
        every_bucket_tile,
        count_bucket_cycles,
        explain_bucket_tile,
        4,
        DeviceEngine("gemv/bucket_kernel.cuh", "vqcc::BucketGemv"),
    ),
}
