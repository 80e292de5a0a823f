"""From a spec to a library: plan and compile its kernels for every GPU, and write the bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vqcc.assembling import Built, GpuBuild, assemble, in_parallel, runs_on
from vqcc.cache_building import build_cache_library
from vqcc.codegen.bundle import write_bundle
from vqcc.codegen.cache import compile_cached
from vqcc.codegen.header import render_header
from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.library import describe_kernel, describe_library
from vqcc.passes.choice import Agreed, agree
from vqcc.picks import PickError
from vqcc.pipeline import estimate
from vqcc.plan import Rejected
from vqcc.problem import Problem
from vqcc.racing import first_that_fits, spills_everywhere
from vqcc.search import compile_plans
from vqcc.tuning.choosing import choose
from vqcc.tuning.use import LockUse, complaints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.toolchain import Compiled, Toolchain
    from vqcc.compiling import Emit
    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Variant
    from vqcc.picks import Pick
    from vqcc.plan import Plan
    from vqcc.spec.model import Spec
    from vqcc.tuning.choosing import Tuned
    from vqcc.tuning.lock import Lock

    WeightBuild = GpuBuild[Problem, Plan]
    #: What was picked of a library: by GPU and variant's suffix.
    Picks = Mapping[str, Mapping[str, Pick]]

__all__ = [
    "Built",
    "GpuBuild",
    "build_library",
    "build_picked",
    "problems_of",
    "runs_on",
    "write_library",
]


def problems_of(spec: Spec, gpu: Gpu) -> tuple[Problem, ...]:
    """The kernels of `spec`, which is over a weight, on one of its GPUs, in the order of the op's variants."""
    profile = () if spec.profile is None else spec.profile.tensors
    assert spec.over_weights is not None
    algorithm, op = spec.over_weights
    return tuple(
        Problem(spec.identifier, algorithm, op, variant, gpu, spec.level, spec.boundaries, profile)
        for variant in op.variants()
    )


def build_library(
    spec: Spec,
    *,
    toolchain: Toolchain,
    cache: CompileCache | None,
    emit: Sequence[Emit] = ("cu", "cubin", "header", "plan"),
    jobs: int = 1,
    lock: Lock | None = None,
) -> Built:
    """Plan, render and compile a library, all of whose kernels read the same packed codes.

    Of one over a weight, kernels that a `lock` has measured are those that took least, with the dataflow that takes
    least in all. Where one of them cannot be made any more, the model decides as without a lock.
    GPUs are compiled by `jobs` threads. Diagnostics of all GPUs are raised together: VQ04xx where a level or a
    limit forbids a kernel, at the field of the spec that asks for it if one does, VQ06xx from the toolchain.
    """
    if spec.over_weights is None:
        return build_cache_library(spec, toolchain=toolchain, cache=cache, emit=emit, jobs=jobs)
    problems = [problem for gpu in spec.gpu for problem in problems_of(spec, gpu)]
    try:
        choices = agree(problems, estimate)
    except VqccError:  # which comes again, for each GPU that it is true of
        choices = (Agreed("decode"),)
    tuned = None if lock is None else choose(lock, problems, toolchain.identity, choices)

    def build(agreed: Agreed, picks: Picks) -> tuple[WeightBuild, ...]:
        return _build_gpus(spec, agreed, toolchain, cache, picks, want_ptx="ptx" in emit, jobs=jobs)

    builds, lost = _build_tuned(tuned, choices, build)
    built = _assemble(spec, builds, toolchain, emit)
    if lock is None or spec.level != "best":
        return built
    made = {} if tuned is None or lost else {gpu: tuple(own) for gpu, own in tuned.picks.items()}
    told = lost or complaints(lock, problems, toolchain.identity, tuned)
    return replace(built, lock_use=LockUse(made, told))


def build_picked(
    spec: Spec,
    gpu: Gpu,
    variant: Variant,
    pick: Pick,
    *,
    toolchain: Toolchain,
    cache: CompileCache | None,
) -> Built:
    """The library of one kernel of `spec` on one GPU, made as picked. Raises PickError if it cannot be."""
    alone = spec.model_copy(update={"op": spec.op.only(variant), "gpu": (gpu,)})
    agreed = Agreed(pick.strategy.dataflow)
    build = _build_gpu(alone, gpu, agreed, toolchain, cache, {variant.suffix: pick}, want_ptx=False)
    return _assemble(alone, (build,), toolchain, ("cu", "cubin", "header", "plan"))


