"""Dataflows past the paper's of a linear op: tiles, the cycles of a launch, rows of x, and an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vqcc.ops.base import DeviceEngine, TimedMachine, Variant, Workload
    from vqcc.plan import Decision, Tile

__all__ = ["LinearDataflow"]


def _register_cap(tile: Tile, work: Workload) -> int:  # noqa: ARG001
    return tile.register_cap


@dataclass(frozen=True)
class LinearDataflow:
    """A dataflow's kernels, of up to `rows` rows of x.

    `every` gives the tiles that fit, `cycles` counts those of a launch phase by phase, `explain` says why the first of
    some tiles is taken. `spare` grows with the registers that a tile leaves a thread. With `adds_stages` residual
    stages are added up in float16, in kernels of that type.
    """

    tile: type[Tile]
    every: Callable[[int, Variant, Workload, TimedMachine], Iterator[Any]]
    cycles: Callable[[Any, Workload, TimedMachine], Mapping[str, float]]
    explain: Callable[[Sequence[Any], Workload, TimedMachine], tuple[Decision, ...]]
    rows: int
    engine: DeviceEngine
    spare: Callable[[Any, Workload], int] = _register_cap
    adds_stages: bool = False

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
