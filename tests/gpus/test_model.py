"""A GPU as data: what the model accepts, and limits that contradict each other."""

from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

from vqcc import gpus
from vqcc.diagnostics import DiagnosticList
from vqcc.gpus.consistency import contradictions
from vqcc.gpus.estimates import ESTIMATES
from vqcc.gpus.loading import gpu_at
from vqcc.gpus.model import COMPUTE_CAPABILITIES, Fact, Gpu
from vqcc.spec.source import parse_source


def plain(**changes):
    """The H200 as an inline GPU: bare numbers."""
    data = {
        name: list(fact.value) if isinstance(fact.value, tuple) else fact.value
        for name, fact in gpus.load("h200").facts().items()
    }
    return {"name": "mine", "compute_capability": "9.0", "dtypes": ["float16"], **data, **changes}


def read(data):
    import json

    return gpu_at(parse_source(json.dumps(data).encode(), "gpu.json"), data)


def codes(result):
    assert isinstance(result, DiagnosticList), result
    return [(item.code, item.message.split(":")[0]) for item in result]


def test_bare_numbers_become_facts_of_the_user():
    gpu = read(plain(sm_count=66))
    assert gpu.sm_count == Fact(value=66, source="the spec", confidence="user")
    assert gpu.sm_count.integer == 66
    assert gpu.shared_carveouts.confidence == "user"
    assert gpu.dtypes == ("float16",)


def test_facts_may_be_given_in_full():
    fact = {"value": 66, "source": "my datasheet", "confidence": "datasheet"}
    assert read(plain(sm_count=fact)).sm_count.confidence == "datasheet"


def test_what_calibration_measures_may_be_left_out():
    """As in specs from before these were fields of a GPU."""
    old = {name: value for name, value in plain().items() if name not in ESTIMATES}
    facts = read(old).facts()
    assert {facts[name].confidence for name in ESTIMATES} == {"derived"}
    fitted = {
        "sustained_hertz": 1.78e9,
        "launch_seconds": 5.44e-7,
        "l2_bytes_per_cycle": 124.0,
        "dram_latency_cycles": 663,
    }
    fitted |= {"multiply_cycles": 6.09, "integer_cycles": 2.01}
    assert {name: facts[name].value for name in ESTIMATES} == fitted


def test_estimates_follow_the_numbers_that_are_given():
    old = {name: value for name, value in plain().items() if name not in ESTIMATES}
    slow = read({**old, "boost_hertz": 1e9})
    assert slow.sustained_hertz.value == pytest.approx(0.9e9)
    plain_rate = {
        "compute_capability": "8.9",
        "tensor_flops_fp16": 1.652e14,
        "sm_count": 128,
        "boost_hertz": 2.52e9,
    }
    assert read({**old, **plain_rate}).multiply_cycles.value == 32
    assert read({**old, **plain_rate, "tensor_flops_fp16": 3.304e14}).multiply_cycles.value == 16
    assert read({**old, "compute_capability": "8.0", "tensor_flops_fp16": 1e17}).multiply_cycles.value == 1
    assert (
        read(
            {**old, "compute_capability": "8.0", "sm_count": 1024, "tensor_flops_fp16": 1e11}
        ).multiply_cycles.value
        == 512
    )


@pytest.mark.parametrize("field", ["boost_hertz", "sm_count", "sub_partitions", "tensor_flops_fp16"])
def test_a_number_that_is_wrong_is_reported_once(field):
    """Not again for the estimates that are made of it."""
    old = {name: value for name, value in plain().items() if name not in ESTIMATES}
    assert codes(read({**old, field: -1})) == [
        ("VQ0204", f"gpu.{field}".removeprefix("gpu.") + " cannot be -1")
    ]


@pytest.mark.parametrize("written", ["10.0", 10.0])
def test_a_capability_may_be_written_as_a_number(written):
    gpu = read(plain(compute_capability=written))
    assert (gpu.compute_capability, gpu.sm, gpu.target) == ("10.0", 100, "sm_100")


@pytest.mark.parametrize(
    "written", ["9", 9, 9.04, 7.5, "9.0a", float("nan"), float("inf"), True, None, [9, 0]]
)
def test_other_capabilities_are_refused(written):
    (item,) = gpu_at(parse_source(b"a: 1", "gpu.yaml"), plain(compute_capability=written))
    assert item.code == "VQ0206"
    assert all(text in item.help for text in COMPUTE_CAPABILITIES)


@pytest.mark.parametrize("field", sorted(gpus.load("h200").facts()))
@pytest.mark.parametrize(
    "value", [-1, 0.5, 10**30, "many", True, None, {}, [], [0.5], float("nan"), float("inf")]
)
def test_every_number_is_checked(field, value):
    result = gpu_at(parse_source(b"a: 1", "gpu.yaml"), plain(**{field: value}))
    assert isinstance(result, DiagnosticList)
    assert {item.code for item in result} <= {"VQ0202", "VQ0203", "VQ0204", "VQ0209"}


@pytest.mark.parametrize(
    "name", ["Mine", "mine-2", "a__b", "_a", "a_", "9a", "", "int", "a b", "a\n", "é", "a" * 33]
)
def test_names_are_identifiers(name):
    (item,) = read(plain(name=name))
    assert item.code in {"VQ0207", "VQ0208", "VQ0214"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"warps_per_sm": 48}, "warps_per_sm"),
        ({"threads_per_sm": 512, "warps_per_sm": 16}, "threads_per_block"),
        ({"registers_per_block": 131072}, "registers_per_block"),
        ({"registers_per_sm": 65537}, "registers_per_sm"),
        ({"shared_bytes_per_block": 233472}, "shared_bytes_per_block"),
        ({"shared_bytes_per_block_default": 232449}, "shared_bytes_per_block_default"),
        ({"shared_carveouts": [233472, 0]}, "shared_carveouts"),
        ({"shared_carveouts": [0, 0, 233472]}, "shared_carveouts"),
        ({"shared_carveouts": [0, 100000]}, "shared_carveouts"),
        ({"l1_shared_bytes": 100000}, "l1_shared_bytes"),
    ],
)
def test_contradictions_are_named(changes, field):
    assert codes(read(plain(**changes))) == [("VQ0402", field)]


def test_contradictions_come_together():
    assert codes(read(plain(warps_per_sm=48, l1_shared_bytes=16384))) == [
        ("VQ0402", "warps_per_sm"),
        ("VQ0402", "l1_shared_bytes"),
    ]


def test_help_of_a_contradiction_resolves_it():
    """Following the help leaves a consistent GPU."""
    found = list(contradictions(read_unchecked(plain(warps_per_sm=48))))
    assert found[0].help == "use warps_per_sm: 64 or threads_per_sm: 1536"
    assert isinstance(read(plain(warps_per_sm=48, threads_per_sm=1536)), Gpu)


def read_unchecked(data):
    return Gpu.model_validate({key: tuple(v) if isinstance(v, list) else v for key, v in data.items()})


def test_a_gpu_does_not_change():
    gpu = read(plain())
    with pytest.raises(ValidationError):
        gpu.sm_count = gpu.l2_bytes
    assert copy.deepcopy(gpu) == gpu
