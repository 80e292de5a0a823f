"""Axes of a problem (VQ-LLM, Table III): all, those summed over, and those along which codebooks switch.

The op names the axes and what it sums over; where codebooks switch follows from the algorithm and the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqcc.problem import Problem

__all__ = ["Axes", "find_axes"]


@dataclass(frozen=True)
class Axes:
    """Names of axes, each tuple in the order of the op's."""

    all: tuple[str, ...]
    reduce: tuple[str, ...]
    switch: tuple[str, ...]

    @property
    def split(self) -> tuple[str, ...]:
        """Axes along which a split spares codebook loads, and makes a global reduction necessary."""
        return tuple(axis for axis in self.switch if axis in self.reduce)


def find_axes(problem: Problem) -> Axes:
    """Table III for one problem.

    Codebooks switch along the rows `n` or columns `k` of a weight that has more than one tile of the scope that
    way, and along `residual` if the stages have tables of their own: stages that share a table switch nothing.
    """
    op, algorithm = problem.op, problem.algorithm
    row_tiles, column_tiles = algorithm.scope.grid(*op.weight_shape)
    extents = {"n": row_tiles, "k": column_tiles, "residual": algorithm.table_count}
    switch = tuple(axis for axis in op.axes if extents.get(axis, 1) > 1)
    return Axes(op.axes, op.reduce_axes, switch)
