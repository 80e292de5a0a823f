"""Libraries over a quantized weight: their kernels, compiled for one GPU, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.assembling import GpuBuild
from vqcc.codegen.device_parts import is_portable
from vqcc.codegen.header import render_header
from vqcc.library import describe_kernel, describe_library
from vqcc.problem import Problem
from vqcc.search import compile_plans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.gpus.model import Gpu
    from vqcc.passes.agreement import Agreed
    from vqcc.picks import Pick
    from vqcc.plan import Plan
    from vqcc.spec.model import Spec

    WeightBuild = GpuBuild[Problem, Plan]

__all__ = ["WeightDescription", "build_weights", "problems_of"]


def problems_of(spec: Spec, gpu: Gpu) -> tuple[Problem, ...]:
    """The kernels of `spec`, which is over a weight, on one of its GPUs, in the order of the op's variants."""
    profile = () if spec.profile is None else spec.profile.tensors
    assert spec.over_weights is not None
    algorithm, op = spec.over_weights
    return tuple(
        Problem(spec.identifier, algorithm, op, variant, gpu, spec.level, spec.boundaries, profile)
        for variant in op.variants()
    )


def build_weights(
    problems: Sequence[Problem],
    compile_source: Callable[[str], Compiled],
    agreed: Agreed,
    picks: Mapping[str, Pick],
) -> WeightBuild:
    """The kernels of one GPU that are made, as `compile_plans` makes them of a dataflow; raises what that raises."""
    made = agreed.made(problems)
    source, plans, compiled = compile_plans(made, compile_source, agreed, picks)
    return GpuBuild(made[0].gpu, made, plans, source, compiled)


@dataclass(frozen=True)
class WeightDescription:
    """What a library over a quantized weight says of itself."""

    spec: Spec
    builds: tuple[WeightBuild, ...]

    def __post_init__(self) -> None:
        layouts = {plan.layout for build in self.builds for plan in build.plans}
        assert len(layouts) == 1, "one packed file serves a library"

    def header(self, build_id: str) -> str:
        """The C header, which states the build's id."""
        problems, plans = ([getattr(build, part) for build in self.builds] for part in ("problems", "plans"))
        portable = [is_portable(build.source) for build in self.builds]
        return render_header(self.spec.name, problems, plans, build_id, portable)

    def library(self) -> dict[str, Any]:
        """What all of its kernels share."""
        return describe_library(self.builds[0].problems[0], self.builds[0].plans[0])

    def kernels(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """Kernels of the GPU of this number."""
        build = self.builds[number]
        pairs = zip(build.problems, build.plans, strict=True)
        return {"kernels": [describe_kernel(problem, plan) for problem, plan in pairs]}
