"""gemm: products of a quantized weight with 17 to 16384 rows of x (vqcc.ops.linear).

Kernels are gemv's, whose tensor-core engines share what they decode among several tiles of sixteen rows of x. What
exceeds the rows of one pass is worked on in panels, each by blocks of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vqcc.ops.base import ComputeLayout, Variant
from vqcc.ops.fields import as_bounds, distinct, rows_between
from vqcc.ops.gemm.panels import GEMM_DATAFLOWS, MAX_ROWS, decode_panels
from vqcc.ops.gemv.fma_tile import propose_fma_tiles
from vqcc.ops.gemv.mma_tile import propose_mma_tiles
from vqcc.ops.linear.base import BoundedOp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vqcc.algorithms.base import Algorithm
    from vqcc.levels import Dataflow
    from vqcc.ops.base import Machine, Workload
    from vqcc.ops.linear.dataflow import LinearDataflow
    from vqcc.ops.linear.tile import LinearTile
    from vqcc.plan import Decision, Tile

__all__ = ["Gemm"]

#: Fewer are gemv's.
MIN_ROWS = 17
#: Elements of x that are loaded at a time at most.
WORD_ELEMENTS = 8
#: A decoded vector and a loaded one of x, relative to a product of theirs: roughly, to put tiles in order.
DECODING, LOADING = 16, 8
#: Bounds of one spec.
MAX_BOUNDS = 16

BatchSize = Annotated[
    int,
    Field(ge=MIN_ROWS, le=MAX_ROWS),
    rows_between(MIN_ROWS, MAX_ROWS, "kind: gemv has fewer, linear any number of them"),
]


class Gemm(BoundedOp):
    """Matrix products with many rows of x."""

    stand_ins: ClassVar[dict[str, Any]] = {"m": MIN_ROWS, "n": 1}
    dataflows: ClassVar[Mapping[Dataflow, LinearDataflow]] = GEMM_DATAFLOWS

    kind: Literal["gemm"]
    m: Annotated[
        tuple[BatchSize, ...],
        BeforeValidator(as_bounds),
        Field(min_length=1, max_length=MAX_BOUNDS),
        AfterValidator(distinct),
    ]

    def compute_layout(
        self,
        variant: Variant,  # noqa: ARG002
        *,
        vector_size: int,
        exact: bool,
        aligned: bool,  # noqa: ARG002
    ) -> ComputeLayout:
        """Tensor-core fragments if values are exact in the type, as gemv's; else vectors, on the CUDA cores."""
        if exact and vector_size in {2, 4, 8, 16}:
            return ComputeLayout("mma", 2, 4)
        return ComputeLayout("fma", vector_size, 32)

    def staged(self, variant: Variant) -> bool:  # noqa: ARG002
        """Always: vectors of x are many."""
        return True

    def decoding_tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """First that with the least work by count, rows of x past the bound included; of equals fewer registers."""
        propose = propose_mma_tiles if work.exchange.engine == "mma" else propose_fma_tiles
        found = [
            (replace(tile, panels=panels), decisions)
            for panel, panels in decode_panels(variant, work.exchange.engine)
            if panels == 1 or work.split.factor == 1
            for tile, decisions in propose(self.n, panel, work, machine)
        ]
        return iter(sorted(found, key=lambda pair: _work(pair[0])))

    def x_alignment(self, algorithm: Algorithm) -> int:
        """Whole words of 16 bytes, where rows of x have such: kernels of many rows load them so."""
        return super().x_alignment(algorithm) if self.k % WORD_ELEMENTS else 2 * WORD_ELEMENTS


def _work(tile: LinearTile) -> float:
    """What a launch takes for a row of W, in products: those, and what its rows of x and other rows of W share."""
    return tile.panels * tile.batch * (1 + DECODING / tile.batch + LOADING / tile.rows_per_warp)
