"""Predicted times of attention, and the choice that follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from caches import STRATEGY, make_plan, make_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.levels import STRATEGIES
from vqcc.passes.cache.choice import agree_on_cache, cache_contenders
from vqcc.passes.cache.pipeline import estimate

LARGE: dict[str, Any] = {"q_heads": 32, "kv_heads": 32, "head_dim": 128, "batch": 8, "context": 4096}


def time_of(op: dict[str, Any], name: str) -> float:
    plan = estimate(make_problem("cq-2", **op), STRATEGY[name])
    assert plan is not None
    assert plan.predicted_us is not None
    return plan.predicted_us


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["gc", "score", "fragment"]),
    batch=st.sampled_from([1, 3, 8, 32]),
    context=st.sampled_from([100, 1024, 4096, 32768]),
    group=st.sampled_from([1, 4]),
)
def test_more_work_takes_no_less(name: str, batch: int, context: int, group: int) -> None:
    if name == "fragment" and group == 1:
        return
    op = {**LARGE, "q_heads": 8 * group, "kv_heads": 8, "batch": batch, "context": context}
    time = time_of(op, name)
    assert time > 0
    for more in ({"batch": 2 * batch}, {"context": 2 * context}):
        assert time_of({**op, **more}, name) >= 0.99 * time


@pytest.mark.parametrize(
    ("algorithm", "op", "first"),
    [
        ("cq-2", {}, "score"),
        ("cq-2", {"kv_heads": 8}, "score"),
        ("cq-4", {"kv_heads": 8}, "score"),
        ("cq-4", {}, "score"),
        ("cq-2", {"rope": "half"}, "fragment"),
        ("cq-4", {"kv_heads": 8, "rope": "interleaved"}, "fragment"),
        ("kv-8-6-2", {}, "decode"),
    ],
)
def test_the_dataflow(algorithm: str, op: dict[str, Any], first: str) -> None:
    (agreed, *_) = agree_on_cache([make_problem(algorithm, **{**LARGE, **op})], estimate)
    assert agreed.dataflow == first
    assert {rejected.value for rejected in agreed.others} == {"decode", "score", "fragment"} - {first}
    assert all(rejected.reason for rejected in agreed.others)


def test_a_gpu_without_room_decides_for_all() -> None:
    problems = [make_problem("cq-2", gpu=gpu, **LARGE) for gpu in ("h200", "rtx4090")]
    (agreed, *_) = agree_on_cache(problems, estimate)
    assert agreed.dataflow == "decode"
    told = {str(rejected.value): rejected.reason for rejected in agreed.others}
    assert told["score"] == "no tile of it fits rtx4090"


@pytest.mark.parametrize("level", ["gc", "sc", "o1", "o2"])
def test_a_level_leaves_no_choice(level: Any) -> None:
    problem = make_problem("cq-2", level=level, **LARGE)
    (agreed,) = agree_on_cache([problem], estimate)
    assert (agreed.dataflow, agreed.others) == ("decode", ())
    assert cache_contenders(problem, estimate, "decode") == [(0.0, STRATEGY[level])]


def test_contenders_come_by_their_times() -> None:
    problem = make_problem("cq-2", rope="half", **LARGE)
    ranked = cache_contenders(problem, estimate, "decode")
    assert len(ranked) == 4
    assert [time for time, _ in ranked] == sorted(time for time, _ in ranked)


def test_the_prediction_is_told() -> None:
    plan = make_plan(make_problem("cq-2", **LARGE), STRATEGY["score"])
    (decision,) = (each for each in plan.decisions if each.name == "predicted_us")
    assert decision.value == plan.predicted_us
    parts = [value for name, value in decision.inputs.items() if name.endswith("_us")]
    assert sum(map(float, parts)) == pytest.approx(plan.predicted_us, abs=0.05)


@pytest.mark.parametrize("algorithm", ["cq-2", "cq-4"])
@pytest.mark.parametrize("kv_heads", [32, 8])
def test_books_are_best_whole_and_worst_in_part(algorithm: str, kv_heads: int) -> None:
    """As measured on an H200 (attention-levels.json); blocks of clusters have fewer books."""
    op = {**LARGE, "kv_heads": kv_heads}
    plans = {
        level: estimate(make_problem(algorithm, **op), STRATEGIES[level])
        for level in ("gc", "sc", "o2", "o3")
    }
    times = {level: plan.predicted_us for level, plan in plans.items() if plan is not None}
    assert sorted(times, key=lambda level: times[level] or 0.0) == ["o3", "sc", "gc", "o2"]
