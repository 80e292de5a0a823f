"""Subjects: what a library's kernels read, a quantized weight or a KV cache, and what only that decides of a library.

Building, tuning and timing go the same way for all of them. `subject_of` is the one place where they part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vqcc.cache_building import CacheDescription, build_caches, cache_problems_of
from vqcc.flow import CACHES, WEIGHTS, Flow
from vqcc.plan import CachePlan, KernelPlan, Plan
from vqcc.problem import CacheProblem, KernelProblem, Problem
from vqcc.weight_building import WeightDescription, build_weights, problems_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.assembling import Description, GpuBuild
    from vqcc.codegen.toolchain import Compiled
    from vqcc.gpus.model import Gpu
    from vqcc.passes.agreement import Agreed
    from vqcc.picks import Pick
    from vqcc.runtime.device import Device
    from vqcc.spec.model import Spec
    from vqcc.tuning.session import Bench

__all__ = ["AnySubject", "Subject", "subject_of"]

AnyProblem = TypeVar("AnyProblem", bound=KernelProblem)
AnyPlan = TypeVar("AnyPlan", bound=KernelPlan)
AnyPlan_co = TypeVar("AnyPlan_co", bound=KernelPlan, covariant=True)


class BuildGpu(Protocol[AnyProblem, AnyPlan_co]):
    """Plans, renders and compiles a library's kernels for one GPU."""

    def __call__(
        self,
        problems: Sequence[AnyProblem],
        compile_source: Callable[[str], Compiled],
        agreed: Agreed,
        picks: Mapping[str, Pick],
    ) -> GpuBuild[AnyProblem, AnyPlan_co]:
        """The kernels, of the dataflow that was `agreed` on; those that were picked, by suffix, are made so.

        Raises VQ04xx where a level or a limit forbids one, VQ06xx from the toolchain, PickError for a pick that cannot
        be made.
        """
        ...


@dataclass(frozen=True)
class Subject(Generic[AnyProblem, AnyPlan]):
    """What a subject supplies.

    `flow` plans and renders kernels, and knows the candidates for them. `problems_of` a spec on a GPU are its kernels,
    `build_gpu` compiles them, `describe` says what header and manifest say of all GPUs' builds. `bench` times and
    checks libraries of one kernel of a spec on a device, with inputs drawn by a seed.
    """

    flow: Flow[AnyProblem, AnyPlan]
    problems_of: Callable[[Spec, Gpu], tuple[AnyProblem, ...]]
    build_gpu: BuildGpu[AnyProblem, AnyPlan]
    describe: Callable[[Spec, tuple[GpuBuild[AnyProblem, AnyPlan], ...]], Description]
    bench: Callable[[Spec, Device, int], Bench]


#: A subject whose problems are handed back to it alone.
AnySubject = Subject[Any, Any]


def _bench_weights(spec: Spec, device: Device, seed: int) -> Bench:
    from vqcc.runtime.tuning import WeightBench

    profile = () if spec.profile is None else spec.profile.tensors
    return WeightBench(device, seed=seed, profile=profile)


def _bench_caches(_spec: Spec, device: Device, seed: int) -> Bench:
    from vqcc.runtime.tuning import CacheBench

    return CacheBench(device, seed=seed)


_WEIGHT: Subject[Problem, Plan] = Subject(
    WEIGHTS, problems_of, build_weights, WeightDescription, _bench_weights
)
_CACHE: Subject[CacheProblem, CachePlan] = Subject(
    CACHES, cache_problems_of, build_caches, CacheDescription, _bench_caches
)


def subject_of(spec: Spec) -> AnySubject:
    """What the kernels of `spec` read."""
    return _WEIGHT if spec.over_cache is None else _CACHE
