"""From a spec to a library: plan and compile its kernels for every GPU, and write the bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vqcc.assembling import Built, GpuBuild, assemble, in_parallel, runs_on
from vqcc.codegen.bundle import write_bundle
from vqcc.codegen.cache import compile_cached
from vqcc.codegen.device_parts import target_of
from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.passes.agreement import Agreed
from vqcc.picks import PickError
from vqcc.plan import Rejected
from vqcc.racing import first_that_fits, spills_everywhere
from vqcc.subjects import subject_of
from vqcc.tuning.choosing import choose
from vqcc.tuning.use import LockUse, complaints
from vqcc.weight_building import problems_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.embedding import Machine
    from vqcc.codegen.toolchain import Compiled, Toolchain
    from vqcc.compiling import Emit
    from vqcc.gpus.model import Gpu
    from vqcc.picks import Pick
    from vqcc.problem import KernelProblem
    from vqcc.spec.model import Spec
    from vqcc.subjects import AnySubject
    from vqcc.tuning.choosing import Tuned
    from vqcc.tuning.lock import Lock

    AnyBuild = GpuBuild[Any, Any]
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

#: What a bundle holds if nothing else is asked for.
EMITTED: tuple[Emit, ...] = ("cu", "cubin", "header", "plan")


def build_library(
    spec: Spec,
    *,
    toolchain: Toolchain,
    cache: CompileCache | None,
    emit: Sequence[Emit] = EMITTED,
    jobs: int = 1,
    lock: Lock | None = None,
    machine: Machine | None = None,
) -> Built:
    """Plan, render and compile a library, all of whose kernels read the same packed codes.

    Kernels that a `lock` has measured are those that took least, with the dataflow that takes least in all. Where one
    of them cannot be made any more, the model decides as without a lock.
    GPUs are compiled by `jobs` threads; an object is for hosts of `machine`. Diagnostics of all GPUs are raised
    together: VQ04xx where a level or a limit forbids a kernel, at the field of the spec that asks for it if one does,
    VQ06xx from the toolchain.
    """
    subject = subject_of(spec)
    rows = [subject.problems_of(spec, gpu) for gpu in spec.gpu]
    problems: list[KernelProblem] = [problem for row in rows for problem in row]
    try:
        choices = subject.flow.agree(problems)
    except VqccError:  # which comes again, for each GPU that it is true of
        choices = (Agreed("decode"),)
    tuned = None if lock is None else choose(lock, problems, toolchain.identity, choices)
    making = _Making(spec, subject, toolchain, cache, want_ptx="ptx" in emit, jobs=jobs)
    builds, lost = _build_tuned(tuned, choices, lambda agreed, picks: making.build(rows, agreed, picks))
    built = assemble(spec, builds, subject.describe(spec, builds), toolchain, emit, machine)
    if lock is None or spec.level != "best":
        return built
    made = {} if tuned is None or lost else _picked(tuned.picks, builds)
    told = lost or complaints(lock, problems, toolchain.identity, tuned)
    return replace(built, lock_use=LockUse(made, told))


def _picked(picks: Picks, builds: Sequence[AnyBuild]) -> dict[str, tuple[str, ...]]:
    """Kernels that were made as picked, by GPU: a library may do without some that were measured."""
    return {
        build.gpu.name: tuple(
            suffix
            for suffix in picks[build.gpu.name]
            if suffix in {problem.variant.suffix for problem in build.problems}
        )
        for build in builds
        if build.gpu.name in picks
    }


def build_picked(
    spec: Spec, problem: KernelProblem, pick: Pick, *, toolchain: Toolchain, cache: CompileCache | None
) -> Built:
    """The library of one kernel of `spec`, whose `problem` says on which GPU, made as picked.

    Raises PickError if it cannot be, VqccError for what is not of the pick.
    """
    alone, subject = spec.model_copy(update={"gpu": (problem.gpu,)}), subject_of(spec)
    picks = {problem.gpu.name: {problem.variant.suffix: pick}}
    making = _Making(alone, subject, toolchain, cache)
    builds = making.build([(problem,)], Agreed(pick.strategy.dataflow), picks)
    return assemble(alone, builds, subject.describe(alone, builds), toolchain, EMITTED)


def write_library(built: Built, directory: Path) -> bool:
    """Make `directory` the bundle, atomically; False if it already was. Raises VQ07xx."""
    return write_bundle(directory, built.files, fields=built.fields)


def _build_tuned(
    tuned: Tuned | None,
    choices: Sequence[Agreed],
    build: Callable[[Agreed, Picks], tuple[AnyBuild, ...]],
) -> tuple[tuple[AnyBuild, ...], tuple[str, ...]]:
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


@dataclass(frozen=True)
class _Making:
    """How the kernels of a spec are compiled: with what, and how many GPUs at a time."""

    spec: Spec
    subject: AnySubject
    toolchain: Toolchain
    cache: CompileCache | None
    want_ptx: bool = False
    jobs: int = 1

    def build(
        self, rows: Sequence[Sequence[KernelProblem]], agreed: Agreed, picks: Picks
    ) -> tuple[AnyBuild, ...]:
        """The kernels of one dataflow, `rows` of problems a GPU each; diagnostics of all GPUs are raised together."""
        errors = DiagnosticList()
        exit_codes = []
        builds: list[AnyBuild] = []

        def build(problems: Sequence[KernelProblem]) -> AnyBuild | VqccError:
            own = picks.get(problems[0].gpu.name, {})
            try:
                return self.subject.build_gpu(problems, self._compiler(problems[0].gpu), agreed, own)
            except VqccError as error:
                return self.spec.place(error)

        for outcome in in_parallel(build, rows, self.jobs):
            if isinstance(outcome, VqccError):
                exit_codes.append(outcome.exit_code)
                errors.extend(outcome.diagnostics)
            else:
                builds.append(outcome)
        if exit_codes:
            raise VqccError(*errors, exit_code=max(exit_codes))
        return tuple(builds)

    def _compiler(self, gpu: Gpu) -> Callable[[str], Compiled]:
        """What compiles sources for a GPU."""
        file_name = f"{self.spec.name}.{gpu.name}.cu"

        def compile_source(source: str) -> Compiled:
            return compile_cached(
                self.toolchain,
                self.cache,
                source,
                target=target_of(source, gpu.target),
                want_ptx=self.want_ptx,
                file_name=file_name,
            )

        return compile_source
