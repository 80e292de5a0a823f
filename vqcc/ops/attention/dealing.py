"""How many blocks a grid of attention has, where blocks share the token blocks of all sequences and heads equally.

A block works through segments, what it has of one row set and sequence (device/attention/merge.cuh). Each begins with
making tables or reading books and ends with a merge, so a grid whose shares end where sequences do may be faster than
one that fills the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SEGMENT_BLOCKS", "Dealing", "deal"]

#: What a segment takes beside its token blocks, in token blocks: a launch of few tokens takes as long as that.
SEGMENT_BLOCKS = 48


@dataclass(frozen=True)
class Dealing:
    """`pairs` of row sets and sequences with `blocks` token blocks each, over a grid of `grid` blocks."""

    pairs: int
    blocks: int
    grid: int

    @property
    def share(self) -> int:
        """Token blocks of a block of the grid, at most."""
        return -(-self.pairs * self.blocks // self.grid)

    @property
    def segments(self) -> int:
        """Segments of a block of the grid, at most."""
        whole, more = divmod(self.pairs * self.blocks, self.grid)
        most = 0
        for block in range(self.grid):
            first = block * whole + min(block, more)
            last = first + whole + (block < more) - 1
            most = max(most, last // self.blocks - first // self.blocks + 1)
        return most

    @property
    def cost(self) -> int:
        """Token blocks that the slowest block of the grid takes as long as."""
        return self.share + SEGMENT_BLOCKS * self.segments


def deal(pairs: int, blocks: int, filling: int) -> Dealing:
    """The cheapest grid of at most `filling` blocks: one that fills the GPU, or whose shares end where sequences do."""
    most = min(filling, pairs * blocks)
    if pairs <= most:
        aligned = {most // pairs * pairs}
    else:
        waves = -(-pairs // most)
        aligned = {-(-pairs // waves), -(-pairs // (waves + 1))}
    grids = sorted({most, *aligned}, reverse=True)
    return min((Dealing(pairs, blocks, grid) for grid in grids), key=lambda dealing: dealing.cost)
