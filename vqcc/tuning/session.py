"""A tuning session: every candidate of a spec's kernels compiled and timed, each noted as soon as it is known."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from vqcc.building import build_picked
from vqcc.data_files import templates_identity
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.picks import PickError
from vqcc.subjects import subject_of
from vqcc.tuning.candidates import candidates_of, possible_dataflows
from vqcc.tuning.lock import LockedKernel, LockedStrategy, Measured, problem_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from vqcc.building import Built
    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.toolchain import Toolchain
    from vqcc.gpus.model import Gpu
    from vqcc.levels import Dataflow
    from vqcc.problem import KernelProblem
    from vqcc.spec.model import Spec
    from vqcc.tuning.candidates import Candidate
    from vqcc.tuning.lock import Lock

__all__ = ["Bench", "Step", "Tools", "build_candidate", "check_tunable", "tune"]

#: A kernel that gives other bits on a second launch: it is at fault, not the session.
NOT_DETERMINISTIC = "VQ0808"


class Bench(Protocol):
    """What times libraries of one kernel."""

    @property
    def device(self) -> str:
        """The device's name and its driver."""
        ...

    def note(self, problem: KernelProblem) -> str:
        """In what launches of a kernel are unlike those that it is planned for, and why; empty if in nothing."""
        ...

    def time(self, built: Built) -> float | None:
        """Microseconds of one launch; None if its result is outside its bound of float64."""
        ...


@dataclass(frozen=True)
class Tools:
    """What candidates are compiled with, `jobs` at a time."""

    toolchain: Toolchain
    cache: CompileCache | None = None
    jobs: int = 1


@dataclass(frozen=True)
class Step:
    """What became of one candidate: measured, known from before, or without a time; and the `reason`, or a note."""

    kernel: str
    dataflow: Dataflow
    number: int
    count: int
    predicted_us: float
    us: float | None
    reason: str = ""


@dataclass(frozen=True)
class _Job:
    problem: KernelProblem
    dataflow: Dataflow
    candidate: Candidate


def check_tunable(spec: Spec) -> None:
    """Raise VQ0317 for a level of the paper, which leaves nothing to choose."""
    if spec.level != "best":
        message = f"level {spec.level} leaves nothing to tune"
        raise VqccError(Diagnostic("VQ0317", message, help="use level: best, the default"))


def tune(
    spec: Spec,
    gpu: Gpu,
    lock: Lock,
    bench: Bench,
    tools: Tools,
    *,
    save: Callable[[Lock], None],
    most: int,
    again: bool = False,
) -> Iterator[Step]:
    """Time the `most` promising candidates of each dataflow for every kernel of `spec` on `gpu`.

    What `lock` already has of them, of this device, toolchain and device code, is not timed again, unless `again`.
    `save` is called with the whole lock after every measurement, so that an interruption loses none; kernels are marked
    complete at the end. Raises VQ0317 for levels of the paper.
    """
    check_tunable(spec)
    work = _jobs_of(spec, gpu, most)
    toolchain, cache = tools.toolchain, tools.cache
    problems = subject_of(spec).problems_of(spec, gpu)
    if again:
        lock = lock.without({_empty(problem, toolchain, bench).key for problem in problems})
    with ThreadPoolExecutor(max_workers=max(1, tools.jobs)) as pool:
        waiting: deque[tuple[_Job, Future[Built | str] | None]] = deque()
        for job in work:
            known = _known(lock, job, toolchain, bench) is not None
            of = (job.problem, job.candidate)
            waiting.append(
                (job, None if known else pool.submit(build_candidate, spec, *of, toolchain, cache))
            )
        try:
            for number, (job, built) in enumerate(waiting, 1):
                lock, step = _measure(lock, job, built, bench, toolchain, number, len(work))
                if built is not None and step.us is not None:
                    save(lock)
                yield step
            finished = _completed(lock, problems, toolchain, bench)
            if finished != lock:
                save(finished)
        finally:
            pool.shutdown(cancel_futures=True)


