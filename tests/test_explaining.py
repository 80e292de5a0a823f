"""What a plan document holds beside the plans: the GPU's numbers that entered and that nobody measured."""

from __future__ import annotations

import json

import pytest
from plans import Compiler, planned
from problems import problem

from vqcc import gpus
from vqcc.explaining import explain_plans, uncalibrated_facts
from vqcc.gpus.model import Fact
from vqcc.levels import LEVELS
from vqcc.plan import Decision, Plan
from vqcc.search import compile_plans


def plan_with(*facts: str) -> Plan:
    decision = Decision("x", 1, "a formula", {"n": 1}, "a reason", facts=facts)
    return Plan("kernel", "sc").decide(decision)


def trusted(confidence: str) -> Fact:
    return Fact(value=7, source="a test", confidence=confidence)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("confidence", "doubted"),
    [
        ("measured", False),
        ("header", False),
        ("datasheet", True),
        ("memory", True),
        ("derived", True),
        ("user", True),
    ],
)
def test_what_is_doubted(confidence: str, doubted: bool) -> None:
    gpu = gpus.load("h200").model_copy(update={"sm_count": trusted(confidence)})
    expected = [{"name": "sm_count", "value": 7, "source": "a test", "confidence": confidence}]
    assert uncalibrated_facts(gpu, [plan_with("sm_count")]) == (expected if doubted else [])


def test_only_what_entered_and_each_once() -> None:
    every = dict.fromkeys(gpus.load("h200").facts(), trusted("memory"))
    gpu = gpus.load("h200").model_copy(update=every)
    assert uncalibrated_facts(gpu, [plan_with()]) == []
    found = uncalibrated_facts(gpu, [plan_with("l2_bytes"), plan_with("sm_count"), plan_with("l2_bytes")])
    assert [fact["name"] for fact in found] == ["sm_count", "l2_bytes"]


def test_an_input_that_is_named_like_a_fact_is_none() -> None:
    """Bytes that move through the second-level cache are counted; its size enters nothing."""
    every = dict.fromkeys(gpus.load("h200").facts(), trusted("memory"))
    gpu = gpus.load("h200").model_copy(update=every)
    plan = Plan("kernel", "sc").decide(
        Decision("x", 1, "a formula", {"l2_bytes": 1}, "a reason", facts=("sm_count",))
    )
    assert [fact["name"] for fact in uncalibrated_facts(gpu, [plan])] == ["sm_count"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("preset", ["gptvq-2", "aqlm-2x8", "quip-4"])
def test_decisions_name_the_facts_that_were_read(preset: str, level: str) -> None:
    """A GPU that notes which of its numbers are asked for: no more and no fewer are named."""
    gpu = gpus.load("rtx4090")
    read: set[str] = set()

    class Noting:
        def __getattr__(self, name: str) -> object:
            read.update({name} & set(gpu.facts()))
            return getattr(gpu, name)

    named = set()
    for m in (1, 16):
        task = problem(preset, gpu=Noting(), level=level, n=4096, k=4096, m=m)  # type: ignore[arg-type]
        _, (plan,), _ = compile_plans([task], Compiler())
        named |= {name for decision in plan.decisions for name in decision.facts}
    # The carve-out is found for every occupancy, and no block depends on it.
    read.discard("shared_carveouts")
    if level == "best":  # the losers' decisions are not in the plan
        assert named <= read
    else:
        assert named == read


def test_what_a_prediction_is_made_of_is_doubted_where_nobody_measured_it() -> None:
    plan = planned(problem("aqlm-2x8", gpu="rtx4090", level="o4", n=4096, k=4096, m=16))
    doubted = {fact["name"] for fact in uncalibrated_facts(gpus.load("rtx4090"), [plan])}
    assert doubted >= {"dram_bytes_per_second", "boost_hertz", "tensor_flops_fp16", "l1_shared_bytes"}
    assert "l2_bytes" not in doubted


def test_the_document_is_plain_json() -> None:
    gpu = gpus.load("rtx4090")
    document = explain_plans(gpu, [plan_with("dram_bytes_per_second")])
    assert json.loads(json.dumps(document))["gpu"] == "rtx4090"
    assert (document["target"], len(document["kernels"])) == ("sm_89", 1)
    assert [fact["name"] for fact in document["uncalibrated"]] == ["dram_bytes_per_second"]
