"""Which GPU a device is, and its data file with measured numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc import gpus
from vqcc.calibration.data_file import check_named, data_file, matching_gpu, number
from vqcc.calibration.measurements import Measurement
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.gpus.loading import gpu_at
from vqcc.gpus.model import Gpu
from vqcc.spec.source import parse_source

KNOWN = [gpus.load(name) for name in gpus.names()]
SOURCE = 'measured by vqcc calibrate 0.1.0 on NVIDIA "H200", driver 580.65.06, CUDA 13.5.37'
MEASURED = [
    Measurement("sm_count", 114, 114, 114),
    Measurement("dram_bytes_per_second", 4.63e12, 4.6e12, 4.64e12),
    Measurement("launch_seconds", 9.7e-7, 9e-7, 1e-6),
    Measurement("multiply_cycles", 8.25, 8.2, 8.3),
]


def matched(capability: str, sm_count: int, device_name: str) -> str:
    return matching_gpu(KNOWN, capability=capability, sm_count=sm_count, device_name=device_name).name


@pytest.mark.parametrize(
    ("capability", "sm_count", "device_name", "name"),
    [
        ("8.0", 108, "NVIDIA A100-SXM4-80GB", "a100"),
        ("8.9", 128, "NVIDIA GeForce RTX 4090", "rtx4090"),
        ("8.9", 142, "anything", "l40s"),
        ("9.0", 132, "NVIDIA H200", "h200"),
        ("9.0", 132, "NVIDIA H100 80GB HBM3", "h100"),
    ],
)
def test_a_device_is_the_known_gpu_like_it(
    capability: str, sm_count: int, device_name: str, name: str
) -> None:
    assert matched(capability, sm_count, device_name) == name


@pytest.mark.parametrize(
    ("capability", "sm_count", "words", "names"),
    [
        ("9.0", 132, "one of h100, h200", "--gpu h100 or --gpu h200"),
        ("9.0", 114, "no GPU that vqcc has", "--gpu h100 or --gpu h200"),
        ("8.9", 60, "no GPU that vqcc has", "--gpu l40s or --gpu rtx4090"),
        ("8.7", 8, "no GPU that vqcc has", "write a data file for compute capability 8.7"),
    ],
)
def test_other_devices_are_to_be_named(capability: str, sm_count: int, words: str, names: str) -> None:
    with pytest.raises(VqccError) as caught:
        matched(capability, sm_count, "Some GPU")
    (item,) = caught.value.diagnostics
    assert (item.code, caught.value.exit_code) == ("VQ0407", ExitCode.INPUT)
    assert words in item.message
    assert names in str(item.help)


def test_a_gpu_that_is_named_has_the_devices_architecture() -> None:
    check_named(gpus.load("h200"), capability="9.0", device_name="NVIDIA H100 PCIe")
    with pytest.raises(VqccError) as caught:
        check_named(gpus.load("h200"), capability="8.9", device_name="NVIDIA L40S")
    (item,) = caught.value.diagnostics
    assert (item.code, caught.value.exit_code) == ("VQ0408", ExitCode.NO_DEVICE)
    assert "h200" in item.message


def read(text: str) -> Gpu:
    source = parse_source(text.encode(), "gpu.yaml")
    gpu = gpu_at(source, source.data)
    assert isinstance(gpu, Gpu)
    return gpu


@pytest.mark.parametrize("name", gpus.names())
def test_a_measured_file_loads_and_keeps_all_else(name: str) -> None:
    before, text = gpus.load(name), data_file(gpus.load(name), MEASURED, SOURCE)
    after = read(text).facts()
    for fact, old in before.facts().items():
        new = next((each for each in MEASURED if each.name == fact), None)
        if new is None:
            assert after[fact] == old
        else:
            found = after[fact]
            assert (found.value, found.source, found.confidence) == (new.value, SOURCE, "measured")
    changed = [
        new
        for old, new in zip(gpus.data_file_text(name).splitlines(), text.splitlines(), strict=True)
        if old != new
    ]
    assert [line.partition(":")[0] for line in changed] == [each.name for each in MEASURED]
    assert text == data_file(before, MEASURED, SOURCE)


def test_every_number_of_a_file_could_be_measured_again() -> None:
    facts = gpus.load("h200").facts()
    everything = [
        Measurement(name, fact.value, fact.value, fact.value)
        for name, fact in facts.items()
        if not isinstance(fact.value, tuple)
    ]
    assert {
        name: fact.value
        for name, fact in read(data_file(gpus.load("h200"), everything, SOURCE)).facts().items()
    } == {name: fact.value for name, fact in facts.items()}


def test_numbers_that_a_file_cannot_have_are_refused() -> None:
    with pytest.raises(VqccError) as caught:
        data_file(gpus.load("h200"), [Measurement("launch_seconds", 2.0, 2.0, 2.0)], SOURCE)
    assert [item.code for item in caught.value.diagnostics] == ["VQ0204"]


@given(st.floats(1e-9, 1e15).map(lambda value: float(f"{value:.3g}")))
def test_a_number_is_read_as_it_was(value: float) -> None:
    source = parse_source(f"a: {number(value)}".encode(), "x.yaml")
    assert source.data == {"a": value}


def test_numbers_are_written_in_one_way() -> None:
    written = [number(value) for value in (132, 44.0, 8.25, 4.6e12, 1e-6, 9.7e-7, 1.98e9)]
    assert written == ["132", "44.0", "8.25", "4.6e12", "1.0e-6", "9.7e-7", "1.98e9"]
    assert all(a != b for a, b in pairwise(written))
