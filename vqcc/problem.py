"""One kernel to plan: an algorithm, an op, one of its variants, a GPU and a level."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.gpus.model import Gpu
    from vqcc.hotness import TensorProfile
    from vqcc.levels import Level
    from vqcc.ops.attention.model import AttentionDecode
    from vqcc.ops.base import Op, Variant

__all__ = ["Boundaries", "CacheProblem", "KernelProblem", "Problem"]


@dataclass(frozen=True)
class Boundaries:
    """What a spec says of the codebook cache's boundaries; None leaves one to the planner (Sec. V-C).

    Of each table, entries [0, registers) are to lie in registers and [registers, shared) in shared memory.
    """

    registers: int | None = None
    shared: int | None = None


class KernelProblem(Protocol):
    """What problems of all ops have, for passes that see neither the op nor the algorithm."""

    @property
    def library(self) -> str:
        """The library's C name."""
        ...

    @property
    def variant(self) -> Variant:
        """The one of the op's kernels."""
        ...

    @property
    def gpu(self) -> Gpu:
        """What it runs on."""
        ...

    @property
    def level(self) -> Level:
        """What is asked for."""
        ...

    @property
    def kernel(self) -> str:
        """The kernel's C name less what identifies its plan: library, then variant."""
        ...

    @property
    def made_for(self) -> list[Any]:
        """Plain data that is equal where, on one GPU, the same kernels can be made and take the same time."""
        ...


@dataclass(frozen=True)
class CacheProblem:
    """What a plan of attention is made for: keys and values each have an algorithm, which may be the same."""

    library: str
    keys: Algorithm
    values: Algorithm
    op: AttentionDecode
    variant: Variant
    gpu: Gpu
    level: Level

    @property
    def kernel(self) -> str:
        """The kernel's C name less what identifies its plan: library, then variant."""
        return f"{self.library}_{self.variant.suffix}"

    @property
    def made_for(self) -> list[Any]:
        """Algorithms, op and level; and the op's largest batch, by which all kernels of a library lay counters out."""
        return [
            self.keys.mapping(),
            self.values.mapping(),
            self.op.only(self.variant).model_dump(mode="json"),
            max(self.op.batch),
            self.level,
        ]


@dataclass(frozen=True)
class Problem:
    """What a plan is made for. The three axes meet in the passes only, as layouts, axes and bytes.

    `profile` holds the profiled tensors of this algorithm and shape: none where the spec names no profile.
    """

    library: str
    algorithm: Algorithm
    op: Op
    variant: Variant
    gpu: Gpu
    level: Level
    boundaries: Boundaries = Boundaries()
    profile: tuple[TensorProfile, ...] = ()

    @property
    def kernel(self) -> str:
        """The kernel's C name less what identifies its plan: library, then variant."""
        return f"{self.library}_{self.variant.suffix}"

    @property
    def made_for(self) -> list[Any]:
        """Algorithm, op, level, the spec's boundaries and the codes that its profile counted."""
        return [
            self.algorithm.mapping(),
            self.op.only(self.variant).model_dump(mode="json"),
            self.level,
            asdict(self.boundaries),
            sorted(tensor.codes_sha256 for tensor in self.profile),
        ]
