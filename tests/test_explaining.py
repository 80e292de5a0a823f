"""What a plan document holds beside the plans: the GPU's numbers that entered and that nobody measured."""

from __future__ import annotations

import json

import pytest

from vqcc import gpus
from vqcc.explaining import explain_plans, uncalibrated_facts
from vqcc.gpus.model import Fact
from vqcc.plan import Decision, Plan


def plan_with(*inputs: str) -> Plan:
    decision = Decision("x", 1, "a formula", dict.fromkeys(inputs, 1), "a reason")
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
    assert uncalibrated_facts(gpu, [plan_with("sm_count", "n")]) == (expected if doubted else [])


def test_only_what_entered_and_each_once() -> None:
    every = dict.fromkeys(gpus.load("h200").facts(), trusted("memory"))
    gpu = gpus.load("h200").model_copy(update=every)
    assert uncalibrated_facts(gpu, [plan_with("vector_size")]) == []
    found = uncalibrated_facts(gpu, [plan_with("l2_bytes"), plan_with("sm_count"), plan_with("l2_bytes")])
    assert [fact["name"] for fact in found] == ["sm_count", "l2_bytes"]


def test_the_document_is_plain_json() -> None:
    gpu = gpus.load("rtx4090")
    document = explain_plans(gpu, [plan_with("dram_bytes_per_second")])
    assert json.loads(json.dumps(document))["gpu"] == "rtx4090"
    assert (document["target"], len(document["kernels"])) == ("sm_89", 1)
    assert [fact["name"] for fact in document["uncalibrated"]] == ["dram_bytes_per_second"]
