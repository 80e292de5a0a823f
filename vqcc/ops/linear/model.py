"""linear: products of a quantized weight with any number of rows of x up to a bound, by kernels of gemv and gemm.

Both may serve few rows: the planner draws the line between them by predicted time (vqcc.passes.rows).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from vqcc.diagnostics import field_error
from vqcc.ops.base import TimedMachine
from vqcc.ops.gemm import Gemm
from vqcc.ops.gemm.panels import GEMM_DATAFLOWS, MAX_ROWS, counters_of
from vqcc.ops.gemv import Gemv
from vqcc.ops.gemv.dataflows import DATAFLOWS, MAX_BATCH
from vqcc.ops.gemv.fragment_tile import FragmentTile
from vqcc.ops.linear.base import LinearOp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from vqcc.algorithms.base import Algorithm
    from vqcc.levels import Dataflow
    from vqcc.ops.base import ComputeLayout, Machine, Variant, Workload
    from vqcc.ops.linear.dataflow import LinearDataflow
    from vqcc.plan import Decision, Tile

__all__ = ["Linear", "RowRange"]

#: Bounds on m that may have a kernel: those at which tiles of x are full, of gemv, then of gemm, whose panels have up
#: to 128 rows, and from there on multiples of panels.
BOUNDS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)


class RowRange(BaseModel):
    """The rows of x that launches are expected to have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_ROWS,
            description="rows from which on kernels are made; a launch may have fewer",
            examples=[1],
        ),
    ]
    max: Annotated[
        int, Field(ge=1, le=MAX_ROWS, description="the most rows that a launch may have", examples=[8192])
    ]

    @field_validator("max")
    @classmethod
    def _in_order(cls, most: int, info: ValidationInfo) -> int:
        least = info.data.get("min", most)
        if most < least:
            raise field_error(
                "VQ0215",
                f"m.max is {most}, below m.min, which is {least}",
                f"write the fewest rows first: m: {{min: {most}, max: {least}}}",
            )
        return most


def _as_range(value: object) -> object:
    """A mapping as it is. Raises VQ0203 for the bounds that other ops have instead."""
    bounds = value if isinstance(value, list | tuple) else (value,)
    numbers = [each for each in bounds if type(each) is int and 1 <= each <= MAX_ROWS]
    if numbers and len(numbers) == len(bounds):
        raise field_error(
            "VQ0203",
            "m must be a mapping of the fewest and the most rows: the planner chooses the bounds between",
            f"write m: {{min: {min(numbers) if len(numbers) > 1 else 1}, max: {max(numbers)}}}, "
            "or use gemv or gemm to name each bound",
        )
    return value


class Linear(LinearOp):
    """Matrix products with any number of rows of x."""

    stand_ins: ClassVar[dict[str, Any]] = {"m": {"min": 1, "max": 1}, "n": 1}
    chosen_by_time: ClassVar[bool] = True
    dataflows: ClassVar[Mapping[Dataflow, LinearDataflow]] = {**DATAFLOWS, **GEMM_DATAFLOWS}

    kind: Literal["linear"]
    m: Annotated[
        RowRange,
        BeforeValidator(_as_range),
        Field(description="rows of x", examples=[{"min": 1, "max": 8192}]),
    ]

    @property
    def bounds(self) -> tuple[int, ...]:
        """Bounds on m that may have a kernel, ascending: the largest surely has one."""
        return (*(bound for bound in BOUNDS if self.m.min <= bound < self.m.max), self.m.max)

    def only(self, variant: Variant) -> Self:
        """The op with that one variant."""
        bound = variant.sizes["m"]
        return self.model_copy(update={"m": RowRange(min=bound, max=bound), "dtype": (variant.dtype,)})

    def made_as(self, variant: Variant) -> str:
        """`gemv` or `gemm`."""
        return self._served_by(variant).kind

    def rows_of(self, variant: Variant, dataflow: Dataflow) -> int:
        """The most rows of x that kernels of a dataflow serve, of the op that has the variant's."""
        return self._served_by(variant).rows_of(variant, dataflow)

    def _served_by(self, variant: Variant) -> LinearOp:
        """The op that has the variant's kernels."""
        bound = variant.sizes["m"]
        shape = {"n": self.n, "k": self.k, "dtype": (variant.dtype,), "m": (bound,)}
        if bound <= MAX_BATCH:
            return Gemv.model_validate({"kind": "gemv", **shape})
        return Gemm.model_validate({"kind": "gemm", **shape})

    def compute_layout(
        self, variant: Variant, *, vector_size: int, exact: bool, aligned: bool
    ) -> ComputeLayout:
        """What the variant's engine wants."""
        served = self._served_by(variant)
        return served.compute_layout(variant, vector_size=vector_size, exact=exact, aligned=aligned)

    def staged(self, variant: Variant) -> bool:
        """Gemm's kernels."""
        return self._served_by(variant).staged(variant)

    def tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """Tiles to try, the most promising first; later ones leave a thread more registers."""
        return self._sharing(self._served_by(variant).tiles(variant, work, machine), variant, work, machine)

    def every_tile(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """All tiles that are worth timing, the most promising first."""
        return self._sharing(
            self._served_by(variant).every_tile(variant, work, machine), variant, work, machine
        )

    def decoding_tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """Those of `tiles` that decode as the paper's do."""
        return self._served_by(variant).decoding_tiles(variant, work, machine)

    def _sharing(
        self,
        tiles: Iterator[tuple[Tile, tuple[Decision, ...]]],
        variant: Variant,
        work: Workload,
        machine: Machine,
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """The tiles, gemv's with as many counters of arrivals as gemm's: kernels of a library share a workspace."""
        counters = None
        for tile, decisions in tiles:
            if isinstance(tile, FragmentTile):
                assert isinstance(machine, TimedMachine)
                counters = counters or counters_of(self.n, variant, work, machine)
                yield replace(tile, arrivals=counters), decisions
            else:
                yield tile, decisions

    def x_alignment(self, algorithm: Algorithm) -> int:
        """As gemm's kernels need it, so that a range's bounds, GPUs and levels share one contract."""
        return Gemm(kind="gemm", m=(MAX_ROWS,), n=self.n, k=self.k).x_alignment(algorithm)
