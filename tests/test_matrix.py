"""Every legal pair of algorithm and op, at every level and type, is within its bound of float64.

Each kernel is emitted, run on the emulator with all of its detectors on, and compared element by element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matrix import PRESETS, Case, random_case

from vqcc import gpus
from vqcc.algorithms.presets import resolve
from vqcc.codegen.render import render_source
from vqcc.codegen.resources import Resources
from vqcc.emulator import Buffer, build
from vqcc.ops.gemv import Gemv
from vqcc.passes.launch import plan_launch
from vqcc.pipeline import plan_kernel
from vqcc.problem import Problem
from vqcc.tensors.packing import pack_tensor
from vqcc.verify.backends import scalar
from vqcc.verify.tolerance import compare

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.plan import Plan

SAMPLE = 14
ALL = 150
# Registers a kernel may be thought to use: the emulator has no say in occupancy.
RESOURCES = Resources(64, 0, 0, 0, 0, 1)


def problems_of(case: Case) -> list[Problem]:
    op = Gemv.model_validate({"kind": "gemv", "m": case.m, "n": case.n, "k": case.k, "dtype": case.dtype})
    gpu = gpus.load(case.gpu)
    return [Problem("kernel", case.algorithm, op, variant, gpu, case.level) for variant in op.variants()]


def run_case(case: Case, cache_directory: Path, seed: int) -> None:
    problems = problems_of(case)
    plans = [plan_launch(problem, _planned(problem), RESOURCES) for problem in problems]
    emulated = build(render_source(problems, plans), cache_directory=cache_directory)
    rng = np.random.default_rng(seed)
    tensor = case.algorithm.random_tensor(rng, "w", case.n, case.k)
    weights = (case.algorithm.decode(tensor), case.algorithm.decode(tensor, magnitudes=True))
    for problem, plan in zip(problems, plans, strict=True):
        assert plan.layout is not None
        packed = pack_tensor(tensor, plan.layout).arrays()
        bound = problem.variant.sizes["m"]
        launch_and_compare(emulated, problem, plan, packed, weights, rng, bound)
        if bound > 1:
            launch_and_compare(emulated, problem, plan, packed, weights, rng, int(rng.integers(1, bound)))


def _planned(problem: Problem) -> Plan:
    plan = plan_kernel(problem)
    assert plan is not None
    return plan


def launch_and_compare(emulated, problem: Problem, plan: Plan, packed, weights, rng, m: int) -> None:
    case = problem.op.draw_case(problem.variant, {"m": m}, problem.algorithm, rng)
    arrays = {**packed, **case.inputs}
    if rng.random() < 0.3:
        arrays.pop("bias", None)
    arguments = [
        scalar(argument.c_type, case.scalars[argument.name])
        if argument.role == "scalar"
        else Buffer(argument.name, case.outputs[argument.name], "output")
        if argument.role == "output"
        else Buffer(argument.name, arrays[argument.name], "input")
        if argument.name in arrays
        else None
        for argument in problem.op.arguments(problem.variant)
    ]
    emulated.launch(
        plan.kernel,
        (plan.launch.grid, 1, 1),
        (plan.launch.threads, 1, 1),
        plan.launch.dynamic_shared_bytes,
        arguments,
    )
    exact, magnitude = problem.op.reference(*weights, arrays)
    roundings = problem.op.longest_sum(plan.tile, plan.layout, problem.algorithm)
    found = compare(case.result(case.outputs), exact, magnitude, roundings, problem.variant.dtype)
    assert found.passed, f"{plan.kernel}, m = {m}: {found}"


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_random_configurations(seed: int, cache_directory: Path) -> None:
    run_case(random_case(seed), cache_directory, seed)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(SAMPLE, ALL))
def test_more_random_configurations(seed: int, cache_directory: Path) -> None:
    run_case(random_case(seed), cache_directory, seed)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str, cache_directory: Path) -> None:
    """One ragged shape per preset in the sample, both levels."""
    algorithm = resolve(preset)
    k = 272 if algorithm.vector_size == 8 else 268
    for level in ("gc", "sc"):
        if level == "sc" and algorithm.table_bytes > 163 * 1024:
            continue
        run_case(Case(algorithm, 37, k, (3,), ("float16",), level, "a100"), cache_directory, 1)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_over_shapes(preset: str, dtype: str, cache_directory: Path) -> None:
    algorithm = resolve(preset)
    for level in ("gc", "sc"):
        if level == "sc" and algorithm.table_bytes > 227 * 1024:
            continue
        for n, k in ((1, 8), (5, 512), (300, 1032), (64, 2048)):
            case = Case(algorithm, n, k, (1, 16), (dtype,), level, "h200")
            run_case(case, cache_directory, n)


def test_the_matrix_is_large() -> None:
    """At least 200 distinct kernels run in `make test-full`."""
    kernels = {(str(case), m) for case in map(random_case, range(ALL)) for m in case.m}
    assert len(kernels) >= 200
