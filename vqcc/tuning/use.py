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

__all__ = ["LockUse", "ModelLockUse", "complaints", "joined", "lock_warnings"]

#: The one complaint of a library none of whose kernels a lock file has on any GPU.
_NOTHING = "it has no kernel of this spec"


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


@dataclass(frozen=True)
class ModelLockUse:
    """The same of a whole model: kernels of each of its libraries, by folder, with which complaints of one begin."""

    libraries: Mapping[str, Mapping[str, tuple[str, ...]]]
    complaints: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the summary of a build holds it."""
        return {
            "libraries": {
                folder: {gpu: list(names) for gpu, names in kernels.items()}
                for folder, kernels in self.libraries.items()
            },
            "complaints": list(self.complaints),
        }


def joined(uses: Mapping[str, LockUse | None]) -> ModelLockUse | None:
    """What a whole model takes of a lock file, from what each of its libraries does, by folder.

    Libraries that take nothing of any lock file (None) are left out; None if all are. That a library was never tuned is
    no complaint where another one was: a model may be tuned in parts.
    """
    read = {folder: use for folder, use in uses.items() if use is not None}
    if not read:
        return None
    kernels = {folder: use.kernels for folder, use in read.items()}
    if all(use.complaints == (_NOTHING,) for use in read.values()):
        return ModelLockUse(kernels, (_NOTHING,))
    told = [(folder, text) for folder, use in read.items() for text in use.complaints if text != _NOTHING]
    return ModelLockUse(kernels, tuple(f"{folder}: {text}" for folder, text in told))


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
        return (_NOTHING,)
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
        identity = problem_identity(problem)
        kernel = lock.find(gpu, identity, toolchain)
        if not any((each.gpu, each.problem) == (gpu, identity) for each in lock.kernels):
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
