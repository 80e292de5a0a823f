"""From a spec to a library: plan and compile its kernels for every GPU, and write the bundle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vqcc.codegen.bundle import write_bundle
from vqcc.codegen.cache import compile_cached
from vqcc.codegen.header import render_header
from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.explaining import explain_plans
from vqcc.gpus.model import COMPUTE_CAPABILITIES
from vqcc.library import describe_kernel, describe_library
from vqcc.passes.choice import Agreed, agree
from vqcc.picks import PickError
from vqcc.pipeline import estimate
from vqcc.plan import Rejected
from vqcc.problem import Problem
from vqcc.search import compile_plans, first_that_fits, spills_everywhere
from vqcc.tuning.choosing import choose
from vqcc.tuning.use import LockUse, complaints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
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


#: Compute capabilities of integrated parts, which share no cubins with others.
_TEGRA = {(8, 7), (8, 8)}


@dataclass(frozen=True)
class GpuBuild:
    """The kernels of one library on one GPU."""

    gpu: Gpu
    problems: tuple[Problem, ...]
    plans: tuple[Plan, ...]
    source: str
    compiled: Compiled


@dataclass(frozen=True)
class Built:
    """A library in memory: its files by name, and what its manifest says beside them.

    `lock_use` says what a lock file did, where there was one for a library of level `best`.
    """

    name: str
    gpus: tuple[GpuBuild, ...]
    files: Mapping[str, bytes]
    fields: Mapping[str, Any]
    lock_use: LockUse | None = None


def problems_of(spec: Spec, gpu: Gpu) -> tuple[Problem, ...]:
    """The kernels of `spec` on one of its GPUs, in the order of the op's variants."""
    profile = () if spec.profile is None else spec.profile.tensors
    return tuple(
        Problem(spec.identifier, spec.algorithm, spec.op, variant, gpu, spec.level, spec.boundaries, profile)
        for variant in spec.op.variants()
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

    Kernels that a `lock` has measured are those that took least, with the dataflow that takes least in all. Where one
    of them cannot be made any more, the model decides as without a lock.
    GPUs are compiled by `jobs` threads. Diagnostics of all GPUs are raised together: VQ04xx where a level or a
    limit forbids a kernel, at the field of the spec that asks for it if one does, VQ06xx from the toolchain.
    """
    problems = [problem for gpu in spec.gpu for problem in problems_of(spec, gpu)]
    try:
        choices = agree(problems, estimate)
    except VqccError:  # which comes again, for each GPU that it is true of
        choices = (Agreed("decode"),)
    tuned = None if lock is None else choose(lock, problems, toolchain.identity, choices)

    def build(agreed: Agreed, picks: Picks) -> tuple[GpuBuild, ...]:
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
    build: Callable[[Agreed, Picks], tuple[GpuBuild, ...]],
) -> tuple[tuple[GpuBuild, ...], tuple[str, ...]]:
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
) -> tuple[GpuBuild, ...]:
    """The kernels for every GPU, of one dataflow; diagnostics of all GPUs are raised together."""
    errors = DiagnosticList()
    exit_codes = []
    builds: list[GpuBuild] = []

    def build(gpu: Gpu) -> GpuBuild | VqccError:
        try:
            own = picks.get(gpu.name, {})
            return _build_gpu(spec, gpu, agreed, toolchain, cache, own, want_ptx=want_ptx)
        except VqccError as error:
            return spec.place(error)

    for outcome in _in_parallel(build, spec.gpu, jobs):
        if isinstance(outcome, VqccError):
            exit_codes.append(outcome.exit_code)
            errors.extend(outcome.diagnostics)
        else:
            builds.append(outcome)
    if exit_codes:
        raise VqccError(*errors, exit_code=max(exit_codes))
    return tuple(builds)


def _in_parallel(
    build: Callable[[Gpu], GpuBuild | VqccError], gpus: Sequence[Gpu], jobs: int
) -> Iterable[GpuBuild | VqccError]:
    if min(jobs, len(gpus)) == 1:
        return map(build, gpus)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(build, gpus))


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
) -> GpuBuild:
    problems = problems_of(spec, gpu)

    def compile_source(source: str) -> Compiled:
        file_name = f"{spec.name}.{gpu.name}.cu"
        return compile_cached(
            toolchain, cache, source, target=gpu.target, want_ptx=want_ptx, file_name=file_name
        )

    source, plans, compiled = compile_plans(problems, compile_source, agreed, picks)
    return GpuBuild(gpu, problems, plans, source, compiled)


def _assemble(spec: Spec, builds: tuple[GpuBuild, ...], toolchain: Toolchain, emit: Sequence[Emit]) -> Built:
    """Name every file that was asked for, and say in the manifest's fields what they are."""
    problems = [build.problems for build in builds]
    plans = [build.plans for build in builds]
    assert len({plan.layout for kernels in plans for plan in kernels}) == 1, (
        "one packed file serves a library"
    )
    parts = {name: data for build in builds for name, data in _files(spec, build).items()}
    # The header states the build's id, which is that of everything: of the header too, but for this line.
    blank = render_header(spec.name, problems, plans, build_id="0").encode()
    profile = _profile(spec)
    identity = hashlib.sha256(json.dumps([toolchain.identity, profile]).encode())
    for data in (blank, *(data for name, data in parts.items() if not name.endswith(".ptx"))):
        identity.update(hashlib.sha256(data).digest())
    build_id = identity.hexdigest()[:16]
    parts[f"{spec.name}.h"] = render_header(spec.name, problems, plans, build_id).encode()
    suffixes = tuple({"header": ".h", "plan": ".plan.json"}.get(kind, f".{kind}") for kind in emit)
    fields = {
        "name": spec.name,
        "build_id": build_id,
        "toolchain": toolchain.identity,
        **describe_library(problems[0][0], plans[0][0]),
        "profile": profile,
        "gpus": {
            build.gpu.name: {
                "target": build.gpu.target,
                "runs_on": runs_on(build.gpu),
                "minimum_driver": toolchain.minimum_driver,
                "dram_bytes_per_second": build.gpu.dram_bytes_per_second.value,
                "kernels": [describe_kernel(*pair) for pair in zip(build.problems, build.plans, strict=True)],
            }
            for build in builds
        },
    }
    files = {name: data for name, data in parts.items() if name.endswith(suffixes)}
    return Built(spec.name, builds, files, fields)


def _profile(spec: Spec) -> dict[str, Any] | None:
    """What the manifest says of the profile: the hashes of the codes that were counted, and of the file."""
    if spec.profile is None:
        return None
    codes = dict.fromkeys(tensor.codes_sha256 for tensor in spec.profile.tensors)
    return {"codes": list(codes), "sha256": spec.profile.sha256}


def _files(spec: Spec, build: GpuBuild) -> dict[str, bytes]:
    stem = f"{spec.name}.{build.gpu.name}"
    plan = explain_plans(build.gpu, build.plans)
    files = {
        f"{stem}.cu": build.source.encode(),
        f"{stem}.cubin": build.compiled.cubin,
        f"{stem}.plan.json": (json.dumps(plan, indent=2) + "\n").encode(),
    }
    return files if build.compiled.ptx is None else {**files, f"{stem}.ptx": build.compiled.ptx.encode()}


def runs_on(gpu: Gpu) -> list[str]:
    """Targets a cubin for `gpu` runs on: same major version, minor version no lower, and none from or to Tegra.

    Source: CUDA C++ Programming Guide, binary compatibility.
    """
    major, minor = map(int, gpu.compute_capability.split("."))
    versions = [tuple(map(int, text.split("."))) for text in COMPUTE_CAPABILITIES]
    integrated = (major, minor) in _TEGRA
    return [
        f"sm_{a}{b}"
        for a, b in versions
        if a == major and (b == minor or (b > minor and not integrated and (a, b) not in _TEGRA))
    ]
