"""Plans of dataflows past the paper's for tests, their tiles changed, and what launches of them give."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from launches import Kernels
from matrix import changed
from plans import using
from problems import problem

from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.levels import Strategy
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import plan_tile
from vqcc.pipeline import analyze, plan_compiled, plan_kernel

if TYPE_CHECKING:
    from pathlib import Path

    from launches import Outcome

    from vqcc.levels import Dataflow
    from vqcc.plan import Plan
    from vqcc.problem import Problem


def task_of(case: dict[str, Any]) -> Problem:
    """The problem that a case names: preset or mapping, n, k, and possibly kind, m, dtype, gpu and its sm_count."""
    dtype, algorithm = case.get("dtype", "float16"), case["algorithm"]
    mapping = dict(algorithm) if isinstance(algorithm, dict) else resolve(algorithm).mapping()
    if mapping["family"] == "kmeans":
        mapping["codebook_dtype"] = dtype
    gpu = changed(case.get("gpu", "h200"), **({"sm_count": case["sm_count"]} if "sm_count" in case else {}))
    return problem(
        from_mapping(mapping).mapping(),
        n=case["n"],
        k=case["k"],
        m=case.get("m", 1),
        dtype=dtype,
        gpu=gpu,
        level="best",
        kind=case.get("kind", "gemv"),
    )


def dealt(task: Problem, dataflow: Dataflow, **tile: int) -> Plan:
    """The plan of a problem with a dataflow, its tile changed."""
    plan = analyze(task, Strategy("none", dataflow=dataflow))
    plan = plan_tile(task, plan, certain_placement(task, plan)) or plan
    assert plan.tile is not None
    plan = replace(plan, tile=replace(plan.tile, **tile))  # type: ignore[type-var]
    return plan_compiled(task, plan_kernel(task, plan, None), using(64))


def launched(
    task: Problem,
    plan: Plan,
    cache_directory: Path,
    *,
    m: int | None = None,
    count: bool = False,
    scale: float = 1.0,
) -> list[Outcome]:
    """What launches of a plan gave, with a bias and without; each is repeated, and must give the same bits."""
    assert not any(refusals(task, plan.strategy.dataflow))
    rng = np.random.default_rng(3)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    kernels = Kernels([(task, plan)], tensor, cache_directory)
    outcomes = []
    for bias in (False, True):
        inputs = kernels.draw(task, m or task.variant.sizes["m"], rng, bias=bias, scale=scale)
        outcomes.append(kernels.run(kernels.kernels[0], inputs, count=count))
        again = kernels.run(kernels.kernels[0], inputs)
        assert again.result.tobytes() == outcomes[-1].result.tobytes()
    return outcomes
