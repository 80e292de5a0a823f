"""Libraries over a KV cache: kernels that attend and kernels that append, compiled for one GPU, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.assembling import GpuBuild
from vqcc.cache_library import describe_append, describe_cache_kernel, describe_cache_library, layout_id_of
from vqcc.cache_search import compile_cache_plans
from vqcc.codegen.cache_header import render_cache_header
from vqcc.codegen.device_parts import is_portable
from vqcc.problem import CacheProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.gpus.model import Gpu
    from vqcc.passes.agreement import Agreed
    from vqcc.picks import Pick
    from vqcc.plan import CachePlan
    from vqcc.spec.model import Spec

    CacheBuild = GpuBuild[CacheProblem, CachePlan]

__all__ = ["CacheDescription", "build_caches", "cache_problems_of"]


def cache_problems_of(spec: Spec, gpu: Gpu) -> tuple[CacheProblem, ...]:
    """The kernels of `spec` that attend on one of its GPUs, in the order of the op's variants."""
    assert spec.over_cache is not None
    keys, values, op = spec.over_cache
    return tuple(
        CacheProblem(spec.identifier, keys, values, op, variant, gpu, spec.level) for variant in op.variants()
    )


def build_caches(
    problems: Sequence[CacheProblem],
    compile_source: Callable[[str], Compiled],
    agreed: Agreed,
    picks: Mapping[str, Pick],
) -> CacheBuild:
    """The kernels of one GPU, as `compile_cache_plans` makes them of a dataflow; raises what that raises."""
    made = compile_cache_plans(problems, compile_source, agreed, picks)
    return GpuBuild(problems[0].gpu, tuple(problems), made.plans, made.source, made.compiled, made.appends)


@dataclass(frozen=True)
class CacheDescription:
    """What a library over a KV cache says of itself."""

    spec: Spec
    builds: tuple[CacheBuild, ...]

    def header(self, build_id: str) -> str:
        """The C header, which states the build's id."""
        problems, plans, appends = (
            [getattr(build, part) for build in self.builds] for part in ("problems", "plans", "appends")
        )
        layout_id = layout_id_of(problems[0][0], plans[0][0])
        portable = [is_portable(build.source) for build in self.builds]
        return render_cache_header(self.spec.name, problems, plans, appends, build_id, layout_id, portable)

    def library(self) -> dict[str, Any]:
        """What all of its kernels share."""
        return describe_cache_library(self.builds[0].problems[0], self.builds[0].plans[0])

    def kernels(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """Kernels of the GPU of this number: those that attend, and those that append."""
        build = self.builds[number]
        of_types = {problem.variant.dtype: problem for problem in build.problems}
        pairs = zip(build.problems, build.plans, strict=True)
        return {
            "kernels": [describe_cache_kernel(problem, plan) for problem, plan in pairs],
            "appends": [describe_append(of_types[each.tile.dtype], each) for each in build.appends],
        }
