"""A tuning session: every candidate of libraries' kernels compiled and timed, each noted as soon as it is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from vqcc.building import build_picked
from vqcc.data_files import templates_identity
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.models import Model
from vqcc.picks import PickError
from vqcc.spec.wording import either
from vqcc.subjects import subject_of
from vqcc.tuning.candidates import candidates_of, possible_dataflows
from vqcc.tuning.lock import LockedKernel, LockedStrategy, Measured, problem_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence
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

__all__ = ["Bench", "Step", "Tools", "Work", "build_candidate", "tunable", "tune"]

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
class Work:
    """A library to be tuned; of a whole model, the layer that it is named after."""

    spec: Spec
    layer: str | None = None


@dataclass(frozen=True)
class Step:
    """What became of one candidate: measured, known from before, or without a time; and the `reason`, or a note.

    `number` of `count` are those of the whole session. `layer` is that of its library, None where no model is tuned.
    """

    kernel: str
    dataflow: Dataflow
    number: int
    count: int
    predicted_us: float
    us: float | None
    reason: str = ""
    layer: str | None = None


def tunable(spec: Spec | Model) -> tuple[Work, ...]:
    """The libraries of a spec that can be tuned, a model's in its order: those of level `best`.

    Raises VQ0317 if there are none, for levels of the paper leave nothing to choose.
    """
    libraries = (
        tuple(Work(layer.spec, layer.name) for layer in spec.libraries)
        if isinstance(spec, Model)
        else (Work(spec),)
    )
    found = tuple(work for work in libraries if work.spec.level == "best")
    if not found:
        levels: list[str] = list(dict.fromkeys(work.spec.level for work in libraries))
        leave = f"level {levels[0]} leaves" if len(levels) == 1 else f"levels {either(levels, 'and')} leave"
        message = f"{leave} nothing to tune"
        raise VqccError(Diagnostic("VQ0317", message, help="use level: best, the default"))
    return found


@dataclass(frozen=True)
class _Session:
    """What the tuning of all libraries has in common; `count` are their candidates."""

    tools: Tools
    bench_of: Callable[[Spec], Bench]
    save: Callable[[Lock], None]
    count: int


@dataclass(frozen=True)
class _Job:
    problem: KernelProblem
    dataflow: Dataflow
    candidate: Candidate


def tune(
    libraries: Sequence[Work],
    gpu: Gpu,
    lock: Lock,
    bench_of: Callable[[Spec], Bench],
    tools: Tools,
    *,
    save: Callable[[Lock], None],
    most: int,
    again: bool = False,
) -> Iterator[Step]:
    """Time the `most` promising candidates of each dataflow for every kernel of some libraries on `gpu`.

    What `lock` already has of them, of this device, toolchain and device code, is not timed again, unless `again`.
    `save` is called with the whole lock after every measurement, so that an interruption loses none; kernels are marked
    complete when their library is. A library has its bench from `bench_of`, once that of the one before it is gone.
    """
    jobs = [_jobs_of(work.spec, gpu, most) for work in libraries]
    session = _Session(tools, bench_of, save, sum(map(len, jobs)))
    timed: set[str] = set()
    first = 1
    for work, own in zip(libraries, jobs, strict=True):
        kernels = {problem_identity(problem) for problem in subject_of(work.spec).problems_of(work.spec, gpu)}
        # Of kernels that libraries share, what the one before took stays: it was timed in this session.
        lock = yield from _tune_library(
            session, work, own, gpu, lock, first, kernels - timed if again else ()
        )
        first += len(own)
        timed |= kernels


def _tune_library(
    session: _Session,
    work: Work,
    jobs: Sequence[_Job],
    gpu: Gpu,
    lock: Lock,
    first: int,
    anew: Collection[str],
) -> Generator[Step, None, Lock]:
    """Time the candidates of one library, numbered from `first`: the lock with them.

    What it has of kernels that are timed `anew`, by identity, is dropped before.
    """
    bench, toolchain = session.bench_of(work.spec), session.tools.toolchain
    problems = subject_of(work.spec).problems_of(work.spec, gpu)
    dropped = [problem for problem in problems if problem_identity(problem) in anew]
    lock = lock.without({_empty(problem, toolchain, bench).key for problem in dropped})
    with ThreadPoolExecutor(max_workers=max(1, session.tools.jobs)) as pool:
        waiting: list[tuple[_Job, Future[Built | str] | None]] = []
        for job in jobs:
            known = _known(lock, job, toolchain, bench) is not None
            of = (work.spec, job.problem, job.candidate, toolchain, session.tools.cache)
            waiting.append((job, None if known else pool.submit(build_candidate, *of)))
        try:
            for number, (job, built) in enumerate(waiting, first):
                lock, us, reason = _measure(lock, job, built, bench, toolchain)
                if built is not None and us is not None:
                    session.save(lock)
                names = job.problem.variant.suffix, job.dataflow
                predicted = job.candidate.predicted_us
                yield Step(*names, number, session.count, predicted, us, reason, work.layer)
            finished = _completed(lock, problems, toolchain, bench)
            if finished != lock:
                session.save(finished)
            return finished
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
    lock: Lock, job: _Job, built: Future[Built | str] | None, bench: Bench, toolchain: Toolchain
) -> tuple[Lock, float | None, str]:
    """Time one candidate: the lock with it, what it took if it has a time, and what to tell."""
    if built is None:
        known = _known(lock, job, toolchain, bench)
        return lock, known.us if known else None, "known"
    library = built.result()
    if isinstance(library, str):
        return lock, None, library
    try:
        us = bench.time(library)
    except VqccError as error:
        if any(item.code != NOT_DETERMINISTIC for item in error.diagnostics):
            raise
        return lock, None, "gives other bits when it is launched again"
    if us is None:
        return lock, None, "outside its bound of float64"
    kernel = _entry(lock, job.problem, toolchain, bench)
    measured = (*kernel.measured, _measurement(job, us))
    return lock.replaced(kernel.model_copy(update={"measured": measured})), us, bench.note(job.problem)


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
