"""The GPUs vqcc knows: every file loads, and every number has a source."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vqcc import gpus
from vqcc.diagnostics import VqccError
from vqcc.gpus.consistency import contradictions
from vqcc.gpus.estimates import ESTIMATES
from vqcc.gpus.model import MOST_SHARED_BYTES, FactList, Gpu

FILES = sorted(Path(gpus.__file__).parent.glob("*.yaml"))
EIGHT = ("a100", "a40", "b200", "h100", "h200", "l40s", "rtx4090", "rtx5090")
SM = {
    "a100": 80, "a40": 86, "b200": 100, "h100": 90, "h200": 90, "l40s": 89, "rtx4090": 89, "rtx5090": 120,
}  # fmt: skip
# Threads, blocks, shared KiB per SM and per block, by architecture (CUDA 13's headers).
LIMITS = {
    80: (2048, 32, 164, 163),
    86: (1536, 16, 100, 99),
    89: (1536, 24, 100, 99),
    90: (2048, 32, 228, 227),
    100: (2048, 32, 228, 227),
    120: (1536, 24, 100, 99),
}


def test_the_eight_are_there():
    assert gpus.names() == EIGHT
    assert [file.stem for file in FILES] == list(EIGHT)


def test_the_most_shared_memory_is_that_of_a_known_gpu():
    """Or a message would propose a GPU that nobody has."""
    assert max(gpus.load(name).shared_bytes_per_block.integer for name in EIGHT) == MOST_SHARED_BYTES


@pytest.mark.parametrize("name", EIGHT)
def test_a_file_describes_the_gpu_of_its_name(name):
    gpu = gpus.load(name)
    assert gpu.name == name
    assert gpu.sm == SM[name]
    assert gpu.target == f"sm_{SM[name]}"
    assert gpus.load(name) is gpu
    assert not list(contradictions(gpu))


@pytest.mark.parametrize("name", EIGHT)
def test_limits_of_the_architecture(name):
    gpu = gpus.load(name)
    assert (
        gpu.threads_per_sm.integer,
        gpu.blocks_per_sm.integer,
        gpu.shared_bytes_per_sm.integer // 1024,
        gpu.shared_bytes_per_block.integer // 1024,
    ) == LIMITS[gpu.sm]
    assert gpu.registers_per_sm.integer == gpu.registers_per_block.integer == 65536
    assert gpu.dtypes == ("float16", "bfloat16")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_number_is_written_with_source_and_confidence(file):
    data = yaml.safe_load(file.read_text())
    for name in set(data) - {"name", "compute_capability", "dtypes"}:
        assert set(data[name]) == {"value", "source", "confidence"}, name
        assert data[name]["confidence"] != "user"
        said_from_memory = "from memory" in data[name]["source"]
        assert said_from_memory == (data[name]["confidence"] == "memory"), name


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("a40", "l2_bytes"),
        ("a100", "l2_bytes"),
        ("a100", "dram_bytes_per_second"),
        ("h100", "boost_hertz"),
        ("l40s", "tensor_flops_fp16"),
        ("b200", "l2_bytes"),
        ("rtx5090", "l1_shared_bytes"),
    ],
)
def test_figures_from_memory_stay_marked(name, field):
    assert getattr(gpus.load(name), field).confidence == "memory"


def test_the_measured_bandwidth_of_the_h200():
    fact = gpus.load("h200").dram_bytes_per_second
    assert (fact.value, fact.confidence) == (4.6e12, "measured")


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("field", ESTIMATES)
def test_what_nobody_measured_is_the_estimate_and_says_so(name, field):
    fact = getattr(gpus.load(name), field)
    if fact.confidence == "measured":
        assert "vqcc calibrate" in fact.source
        return
    value, reason = ESTIMATES[field](
        gpus.load(name).facts() | {"compute_capability": gpus.load(name).compute_capability}
    )
    fitted = "fitted to measured kernels (docs/performance.md)"
    assert (fact.value, fact.confidence) == (value, "derived")
    assert fact.source == (fitted if name == "h200" else reason)


def test_facts_are_all_numbers_in_order():
    facts = gpus.load("h200").facts()
    assert list(facts) == [name for name in Gpu.model_fields if name in facts]
    assert len(facts) == len(Gpu.model_fields) - 3
    assert isinstance(facts["shared_carveouts"], FactList)
    assert facts["sm_count"].value == 132


@pytest.mark.parametrize(
    "name", ["", "H200", "h20", "../gpus/h200", "h200.yaml", "/etc/passwd", "a\0b", "rtx 4090"]
)
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(VqccError) as caught:
        gpus.load(name)
    (item,) = caught.value.diagnostics
    assert item.code == "VQ0401"
    assert "a100, a40, b200" in item.help
    assert "\0" not in item.message


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(VqccError) as caught:
        gpus.load("RTX4900")
    assert "did you mean 'rtx4090'?" in caught.value.diagnostics[0].help


@pytest.mark.parametrize("name", ["rtx3090", "rtx4080", "h300", "b100", "v100"])
def test_another_generation_is_no_slip(name):
    with pytest.raises(VqccError) as caught:
        gpus.load(name)
    assert caught.value.diagnostics[0].help.startswith("known GPUs are a100, a40, b200, h100,")


@pytest.mark.parametrize(
    ("name", "near"), [("h20", "h200"), ("h2000", "h200"), ("rtx409", "rtx4090"), ("L40", "l40s")]
)
def test_a_digit_too_many_or_too_few_is_a_slip(name, near):
    assert gpus.meant(name, gpus.names()) == f"did you mean '{near}'?"


@pytest.mark.parametrize("name", ["h200,a100", "h200, a100", "h200 a100", "h200;a100,"])
def test_several_names_in_one_are_told_apart(name):
    with pytest.raises(VqccError) as caught:
        gpus.load(name)
    assert caught.value.diagnostics[0].help == (
        "name each GPU by itself: [h200, a100] in a spec, --gpu h200 --gpu a100 on the command line"
    )
    with pytest.raises(VqccError) as caught:
        gpus.load(f"{name},h2000")
    assert "known GPUs are" in caught.value.diagnostics[0].help


def test_no_other_file_mentions_a_gpu_by_name():
    """A new GPU is one file: nothing in the passes, ops or code generation may know one."""
    root = Path(gpus.__file__).parents[1]
    for part in ("algorithms", "ops", "passes", "codegen"):
        for file in (root / part).rglob("*.py"):
            text = file.read_text()
            assert not [name for name in EIGHT if f'"{name}"' in text], file