def _jobs_of(spec: Spec, gpu: Gpu, most: int) -> list[_Job]:
    subject = subject_of(spec)
    everywhere = [problem for each in spec.gpu for problem in subject.problems_of(spec, each)]
    return [
        _Job(problem, dataflow, candidate)
        for dataflow in possible_dataflows(subject.flow, everywhere)
        for problem in subject.problems_of(spec, gpu)
        for candidate in candidates_of(subject.flow, problem, dataflow, most)
    ]


def build_candidate(
    spec: Spec,
    problem: KernelProblem,
    candidate: Candidate,
    toolchain: Toolchain,
    cache: CompileCache | None,
) -> Built | str:
    """The library of one candidate, or why there is none. Raises VqccError for what is not a spill."""
    try:
        return build_picked(spec, problem, candidate.pick, toolchain=toolchain, cache=cache)
    except PickError:  # a tile that was proposed just now is there, so that it can only spill
        return "spills registers"


def _measure(
    lock: Lock,
    job: _Job,
    built: Future[Built | str] | None,
    bench: Bench,
    toolchain: Toolchain,
    number: int,
    count: int,
) -> tuple[Lock, Step]:
    """Time one candidate: the lock with it, and what to tell."""
    suffix, predicted = job.problem.variant.suffix, job.candidate.predicted_us

    def step(us: float | None, reason: str = "") -> Step:
        return Step(suffix, job.dataflow, number, count, predicted, us, reason)

    if built is None:
        known = _known(lock, job, toolchain, bench)
        return lock, step(known.us if known else None, "known")
    library = built.result()
    if isinstance(library, str):
        return lock, step(None, library)
    try:
        us = bench.time(library)
    except VqccError as error:
        if any(item.code != NOT_DETERMINISTIC for item in error.diagnostics):
            raise
        return lock, step(None, "gives other bits when it is launched again")
    if us is None:
        return lock, step(None, "outside its bound of float64")
    kernel = _entry(lock, job.problem, toolchain, bench)
    measured = (*kernel.measured, _measurement(job, us))
    note = bench.note(job.problem)
    return lock.replaced(kernel.model_copy(update={"measured": measured})), step(us, note)


def _empty(problem: KernelProblem, toolchain: Toolchain, bench: Bench) -> LockedKernel:
    """A kernel of which nothing is measured."""
    return LockedKernel(
        gpu=problem.gpu.name,
        kernel=problem.variant.suffix,
        problem=problem_identity(problem),
        toolchain=toolchain.identity,
        device="; ".join(filter(None, (bench.device, bench.note(problem)))),
        templates=templates_identity(),
        complete=False,
        measured=(),
    )


def _entry(lock: Lock, problem: KernelProblem, toolchain: Toolchain, bench: Bench) -> LockedKernel:
    """The lock's entry for a kernel with all that its key says; an empty one if it has none."""
    empty = _empty(problem, toolchain, bench)
    return next((each for each in lock.kernels if each.key == empty.key), empty)


def _completed(lock: Lock, problems: Sequence[KernelProblem], toolchain: Toolchain, bench: Bench) -> Lock:
    """The lock with these kernels marked complete; those of which nothing was measured stay out of it."""
    for problem in problems:
        kernel = _entry(lock, problem, toolchain, bench)
        if kernel.measured:
            lock = lock.replaced(kernel.model_copy(update={"complete": True}))
    return lock


def _known(lock: Lock, job: _Job, toolchain: Toolchain, bench: Bench) -> Measured | None:
    key = _measurement(job, 0.0).key
    entry = _entry(lock, job.problem, toolchain, bench)
    return next((each for each in entry.measured if each.key == key), None)


def _measurement(job: _Job, us: float) -> Measured:
    return Measured(
        us=round(us, 3),
        predicted_us=round(job.candidate.predicted_us, 3),
        strategy=LockedStrategy(**asdict(job.candidate.pick.strategy)),
        tile=dict(job.candidate.pick.tile),
    )
