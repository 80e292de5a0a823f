"""The decisions behind a library's kernels on one GPU, as `.plan.json` and `vqcc explain` hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.assembling import Built
    from vqcc.gpus.model import Gpu
    from vqcc.plan import KernelPlan

__all__ = ["explain_built", "explain_plans", "uncalibrated_facts"]

#: Confidences of numbers that somebody measured, or that a header of CUDA states.
_CALIBRATED = {"measured", "header"}


def explain_plans(gpu: Gpu, plans: Sequence[KernelPlan]) -> dict[str, Any]:
    """Plans of the kernels on `gpu` as plain data, and the GPU's numbers behind them that nobody measured."""
    return {
        "gpu": gpu.name,
        "target": gpu.target,
        "uncalibrated": uncalibrated_facts(gpu, plans),
        "kernels": [plan.to_json() for plan in plans],
    }


def explain_built(built: Built) -> dict[str, Any]:
    """The plans of a library by GPU."""
    return {build.gpu.name: explain_plans(build.gpu, build.plans) for build in built.gpus}


def uncalibrated_facts(gpu: Gpu, plans: Sequence[KernelPlan]) -> list[dict[str, Any]]:
    """The GPU's numbers that entered a decision and that are neither measured nor from a header.

    Each has `name`, `value`, `confidence` and `source`; they come in the order of the GPU's model.
    """
    used = {name for plan in plans for decision in plan.decisions for name in decision.facts}
    return [
        {"name": name, **fact.model_dump(mode="json")}
        for name, fact in gpu.facts().items()
        if name in used and fact.confidence not in _CALIBRATED
    ]
