"""Linear ops: y[m, n] = sum over k of x[m, k] W[n, k] (+ bias[n]), whatever the rows of x.

W is quantized [n, k]; x and y are float16 or bfloat16 with row strides; sums are fp32 in a fixed order.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from vqcc.algorithms.fields import MAX_INDEX
from vqcc.diagnostics import Finding
from vqcc.ops.base import Argument, DeviceEngine, Op, TimedMachine, Variant
from vqcc.ops.fields import C_TYPES, Division, Dtypes
from vqcc.ops.linear.reference import draw_case, reference
from vqcc.ops.linear.tile import LinearTile, PanelTile, activation_alignment
from vqcc.ops.linear.traffic import count_traffic
from vqcc.plan import Constant
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.gpus.model import Gpu
    from vqcc.levels import Dataflow
    from vqcc.ops.base import Dtype, LaunchCase, Machine, Traffic, Workload
    from vqcc.ops.linear.dataflow import LinearDataflow
    from vqcc.plan import Decision, Exchange, Tile

__all__ = ["DECODING_ENGINES", "BoundedOp", "Extent", "LinearOp"]

#: Rows or columns: a sum of two still fits the kernels' signed 32-bit arithmetic.
MAX_EXTENT = 2**30
#: A packed row takes a word at least.
WORD_BITS = 32

SCALE_MODES: Mapping[str, str] = {
    "none": "vqcc::ScaleMode::kNone",
    "tensor": "vqcc::ScaleMode::kTensor",
    "row": "vqcc::ScaleMode::kRow",
    "group": "vqcc::ScaleMode::kGroup",
}

#: What multiplies the vectors of kernels that decode.
DECODING_ENGINES: Mapping[str, DeviceEngine] = {
    "fma": DeviceEngine("gemv/fma_engine.cuh", "vqcc::FmaGemv"),
    "mma": DeviceEngine("gemv/mma_engine.cuh", "vqcc::MmaGemv"),
}

Extent = Annotated[int, Field(ge=1, le=MAX_EXTENT)]


class LinearOp(Op):
    """Products of rows of x with a quantized weight."""

    axes: ClassVar[tuple[str, ...]] = ("m", "n", "k", "residual")
    reduce_axes: ClassVar[tuple[str, ...]] = ("k", "residual")
    template: ClassVar[str] = "linear.cu.j2"
    header_template: ClassVar[str] = "linear.h.j2"
    device_headers: ClassVar[tuple[str, ...]] = ("gemv/work.cuh",)
    divisions: ClassVar[Mapping[str, Division]] = {
        "column": Division(("n",)),
        "row": Division(("k",), adds=True),
    }
    fused_field: ClassVar[str | None] = "n"
    #: Dataflows past the paper's that the op has.
    dataflows: ClassVar[Mapping[Dataflow, LinearDataflow]] = {}

    #: The rows of x that launches have, as a spec of the op says it.
    m: Any
    n: Extent
    k: Extent
    dtype: Dtypes = ("float16",)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Take tiles, engines and rows of inputs from the dataflows of a subclass."""
        super().__pydantic_init_subclass__(**kwargs)
        own = cls.dataflows
        cls.tile_types = {"decode": LinearTile, **{name: dataflow.tile for name, dataflow in own.items()}}
        cls.engines = {**DECODING_ENGINES, **{name: dataflow.engine for name, dataflow in own.items()}}
        cls.dataflow_rows = {name: dataflow.rows for name, dataflow in own.items()}

    @property
    @abstractmethod
    def bounds(self) -> tuple[int, ...]:
        """Bounds on m of the kernels that a library may have, ascending."""

    def dataflow_of(self, work: Workload) -> LinearDataflow | None:
        """The dataflow past the paper's that the work's engine is of: they have the same names."""
        return next((own for name, own in self.dataflows.items() if name == work.exchange.engine), None)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape [n, k] of W."""
        return (self.n, self.k)

    def input_rows(self, variant: Variant) -> int:
        """The bound on m."""
        return variant.sizes["m"]

    def variants(self) -> tuple[Variant, ...]:
        """One kernel per bound on m and type; a launch takes the smallest bound that covers its m."""
        return tuple(
            Variant(f"m{m}_{dtype}", dtype, {"m": m})
            for dtype in sorted(set(self.dtype))
            for m in self.bounds
        )

    def check(self, algorithm: Algorithm, gpu: Gpu) -> Iterator[Finding]:
        """Types the GPU lacks, and offsets past 32 bits."""
        for dtype in self.dtype:
            if dtype not in gpu.dtypes:
                legal = ", ".join(gpu.dtypes)
                yield Finding(
                    ("op", "dtype"), "VQ0308", f"{gpu.name} cannot compute in {dtype}", f"use {legal}"
                )
        row_bits = self.k // algorithm.vector_size * algorithm.residuals * algorithm.code_bits
        yield from self._too_many_rows(MAX_INDEX * 8 // max(row_bits, WORD_BITS), "packed codes", "2 GiB")
        group = algorithm.scales.group
        if group is not None:
            yield from self._too_many_rows(MAX_INDEX // -(-self.k // group), "group scales", "2^31 numbers")

    def _too_many_rows(self, limit: int, what: str, reach: str) -> Iterator[Finding]:
        if self.n > limit:
            yield Finding(
                ("op", "n"),
                "VQ0307",
                f"the {what} of {self.n} x {self.k} weights pass the {reach} that 32-bit offsets reach",
                f"split the rows: at most {counted(limit, 'row')} of {counted(self.k, 'column')} fit one library",
            )

    def element_type(self, variant: Variant) -> str:
        """`__half` or `__nv_bfloat16`."""
        return C_TYPES[variant.dtype]

    def arguments(self, variant: Variant) -> tuple[Argument, ...]:
        """Kernel parameters in order."""
        element = self.element_type(variant)
        return (
            Argument("codes", "const uint32_t*", "weights", "packed codes"),
            Argument("books", "const uint8_t*", "weights", "codebooks"),
            Argument("stage_scales", "const float*", "weights", "scales of int8 codebooks", optional=True),
            Argument("scales", "const void*", "weights", "tensor, row or group scales", optional=True),
            Argument("x", f"const {element}*", "input", "[m, k], rows x_stride apart"),
            Argument("bias", f"const {element}*", "input", "[n], or null", optional=True),
            Argument("y", f"{element}*", "output", "[m, n], rows y_stride apart"),
            Argument(
                "workspace", "void*", "workspace", "what blocks tell each other, or null", optional=True
            ),
            Argument("m", "int32_t", "scalar", "rows of x and y"),
            Argument("x_stride", "int64_t", "scalar", "elements between rows of x"),
            Argument("y_stride", "int64_t", "scalar", "elements between rows of y"),
        )

    def problem_constants(self, algorithm: Algorithm) -> tuple[Constant, ...]:
        """The template's `Matrix`."""
        tile_rows, tile_columns = algorithm.scope.tile(self.n, self.k)
        scales = algorithm.scales
        return (
            Constant("int", "kRows", self.n, "n, rows of W"),
            Constant("int", "kColumns", self.k, "k, columns of W"),
            Constant("int", "kTileRows", min(tile_rows, self.n), "rows that share a codebook"),
            Constant("int", "kTileColumns", min(tile_columns, self.k), "columns that share a codebook"),
            Constant(
                "vqcc::ScaleMode", "kScaleMode", SCALE_MODES[scales.kind], "what multiplies decoded weights"
            ),
            Constant("int", "kGroupColumns", scales.group or self.k, "columns that share a scale"),
        )

    def tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """Tiles to try, the most promising first; later ones leave a thread more registers."""
        dataflow = self.dataflow_of(work)
        if dataflow is not None:
            assert isinstance(machine, TimedMachine)
            return dataflow.propose(self.n, variant, work, machine)
        return self.decoding_tiles(variant, work, machine)

    def every_tile(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """All tiles that are worth timing, the most promising first."""
        dataflow = self.dataflow_of(work)
        if dataflow is not None:
            assert isinstance(machine, TimedMachine)
            return dataflow.rank(self.n, variant, work, machine)
        return self.tiles(variant, work, machine)

    @abstractmethod
    def decoding_tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """Those of `tiles` that decode as the paper's do."""

    def panels(self, tile: Tile) -> int:
        """Panels of x at the variant's bound."""
        assert isinstance(tile, LinearTile)
        return tile.panels

    def tile_at(self, tile: Tile, rows: int) -> Tile:
        """The tile with the panels that so many rows of x have."""
        several = isinstance(tile, PanelTile) and tile.panels > 1
        return replace(tile, panels=-(-rows // tile.batch)) if several else tile  # type: ignore[attr-defined,type-var]

    def traffic(self, variant: Variant, tile: Tile, exchange: Exchange, vector_size: int) -> Traffic:
        """What a panel's blocks move and execute beside looking entries up."""
        assert isinstance(tile, LinearTile)
        panel = replace(variant, sizes={"m": tile.batch})
        return count_traffic(self.weight_shape, panel, tile, exchange, vector_size)

    def phase_cycles(self, tile: Tile, work: Workload, machine: TimedMachine) -> Mapping[str, float]:
        """Cycles of a launch of a dataflow past the paper's, phase by phase."""
        dataflow = self.dataflow_of(work)
        assert dataflow is not None
        return dataflow.cycles(tile, work, machine)

    def header_values(self, algorithm: Algorithm) -> Mapping[str, int]:
        """What `_supports` checks against."""
        return {
            "n": self.n,
            "k": self.k,
            "max_m": self.bounds[-1],
            "x_alignment": self.x_alignment(algorithm),
            "needs_scales": int(algorithm.scales.kind != "none"),
            "needs_stage_scales": int(algorithm.has_codebook_scales),
        }

    def adds_stages(self, tile: Tile, dtype: Dtype) -> bool:
        """Whether a kernel of `tile` adds residual stages up in float16 before it multiplies them."""
        flows = (flow for flow in self.dataflows.values() if isinstance(tile, flow.tile))
        return dtype == "float16" and any(flow.adds_stages for flow in flows)

    def x_alignment(self, algorithm: Algorithm) -> int:
        """Bytes that x and its rows must be multiples of."""
        return activation_alignment(algorithm.vector_size)

    def launch_sizes(self, variant: Variant) -> tuple[Mapping[str, int], ...]:
        """The variant's bound on m, and a smaller m whose missing rows it must mask."""
        bound = variant.sizes["m"]
        return tuple({"m": m} for m in sorted({bound, max(1, bound // 2)}))

    def draw_case(
        self,
        variant: Variant,
        sizes: Mapping[str, int],
        algorithm: Algorithm,
        rng: np.random.Generator,
        *,
        gaps: bool = True,
    ) -> LaunchCase:
        """Draw the inputs of one launch of `sizes`; without `gaps` rows of x and y lie next to each other."""
        return draw_case(self.weight_shape, sizes, variant, self.x_alignment(algorithm), rng, gaps=gaps)

    def reference(
        self,
        weights: NDArray[np.float64],
        magnitudes: NDArray[np.float64],
        inputs: Mapping[str, NDArray[Any]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Y [m, n] in float64, and the sum of absolute terms of each element."""
        return reference(weights, magnitudes, inputs)

    def longest_sum(self, tile: Tile, algorithm: Algorithm) -> int:
        """Roundings on the way to an output: those of the sums, scale and bias, and of decoding."""
        return tile.roundings + 2 + 2 * algorithm.residuals + 1


class BoundedOp(LinearOp):
    """A linear op whose spec lists the bounds on m: each makes a kernel."""

    m: tuple[int, ...]

    @property
    def bounds(self) -> tuple[int, ...]:
        """Bounds on m of the library's kernels, ascending."""
        return tuple(sorted(set(self.m)))

    def only(self, variant: Variant) -> Self:
        """The op with that one variant."""
        return self.model_copy(update={"m": (variant.sizes["m"],), "dtype": (variant.dtype,)})
