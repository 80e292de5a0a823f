"""From a spec of an op over a KV cache to a library: kernels that attend and kernels that append, for every GPU."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vqcc.assembling import Built, GpuBuild, assemble
from vqcc.cache_library import describe_append, describe_cache_kernel, describe_cache_library, layout_id_of
from vqcc.cache_search import compile_cache_plans
from vqcc.codegen.cache import compile_cached
from vqcc.codegen.cache_header import render_cache_header
from vqcc.problem import CacheProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.cache_search import Picks
    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.toolchain import Compiled, Toolchain
    from vqcc.compiling import Emit
    from vqcc.gpus.model import Gpu
    from vqcc.passes.choice import Agreed
    from vqcc.plan import CachePlan
    from vqcc.spec.model import Spec

    CacheBuild = GpuBuild[CacheProblem, CachePlan]

__all__ = ["build_cache_library", "cache_problems_of"]


def cache_problems_of(spec: Spec, gpu: Gpu) -> tuple[CacheProblem, ...]:
    """The kernels of `spec` that attend on one of its GPUs, in the order of the op's variants."""
    assert spec.over_cache is not None
    keys, values, op = spec.over_cache
    return tuple(
        CacheProblem(spec.identifier, keys, values, op, variant, gpu, spec.level) for variant in op.variants()
    )


def build_cache_library(
    spec: Spec,
    *,
    toolchain: Toolchain,
    cache: CompileCache | None,
    emit: Sequence[Emit],
    jobs: int = 1,
    agreed: Agreed | None = None,
    picks: Picks = MappingProxyType({}),
) -> Built:
    """Plan, render and compile a library over a KV cache, whose kernels on all GPUs read one cache and its books.

    Of a dataflow that was `agreed` on, kernels that were picked are made so. GPUs are compiled by `jobs` threads.
    Raises VQ04xx where a level or a limit forbids a kernel, VQ06xx from the toolchain, PickError where a pick cannot
    be made.
    """

    def compile_source(gpu: Gpu, source: str) -> Compiled:
        file_name = f"{spec.name}.{gpu.name}.cu"
        return compile_cached(
            toolchain, cache, source, target=gpu.target, want_ptx="ptx" in emit, file_name=file_name
        )

    problems = [cache_problems_of(spec, gpu) for gpu in spec.gpu]
    builds = tuple(
        GpuBuild(gpu, own, made.plans, made.source, made.compiled, made.appends)
        for gpu, own, made in zip(
            spec.gpu,
            problems,
            compile_cache_plans(problems, compile_source, jobs, agreed, picks),
            strict=True,
        )
    )
    return assemble(spec, builds, _Description(spec, builds), toolchain, emit)


@dataclass(frozen=True)
class _Description:
    """What a library over a KV cache says of itself."""

    spec: Spec
    builds: tuple[CacheBuild, ...]

    def header(self, build_id: str) -> str:
        problems, plans, appends = (
            [getattr(build, part) for build in self.builds] for part in ("problems", "plans", "appends")
        )
        layout_id = layout_id_of(problems[0][0], plans[0][0])
        return render_cache_header(self.spec.name, problems, plans, appends, build_id, layout_id)

    def library(self) -> dict[str, Any]:
        return describe_cache_library(self.builds[0].problems[0], self.builds[0].plans[0])

    def kernels(self, number: int) -> dict[str, list[dict[str, Any]]]:
        build = self.builds[number]
        of_types = {problem.variant.dtype: problem for problem in build.problems}
        pairs = zip(build.problems, build.plans, strict=True)
        return {
            "kernels": [describe_cache_kernel(problem, plan) for problem, plan in pairs],
            "appends": [describe_append(of_types[each.tile.dtype], each) for each in build.appends],
        }
