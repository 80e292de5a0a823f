"""Predicted times of attention, and the choice that follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from caches import STRATEGY, make_plan, make_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.passes.cache.choice import cache_choices, name_of_strategy
from vqcc.passes.cache.pipeline import estimate

LARGE: dict[str, Any] = {"q_heads": 32, "kv_heads": 32, "head_dim": 128, "batch": 8, "context": 4096}


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
    time = estimate(make_problem("cq-2", **op), STRATEGY[name])
    assert time is not None
    assert time > 0
    for more in ({"batch": 2 * batch}, {"context": 2 * context}):
        longer = estimate(make_problem("cq-2", **{**op, **more}), STRATEGY[name])
        assert longer is not None
        assert longer >= 0.99 * time


@pytest.mark.parametrize(
    ("algorithm", "op", "first"),
    [
        ("cq-2", {}, "score tables"),
        ("cq-2", {"kv_heads": 8}, "codes in the order of fragments"),
        ("cq-4", {}, "score tables"),
        ("cq-2", {"rope": "half"}, "decoding as at o2"),
        ("kv-8-6-2", {}, "decoding as at o2"),
    ],
)
def test_the_choice(algorithm: str, op: dict[str, Any], first: str) -> None:
    choices = cache_choices([make_problem(algorithm, **{**LARGE, **op})], estimate)
    assert name_of_strategy(choices[0].strategy) == first
    (decision,) = choices[0].decisions
    assert decision.value == first
    told = {str(rejected.value): rejected.reason for rejected in decision.rejected}
    assert len(told) == 3
    assert all("predicted" in why or "h200: " in why for why in told.values())
    times = [choice.decisions[0].inputs["predicted_us"] for choice in choices]
    assert times == sorted(times, key=float)


def test_a_gpu_without_room_decides_for_all() -> None:
    problems = [make_problem("cq-2", gpu=gpu, **LARGE) for gpu in ("h200", "rtx4090")]
    (first, *_) = cache_choices(problems, estimate)
    assert first.strategy.dataflow == "decode"
    told = {str(rejected.value): rejected.reason for rejected in first.decisions[0].rejected}
    assert told["score tables"] == "no tile fits the shared memory of a GPU"


@pytest.mark.parametrize("level", ["gc", "sc", "o1", "o2"])
def test_a_level_leaves_no_choice(level: Any) -> None:
    choices = cache_choices([make_problem("cq-2", level=level, **LARGE)], estimate)
    assert [choice.decisions for choice in choices] == [()]


def test_the_prediction_is_told() -> None:
    plan = make_plan(make_problem("cq-2", **LARGE), STRATEGY["score"])
    (decision,) = (each for each in plan.decisions if each.name == "predicted_us")
    assert decision.value == plan.predicted_us
    parts = [value for name, value in decision.inputs.items() if name.endswith("_us")]
    assert sum(map(float, parts)) == pytest.approx(plan.predicted_us, abs=0.05)
