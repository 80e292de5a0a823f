"""How many blocks a grid of attention has, where blocks share the token blocks of all sequences and heads equally.

A block works through segments, what it has of one row set and sequence (device/attention/merge.cuh). Each begins with
making tables or reading books and ends with a merge, so a grid whose shares end where sequences do may be faster than
one that fills the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

__all__ = ["Dealing", "deal"]


@dataclass(frozen=True)
class Dealing:
    """`pairs` of row sets and sequences with `blocks` token blocks each, over a grid of `grid` blocks.

    `head_pairs` of them, one after another, are of the same kv-head.
    """

    pairs: int
    blocks: int
    grid: int
    head_pairs: int = 1

    @property
    def share(self) -> int:
        """Token blocks of a block of the grid, at most."""
        return -(-self.pairs * self.blocks // self.grid)

    @property
    def segments(self) -> int:
        """Segments of a block of the grid, at most."""
        return _segments(self.pairs * self.blocks, self.blocks, self.grid)

    @property
    def heads(self) -> int:
        """Heads whose sequences a block of the grid has, at most."""
        return min(self.segments, 1 + -(-self.share // (self.head_pairs * self.blocks)))

    @property
    def merges(self) -> bool:
        """Whether blocks share sequences, and one of them merges what they have."""
        return self.pairs % self.grid > 0

    def cost(self, segment: float, merge: float) -> float:
        """Token blocks that the slowest block takes as long as, where a segment takes `segment` and a merge `merge`."""
        return self.share + segment * self.segments + merge * self.merges


@lru_cache(maxsize=4096)
def _segments(whole: int, blocks: int, grid: int) -> int:
    """Stretches of `blocks` token blocks that a block of the grid has a part of, at most, where `whole` are shared."""
    firsts = [block * whole // grid for block in range(grid + 1)]
    return max((end - 1) // blocks - first // blocks + 1 for first, end in pairwise(firsts) if end > first)


def deal(pairs: int, blocks: int, filling: int, segment: float, merge: float) -> Dealing:
    """The cheapest grid of at most `filling` blocks: one that fills the GPU, or whose shares end where sequences do."""
    most = min(filling, pairs * blocks)
    if pairs <= most:
        grids = {most // parts // pairs * pairs for parts in (1, 2, 4, 8) if most // parts >= pairs} | {pairs}
    else:
        waves = -(-pairs // most)
        grids = {-(-pairs // waves), -(-pairs // (waves + 1))}
    dealings = [Dealing(pairs, blocks, grid) for grid in sorted({most, *grids}, reverse=True)]
    return min(dealings, key=lambda dealing: dealing.cost(segment, merge))