def _build_tuned(
    tuned: Tuned | None,
    choices: Sequence[Agreed],
    build: Callable[[Agreed, Picks], tuple[WeightBuild, ...]],
) -> tuple[tuple[WeightBuild, ...], tuple[str, ...]]:
    """What was tuned if all of it can be made, else what the model chooses: times of other kernels say nothing of it.

    Then also why it cannot be made, which the decisions say too.
    """
    lost: tuple[str, ...] = ()
    if tuned is not None:
        try:
            return build(tuned.agreed, tuned.picks), ()
        except PickError as error:
            lost = (str(error),)
        except VqccError as error:
            if not spills_everywhere(error):
                raise
            lost = (f"every tile of {tuned.agreed.dataflow} spills registers on a GPU that was not tuned",)
    gone = tuple(Rejected("what was tuned", f"{why}; run `vqcc tune` again") for why in lost)
    told = [replace(agreed, others=(*gone, *agreed.others)) for agreed in choices]
    return first_that_fits(told, lambda agreed: build(agreed, {})), lost


def _build_gpus(
    spec: Spec,
    agreed: Agreed,
    toolchain: Toolchain,
    cache: CompileCache | None,
    picks: Picks,
    *,
    want_ptx: bool,
    jobs: int,
) -> tuple[WeightBuild, ...]:
    """The kernels for every GPU, of one dataflow; diagnostics of all GPUs are raised together."""
    errors = DiagnosticList()
    exit_codes = []
    builds: list[WeightBuild] = []

    def build(gpu: Gpu) -> WeightBuild | VqccError:
        try:
            own = picks.get(gpu.name, {})
            return _build_gpu(spec, gpu, agreed, toolchain, cache, own, want_ptx=want_ptx)
        except VqccError as error:
            return spec.place(error)

    for outcome in in_parallel(build, spec.gpu, jobs):
        if isinstance(outcome, VqccError):
            exit_codes.append(outcome.exit_code)
            errors.extend(outcome.diagnostics)
        else:
            builds.append(outcome)
    if exit_codes:
        raise VqccError(*errors, exit_code=max(exit_codes))
    return tuple(builds)


def write_library(built: Built, directory: Path) -> bool:
    """Make `directory` the bundle, atomically; False if it already was. Raises VQ07xx."""
    return write_bundle(directory, built.files, fields=built.fields)


def _build_gpu(
    spec: Spec,
    gpu: Gpu,
    agreed: Agreed,
    toolchain: Toolchain,
    cache: CompileCache | None,
    picks: Mapping[str, Pick],
    *,
    want_ptx: bool,
) -> WeightBuild:
    problems = problems_of(spec, gpu)

    def compile_source(source: str) -> Compiled:
        file_name = f"{spec.name}.{gpu.name}.cu"
        return compile_cached(
            toolchain, cache, source, target=gpu.target, want_ptx=want_ptx, file_name=file_name
        )

    source, plans, compiled = compile_plans(problems, compile_source, agreed, picks)
    return GpuBuild(gpu, problems, plans, source, compiled)


def _assemble(spec: Spec, builds: Sequence[WeightBuild], toolchain: Toolchain, emit: Sequence[Emit]) -> Built:
    layouts = {plan.layout for build in builds for plan in build.plans}
    assert len(layouts) == 1, "one packed file serves a library"
    return assemble(spec, builds, _Description(spec, tuple(builds)), toolchain, emit)


@dataclass(frozen=True)
class _Description:
    """What a library over a quantized weight says of itself."""

    spec: Spec
    builds: tuple[WeightBuild, ...]

    def header(self, build_id: str) -> str:
        problems, plans = ([getattr(build, part) for build in self.builds] for part in ("problems", "plans"))
        return render_header(self.spec.name, problems, plans, build_id)

    def library(self) -> dict[str, Any]:
        return describe_library(self.builds[0].problems[0], self.builds[0].plans[0])

    def kernels(self, number: int) -> dict[str, list[dict[str, Any]]]:
        build = self.builds[number]
        pairs = zip(build.problems, build.plans, strict=True)
        return {"kernels": [describe_kernel(problem, plan) for problem, plan in pairs]}
