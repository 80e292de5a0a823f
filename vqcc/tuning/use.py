"""What a build takes of a lock file, and what it cannot take, so that the user is told of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vqcc.data_files import templates_identity
from vqcc.diagnostics import Diagnostic
from vqcc.spec.wording import either
from vqcc.tuning.lock import problem_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vqcc.problem import KernelProblem
    from vqcc.tuning.choosing import Tuned
    from vqcc.tuning.lock import Lock

__all__ = ["LockUse", "complaints", "lock_warnings"]


@dataclass(frozen=True)
class LockUse:
    """Kernels that were made as a lock file has them, by GPU, and what of the file is old or could not be used."""

    kernels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the summary of a build holds it."""
        return {
            "kernels": {gpu: list(names) for gpu, names in self.kernels.items()},
            "complaints": list(self.complaints),
        }


def lock_warnings(lock: Path | str, spec: Path | str, found: Sequence[str]) -> list[Diagnostic]:
    """VQ0318 for each complaint of a build about the lock file of a spec."""
    help_text = f"run `vqcc tune {spec}` on the GPU; what has no times is decided by the model"
    return [Diagnostic("VQ0318", f"{lock}: {text}", help=help_text, severity="warning") for text in found]


def complaints(
    lock: Lock, problems: Sequence[KernelProblem], toolchain: str, tuned: Tuned | None
) -> tuple[str, ...]:
    """What keeps a lock file from choosing a library's kernels, or makes its times old.

    A lock file serves several specs and GPUs: what it lacks counts on the GPUs on which it has any kernel of the
    library, and what else it has does not count.
    """
    own = {problem_identity(problem) for problem in problems}
    known = {kernel.gpu for kernel in lock.kernels if kernel.problem in own}
    if not known:
        return ("it has no kernel of this spec",)
    found = []
    for gpu in dict.fromkeys(problem.gpu.name for problem in problems):
        if gpu in known:
            on_gpu = [problem for problem in problems if problem.gpu.name == gpu]
            found += list(_complaints_on(gpu, lock, on_gpu, toolchain))
    if tuned is None and not found and known & {problem.gpu.name for problem in problems}:
        found.append("no dataflow that the library can have was timed for all of its kernels")
    return tuple(found)


def _complaints_on(gpu: str, lock: Lock, problems: Sequence[KernelProblem], toolchain: str) -> Iterator[str]:
    never: list[str] = []
    unfinished: list[str] = []
    old: list[str] = []
    for problem in problems:
        timed = [
            each for each in lock.kernels if (each.gpu, each.problem) == (gpu, problem_identity(problem))
        ]
        kernel = lock.find(gpu, problem_identity(problem), toolchain)
        if not timed:
            never.append(problem.variant.suffix)
        elif kernel is None:
            unfinished.append(problem.variant.suffix)
        elif kernel.templates != templates_identity():
            old.append(problem.variant.suffix)
    if never:
        yield f"on {gpu} it lacks times of {either(never, 'and')}, without which the others are of no use"
    if unfinished:
        yield f"on {gpu} the session of {either(unfinished, 'and')} was not completed"
    if old:
        yield f"on {gpu} the device code has changed since the times of {either(old, 'and')}"
