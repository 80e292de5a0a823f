"""Picks: a kernel's strategy and tile as data, so that what was measured once can be made again.

A tile is told by what the emitted source states of it, and by the registers it is made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqcc.levels import Strategy
    from vqcc.plan import Tile

__all__ = ["Pick", "PickError", "TileIdentity", "tile_identity"]

#: Names and values of a tile, in the order in which the source states them.
TileIdentity = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True)
class Pick:
    """What makes a kernel: a strategy, and which of the op's tiles; and the microseconds that it took, on what."""

    strategy: Strategy
    tile: TileIdentity
    us: float = 0.0
    measured_on: str = ""


class PickError(Exception):
    """What was picked for a kernel cannot be made; the message says of which kernel, and why."""


def tile_identity(tile: Tile) -> TileIdentity:
    """What tells a tile from the others that its op has for a problem; what is true or false is 1 or 0."""
    stated = (
        (constant.name, int(constant.value) if constant.type == "bool" else constant.value)
        for constant in tile.constants()
    )
    return (("warps", tile.warps), ("register_cap", tile.register_cap), *stated)
