"""What a lock file makes of a library: the dataflow that took least, and each kernel's fastest way to have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.data_files import templates_identity
from vqcc.levels import Strategy
from vqcc.passes.choice import Agreed
from vqcc.picks import Pick
from vqcc.plan import Rejected
from vqcc.tuning.lock import problem_identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqcc.levels import Dataflow
    from vqcc.problem import KernelProblem
    from vqcc.tuning.lock import Lock, LockedKernel

__all__ = ["Tuned", "choose"]

#: What was measured of each kernel of a library, by GPU and variant's suffix.
_Found = dict[str, dict[str, "LockedKernel"]]


@dataclass(frozen=True)
class Tuned:
    """What to compile of a library: one dataflow, and picks by GPU and variant's suffix."""

    agreed: Agreed
    picks: Mapping[str, Mapping[str, Pick]]


def choose(
    lock: Lock, problems: Sequence[KernelProblem], toolchain: str, choices: Sequence[Agreed]
) -> Tuned | None:
    """The fastest dataflow of a library over all GPUs whose every kernel was measured, and its fastest kernels.

    `problems` are the library's kernels on all of its GPUs, `choices` the dataflows that all of them can have: a GPU
    may have been tuned by itself. None where no GPU is tuned with any of these, or the level is the paper's.
    """
    if problems[0].level != "best":
        return None
    found = _tuned_gpus(lock, problems, toolchain)
    kernels = [kernel for of_gpu in found.values() for kernel in of_gpu.values()]
    totals = _totals(kernels, [agreed.dataflow for agreed in choices])
    if not totals:
        return None
    chosen = min(totals, key=lambda dataflow: totals[dataflow])
    picks = {
        gpu: {suffix: _pick(kernel, chosen) for suffix, kernel in of_gpu.items()}
        for gpu, of_gpu in found.items()
    }
    return Tuned(_agreed(chosen, totals, len(kernels), choices), picks)


def _tuned_gpus(lock: Lock, problems: Sequence[KernelProblem], toolchain: str) -> _Found:
    """The GPUs of which all kernels of the library were measured."""
    found: dict[str, dict[str, LockedKernel | None]] = {}
    for problem in problems:
        kernel = lock.find(problem.gpu.name, problem_identity(problem), toolchain)
        found.setdefault(problem.gpu.name, {})[problem.variant.suffix] = kernel
    whole = {}
    for gpu, kernels in found.items():
        known = {suffix: kernel for suffix, kernel in kernels.items() if kernel is not None}
        if len(known) == len(kernels):
            whole[gpu] = known
    return whole


def _totals(kernels: Sequence[LockedKernel], possible: Sequence[Dataflow]) -> dict[Dataflow, float]:
    """Microseconds of all kernels together, of each possible dataflow that all were timed with; in the file's order."""
    timed = dict.fromkeys(each.strategy.dataflow for kernel in kernels for each in kernel.measured)
    totals = {}
    for dataflow in timed:
        bests = [best.us for kernel in kernels if (best := kernel.best(dataflow)) is not None]
        if dataflow in possible and len(bests) == len(kernels):
            totals[dataflow] = sum(bests)
    return totals


def _agreed(
    chosen: Dataflow, totals: Mapping[Dataflow, float], kernels: int, choices: Sequence[Agreed]
) -> Agreed:
    """The chosen dataflow, and why not another: by what they took, or as the model has it of what cannot be had."""
    whole = "" if kernels == 1 else f" for the {kernels} tuned kernels together"
    possible = {agreed.dataflow: agreed for agreed in choices}

    def against(other: Rejected) -> Rejected:
        dataflow = next((each for each in possible if each == other.value), None)
        if dataflow is None:
            return other
        if dataflow not in totals:
            return Rejected(dataflow, "not timed for every kernel that was tuned")
        return Rejected(
            dataflow, f"measured {totals[dataflow]:.5g} us{whole}, this one {totals[chosen]:.5g} us"
        )

    return Agreed(chosen, tuple(map(against, possible[chosen].others)), measured=True)


def _pick(kernel: LockedKernel, dataflow: Dataflow) -> Pick:
    best = kernel.best(dataflow)
    assert best is not None
    strategy = Strategy(**best.strategy.model_dump())
    measured_on = f"{kernel.device}, {kernel.toolchain}"
    if kernel.templates != templates_identity():
        measured_on += "; the device code has changed since: tune again"
    return Pick(strategy, tuple(best.tile.items()), best.us, measured_on)
