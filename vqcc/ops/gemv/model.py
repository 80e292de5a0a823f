"""gemv: products of a quantized weight with 1 to 16 vectors (vqcc.ops.linear)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vqcc.ops.base import ComputeLayout, Variant
from vqcc.ops.fields import as_bounds, distinct, rows_between
from vqcc.ops.gemv.dataflows import DATAFLOWS, MAX_BATCH
from vqcc.ops.gemv.fma_tile import propose_fma_tiles
from vqcc.ops.gemv.mma_tile import propose_mma_tiles
from vqcc.ops.linear.base import BoundedOp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vqcc.levels import Dataflow
    from vqcc.ops.base import Machine, Workload
    from vqcc.ops.linear.dataflow import LinearDataflow
    from vqcc.plan import Decision, Tile

__all__ = ["Gemv"]

#: Rows of x from which an exchange into tensor-core fragments is what the op wants.
MIN_TENSOR_BATCH = 5

BatchSize = Annotated[
    int,
    Field(ge=1, le=MAX_BATCH),
    rows_between(1, MAX_BATCH, "kind: gemm has more rows, linear any number of them"),
]


class Gemv(BoundedOp):
    """Matrix-vector products with up to 16 vectors at a time."""

    stand_ins: ClassVar[dict[str, Any]] = {"m": 1, "n": 1}
    dataflows: ClassVar[Mapping[Dataflow, LinearDataflow]] = DATAFLOWS

    kind: Literal["gemv"]
    m: Annotated[
        tuple[BatchSize, ...],
        BeforeValidator(as_bounds),
        Field(min_length=1, max_length=MAX_BATCH),
        AfterValidator(distinct),
    ]

    def compute_layout(
        self, variant: Variant, *, vector_size: int, exact: bool, aligned: bool
    ) -> ComputeLayout:
        """Tensor-core fragments, if values are exact and rows of x enough or no exchange needed; else elements.

        A thread of an m16n8k16 multiply holds pairs of neighbours of one of eight rows, four threads a row (PTX ISA,
        matrix fragments for mma.m16n8k16); on the CUDA cores a row is summed element by element (Sec. VII-C). With
        many rows of x and no tensor cores whole vectors are wanted: loading x by elements would take all registers.
        """
        many = variant.sizes["m"] >= MIN_TENSOR_BATCH
        if exact and (aligned or many) and vector_size in {2, 4, 8, 16}:
            return ComputeLayout("mma", 2, 4)
        return ComputeLayout("fma", vector_size if many else 1, 32)

    def decoding_tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """On tensor cores or on the CUDA cores, as vectors are exchanged."""
        decoding = propose_mma_tiles if work.exchange.engine == "mma" else propose_fma_tiles
        return decoding(self.n, variant, work, machine)
