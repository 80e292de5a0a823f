"""What every compute op says about itself; the ops derive from `Op`.

An op is a frozen pydantic model: the mapping of a spec and the object the passes ask are one thing. It knows
no algorithm and no GPU: passes hand it layouts, bytes and limits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from vqcc.code_layouts import PackedLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.code_layouts import CodeLayout
    from vqcc.diagnostics import Finding
    from vqcc.gpus.model import Gpu
    from vqcc.levels import Dataflow
    from vqcc.ops.fields import Division
    from vqcc.plan import Constant, Decision, Exchange, Split, Tile

__all__ = [
    "Argument",
    "ComputeLayout",
    "DeviceEngine",
    "Dtype",
    "LaunchCase",
    "Machine",
    "Op",
    "TimedMachine",
    "Traffic",
    "Variant",
    "Workload",
]

Dtype = Literal["float16", "bfloat16"]


@dataclass(frozen=True)
class Variant:
    """One kernel of a library: a bound on the run-time size and an element type; of attention also a size of pages."""

    suffix: str
    dtype: Dtype
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Argument:
    """One kernel parameter: its C type, its role, and for arrays what they hold.

    `role` is `weights` (made by `vqcc pack`), `input`, `output`, `inout` (read and written), `workspace`
    (Launch.workspace_bytes of device memory, null where that is 0) or `scalar`.
    """

    name: str
    c_type: str
    role: Literal["weights", "input", "output", "inout", "workspace", "scalar"]
    comment: str
    optional: bool = False


@dataclass(frozen=True)
class LaunchCase:
    """Arrays and scalars of one launch by argument name; outputs are overwritten by it.

    `result` picks from the outputs what is compared with `Op.reference`, `untouched` what must stay as it was.
    """

    sizes: Mapping[str, int]
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    scalars: Mapping[str, int]
    result: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
    untouched: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]


@dataclass(frozen=True)
class ComputeLayout:
    """How a compute engine wants decoded elements of a row: `width` neighbours in a thread, `lanes` threads a row."""

    engine: Literal["fma", "mma"]
    width: int
    lanes: int


@dataclass(frozen=True)
class DeviceEngine:
    """Device header and class template of the kernels of a compute engine: `run` works on a launch."""

    header: str
    type_name: str


@dataclass(frozen=True)
class Workload:
    """What a tile must work on, in numbers: an op sees no algorithm.

    `stages` and `column_tiles` are those of one part of a row, whose books `resident_tiles` at a time are present;
    `stage_sums` of the stages are summed apart. `entry_words` are the 32-bit registers of a looked-up entry,
    `entry_operations` what it takes to decode it; a book has `tables` of `table_entries` each, constants included, and
    codes of `code_bits`; `book_bytes` is the shared memory that books take for certain;
    `band_rows` the rows that share their books. If weights are `rounded`, what entries and scales of groups make is no
    number of the inputs' type.
    """

    layout: CodeLayout
    vector_size: int
    stages: int
    stage_sums: int
    entry_words: int
    entry_operations: int
    tables: int
    table_entries: int
    code_bits: int
    band_rows: int
    column_tiles: int
    resident_tiles: int
    book_bytes: int
    split: Split
    exchange: Exchange
    rounded: bool = False

    @property
    def chunked(self) -> PackedLayout:
        """The layout of codes that are decoded."""
        assert isinstance(self.layout, PackedLayout)
        return self.layout


@dataclass(frozen=True)
class Machine:
    """Limits of a GPU that bound a tile, sizes in bytes, registers of 32 bits.

    `shared_bytes_reserved` are the driver's, in front of what a block asks for.
    """

    sm_count: int
    threads_per_block: int
    registers_per_thread: int
    registers_per_block: int
    shared_bytes_per_block: int
    shared_bytes_per_sm: int
    shared_bytes_reserved: int


@dataclass(frozen=True)
class TimedMachine(Machine):
    """Limits, and how long things take, for tiles whose op counts the cycles of a block, at the clock under load.

    `l2_bytes` and `dram_bytes_per_cycle` are the whole GPU's, `l2_bytes_per_cycle` an SM's, `dram_latency_cycles`
    those until a load that misses the second-level cache is there. A sub-partition of an SM takes `multiply_cycles` for
    an m16n8k16 of fp16, `integer_cycles` for a warp's integer or bit instruction.
    """

    sub_partitions: int
    l2_bytes: int
    dram_bytes_per_cycle: float
    l2_bytes_per_cycle: float
    dram_latency_cycles: float
    multiply_cycles: float
    integer_cycles: float


@dataclass(frozen=True)
class Traffic:
    """What a kernel does beside its look-ups. Bytes of a launch; all else per vector that a lane decodes.

    `io_bytes` cross DRAM once; `input_bytes` are read by each block. Wavefronts, shuffles, instructions and tensor
    multiplies are a warp's for the vectors of its 32 lanes, multiplies for one residual stage.
    """

    io_bytes: float
    input_bytes: float
    global_wavefronts: float
    shared_wavefronts: float
    shuffles: float
    instructions: float
    step_instructions: float
    tensor_multiplies: float


class Op(BaseModel, ABC):
    """A compute op over quantized weights or caches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Values for required fields when only relations between the others are asked about (vqcc.spec.salvage).
    stand_ins: ClassVar[dict[str, Any]] = {}

    #: Table III: all axes, and those summed over. Codebook-switch axes are the algorithm's.
    axes: ClassVar[tuple[str, ...]]
    reduce_axes: ClassVar[tuple[str, ...]]
    #: The kernel template, relative to templates/kernels.
    template: ClassVar[str]
    #: The C header's template, relative to templates/host.
    header_template: ClassVar[str]
    #: The tiles of this op's plans, by dataflow.
    tile_types: ClassVar[Mapping[Dataflow, type[Tile]]]
    #: The most rows of inputs that kernels of a dataflow past the paper's serve, of those that the op has.
    dataflow_rows: ClassVar[Mapping[Dataflow, int]] = {}
    #: Whether a library may do without some of the `variants`: the planner makes those that pay.
    chosen_by_time: ClassVar[bool] = False
    #: Device headers the template builds on, beside the algorithm's own and the engine's.
    device_headers: ClassVar[tuple[str, ...]]
    #: What multiplies decoded vectors, by the names of `Exchange.engine`.
    engines: ClassVar[Mapping[str, DeviceEngine]]

    #: How ranks may share the op, by the names that a model's spec has for it.
    divisions: ClassVar[Mapping[str, Division]] = {}
    #: The field that adds up when layers of the same inputs become one.
    fused_field: ClassVar[str | None] = None

    kind: str

    @property
    @abstractmethod
    def weight_shape(self) -> tuple[int, int]:
        """Shape [n, k] of the quantized weight."""

    @abstractmethod
    def input_rows(self, variant: Variant) -> int:
        """Rows of inputs that every weight is multiplied with, at the variant's bound."""

    @abstractmethod
    def variants(self) -> tuple[Variant, ...]:
        """The kernels of a library, one per bound and type, in the order of the spec."""

    @abstractmethod
    def check(self, algorithm: Algorithm, gpu: Gpu) -> Iterator[Finding]:
        """What makes this op impossible for the algorithm on the GPU."""

    @abstractmethod
    def element_type(self, variant: Variant) -> str:
        """The CUDA type of the variant's inputs and outputs."""

    @abstractmethod
    def arguments(self, variant: Variant) -> tuple[Argument, ...]:
        """Kernel parameters in order."""

    @abstractmethod
    def problem_constants(self, algorithm: Algorithm) -> tuple[Constant, ...]:
        """Shape, scope and scales as the template's `Matrix` reads them."""

    @abstractmethod
    def compute_layout(
        self, variant: Variant, *, vector_size: int, exact: bool, aligned: bool
    ) -> ComputeLayout:
        """What the engine wants that multiplies for `variant`, once vectors are exchanged (Sec. VI-B) or `aligned`.

        `exact`: decoded values are exact in the variant's type, so that tensor cores may take them.
        """

    def staged(self, variant: Variant) -> bool:  # noqa: ARG002
        """Whether levels that exchange nothing by Algorithm 1 still multiply on tensor cores, through shared memory."""
        return False

    @abstractmethod
    def tiles(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """Tiles to try, the most promising first; later ones leave a thread more registers.

        Dataflows past the paper's are handed a TimedMachine.
        """

    def every_tile(
        self, variant: Variant, work: Workload, machine: Machine
    ) -> Iterator[tuple[Tile, tuple[Decision, ...]]]:
        """All tiles that are worth timing, the most promising first: those of `tiles`, and more."""
        return self.tiles(variant, work, machine)

    def panels(self, tile: Tile) -> int:  # noqa: ARG002
        """Passes over the weights that a launch makes at the variant's bound."""
        return 1

    def rows_of(self, variant: Variant, dataflow: Dataflow) -> int:  # noqa: ARG002
        """The most rows of inputs that kernels of a dataflow past the paper's serve, as `variant` has them; 0: none."""
        return self.dataflow_rows.get(dataflow, 0)

    def tile_at(self, tile: Tile, rows: int) -> Tile:  # noqa: ARG002
        """What a launch of no more than `rows` rows of inputs has of a tile: fewer panels, if it has several."""
        return tile

    def made_as(self, variant: Variant) -> str:  # noqa: ARG002
        """The kind of op whose kernel serves the variant."""
        return self.kind

    @abstractmethod
    def only(self, variant: Variant) -> Self:
        """The op with that one variant."""

    @abstractmethod
    def traffic(self, variant: Variant, tile: Tile, exchange: Exchange, vector_size: int) -> Traffic:
        """What the kernel moves and executes beside looking entries up."""

    def phase_cycles(self, tile: Tile, work: Workload, machine: TimedMachine) -> Mapping[str, float]:  # noqa: ARG002
        """Cycles of a launch of a dataflow past the paper's, phase by phase; nothing for an op without them."""
        return {}

    @abstractmethod
    def header_values(self, algorithm: Algorithm) -> Mapping[str, int]:
        """Numbers that the header's template prints beside those of every library."""

    @abstractmethod
    def launch_sizes(self, variant: Variant) -> tuple[Mapping[str, int], ...]:
        """Run-time sizes at which the variant is validated: its bound, and smaller ones it must mask."""

    def adds_stages(self, tile: Tile, dtype: Dtype) -> bool:  # noqa: ARG002
        """Whether a kernel of `tile` adds residual stages up in float16 before it multiplies them."""
        return False

    @abstractmethod
    def draw_case(
        self,
        variant: Variant,
        sizes: Mapping[str, int],
        algorithm: Algorithm,
        rng: np.random.Generator,
        *,
        gaps: bool = True,
    ) -> LaunchCase:
        """Draw the inputs of one launch of `sizes`; without `gaps` rows lie next to each other."""

    @abstractmethod
    def reference(
        self,
        weights: NDArray[np.float64],
        magnitudes: NDArray[np.float64],
        inputs: Mapping[str, NDArray[Any]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The exact result in float64 and, per element, the sum of absolute terms that bounds its rounding.

        `weights` and `magnitudes` are what `Algorithm.decode` gives.
        """

    @abstractmethod
    def longest_sum(self, tile: Tile, algorithm: Algorithm) -> int:
        """Roundings that an output element goes through at most, for the error bound."""
