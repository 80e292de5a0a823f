"""What a lock file makes of a library: the dataflow that took least, and each kernel's fastest way to have it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.data_files import templates_identity
from vqcc.levels import Strategy
from vqcc.passes.agreement import Agreed, total
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
    totals = _totals(kernels, choices, problems) if kernels else {}
    if not totals:
        return None
    chosen = min(
        (each for each in choices if each.dataflow in totals), key=lambda each: totals[each.dataflow]
    )
    picks = {
        gpu: {suffix: _pick(kernel, chosen) for suffix, kernel in of_gpu.items()}
        for gpu, of_gpu in found.items()
    }
    whole = "" if len(kernels) == 1 else f" for the {len(kernels)} tuned kernels together"
    return Tuned(_agreed(chosen, totals, whole, choices), picks)


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


def _totals(
    kernels: Sequence[LockedKernel], choices: Sequence[Agreed], problems: Sequence[KernelProblem]
) -> dict[Dataflow, float]:
    """What choices are weighed by that all kernels were timed with, by the first dataflow of each."""
    totals = {}
    for agreed in choices:
        bests = [best.us for kernel in kernels if (best := kernel.best(*agreed.dataflows)) is not None]
        if len(bests) == len(kernels):
            totals[agreed.dataflow] = total(problems, bests)
    return totals


def _agreed(
    chosen: Agreed, totals: Mapping[Dataflow, float], whole: str, choices: Sequence[Agreed]
) -> Agreed:
    """The chosen dataflow, and why not another: by what they took, or as the model has it of what cannot be had."""
    possible = [agreed.dataflow for agreed in choices]

    def against(other: Rejected) -> Rejected:
        dataflow = next((each for each in possible if each == other.value), None)
        if dataflow is None:
            return other
        if dataflow not in totals:
            return Rejected(dataflow, "not timed for every kernel that was tuned")
        return Rejected(
            dataflow, f"measured {totals[dataflow]:.5g} us{whole}, this one {totals[chosen.dataflow]:.5g} us"
        )

    return replace(chosen, others=tuple(map(against, chosen.others)), measured=True)


def _pick(kernel: LockedKernel, agreed: Agreed) -> Pick:
    best = kernel.best(*agreed.dataflows)
    assert best is not None
    strategy = Strategy(**best.strategy.model_dump())
    measured_on = f"{kernel.device}, {kernel.toolchain}"
    if kernel.templates != templates_identity():
        measured_on += "; the device code has changed since: tune again"
    return Pick(strategy, tuple(best.tile.items()), best.us, measured_on)
