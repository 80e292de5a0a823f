"""Attention over drawn problems: levels, algorithms, heads, windows, rotation, pages, lengths, against float64.

A few of each dataflow in `make test`, more of them in `make test-full`; the same ones in every run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attention_cases import case_of, render
from caches import STRATEGY, make_plan, make_problem
from device.attention import check, run_append, run_attention

from vqcc.diagnostics import VqccError
from vqcc.emulator import build
from vqcc.passes.cache.append import plan_appends
from vqcc.passes.cache.dataflow import cache_refusals
from vqcc.passes.cache.pipeline import plan_base

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

ALGORITHMS = ("cq-1", "cq-2", "cq-4", "kv-4-8-1", "kv-2-8-1", "kv-8-6-2", "kv-4-10-1", "cq-8c10b", "kv-2-4-3")
#: Around the ends of token blocks and pages.
NOTABLE_LENGTHS = (0, 1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 255, 256, 257)
QUICK, QUICK_APPENDS, FULL = 3, 1, 60


def pick(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def planned(problem: CacheProblem, strategy: str) -> CachePlan | None:
    """The plan; None if the strategy cannot have the problem, or no block can hold its books or tables."""
    if list(cache_refusals(problem, STRATEGY[strategy].dataflow)):
        return None
    if plan_base(problem, STRATEGY[strategy]) is None:
        return None
    try:
        return make_plan(problem, STRATEGY[strategy])
    except VqccError as error:
        if {item.code for item in error.diagnostics} == {"VQ0403"}:
            return None
        raise


def draw(strategy: str, seed: int) -> tuple[CacheProblem, CachePlan, tuple[int, ...]]:
    """A problem that the strategy can have, its plan, and lengths of its sequences."""
    rng = np.random.default_rng([seed, *strategy.encode()])
    while True:
        kv_heads, batch = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        lengths = tuple(
            int(pick(rng, *NOTABLE_LENGTHS, int(rng.integers(300)), int(rng.integers(700))))
            for _ in range(batch)
        )
        op = {
            "kv_heads": kv_heads,
            "q_heads": kv_heads * pick(rng, 1, 1, 2, 3, 4, 8),
            "head_dim": pick(rng, 64, 128, 128, 256),
            "batch": batch,
            "window": pick(rng, 0, 0, 1, 8, 40, 256),
            "page_size": pick(rng, 0, 32, 64, 96),
            "rope": pick(rng, "none", "none", "half", "interleaved"),
            "query_tokens": pick(rng, 1, 1, 2, 5),
            "sliding_window": pick(rng, 0, 0, 0, 1, 20, 100),
            "softcap": pick(rng, False, False, True),
            "dtype": pick(rng, "float16", "bfloat16"),
        }
        keys, values = pick(rng, *ALGORITHMS), pick(rng, *ALGORITHMS)
        problem = make_problem(keys, pick(rng, keys, values), **op)
        plan = planned(problem, strategy)
        if plan is not None:
            return problem, plan, lengths


def attend(strategy: str, seed: int, cache: Path) -> None:
    problem, plan, lengths = draw(strategy, seed)
    assert plan.launch is not None
    case = case_of(problem, plan, lengths=lengths, grid=min(plan.launch.grid, 1 + seed % 9), seed=seed)
    emulated = build(render(problem, plan, appends=False), cache_directory=cache / "emulator")
    check(case, run_attention(case, emulated, kernel=plan.kernel))


@pytest.mark.parametrize("strategy", STRATEGY)
@pytest.mark.parametrize("seed", range(QUICK))
def test_sample(strategy: str, seed: int, cache_directory: Path) -> None:
    attend(strategy, seed, cache_directory)


@pytest.mark.full
@pytest.mark.parametrize("strategy", STRATEGY)
@pytest.mark.parametrize("seed", range(QUICK, FULL))
def test_all(strategy: str, seed: int, cache_directory: Path) -> None:
    attend(strategy, seed, cache_directory)


def append(strategy: str, seed: int, cache: Path) -> None:
    """The same problems' kernels that append: many tokens or a few to some sequences, then one to each."""
    problem, plan, lengths = draw(strategy, seed)
    case = case_of(problem, plan, lengths=lengths, seed=seed)
    (tile, *_) = (each.tile for each in plan_appends([problem], [plan]))
    case = replace(case, warps=tile.warps, shared_bytes=tile.shared_bytes)
    rng = np.random.default_rng([seed, 1])
    window = problem.op.window
    steps = [
        tuple(int(pick(rng, 0, 1, window, *rng.integers(70, size=3))) for _ in lengths) for _ in range(3)
    ]
    steps[1:1] = steps[3:] = [(1,) * len(lengths)] * 3
    emulated = build(render(problem, plan), cache_directory=cache / "emulator")
    names = tuple(f"lib_append_{count}_{problem.variant.dtype}" for count in ("one", "many"))
    run_append(case, emulated, steps, 1 + seed % 3, names)


@pytest.mark.parametrize("strategy", STRATEGY)
@pytest.mark.parametrize("seed", range(QUICK_APPENDS))
def test_append_sample(strategy: str, seed: int, cache_directory: Path) -> None:
    append(strategy, seed, cache_directory)


@pytest.mark.full
@pytest.mark.parametrize("strategy", STRATEGY)
@pytest.mark.parametrize("seed", range(QUICK_APPENDS, FULL))
def test_append_all(strategy: str, seed: int, cache_directory: Path) -> None:
    append(strategy, seed, cache_directory)


def test_the_sample_has_what_it_should() -> None:
    """Every option is drawn for kernels that decode; of the others, what they can have."""
    drawn = [draw("gc", seed)[0].op for seed in range(FULL)]
    assert {each.rope for each in drawn} == {"none", "half", "interleaved"}
    assert any(each.window for each in drawn)
    assert any(each.paged for each in drawn)
    assert any(each.softcap for each in drawn)
    assert {each.head_dim for each in drawn} == {64, 128, 256}
    assert len({each.q_heads // each.kv_heads for each in drawn}) > 3
    for strategy in ("score", "fragment"):
        assert len({draw(strategy, seed)[0].keys.label for seed in range(FULL)}) > 2
