"""`vqcc calibrate` on a device whose clocks and rates are known."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command import run

from vqcc import gpus
from vqcc.diagnostics import DiagnosticList
from vqcc.gpus.loading import gpu_at
from vqcc.runtime import calibration
from vqcc.runtime.calibration import REPEATS, Benchmarks
from vqcc.runtime.device import Device, open_device
from vqcc.spec.source import read_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import FakeDriver

    from vqcc.gpus.model import Gpu

#: What the device is like, in the units of a GPU's fields.
TRUTH = {
    "sm_count": 132,
    "boost_hertz": 1.95e9,
    "sustained_hertz": 1.71e9,
    "launch_seconds": 1.25e-6,
    "dram_bytes_per_second": 4.4e12,
    "l2_bytes_per_cycle": 61.0,
    "dram_latency_cycles": 655.0,
    "multiply_cycles": 8.5,
    "integer_cycles": 2.05,
    "shared_roundtrip_per_shuffle": 2.4,
}
SHUFFLE_CYCLES, GRAPH_SECONDS = 23.0, 7e-6


class Machine:
    """Notes how long each kernel takes by TRUTH, and times graphs of them."""

    def __init__(self) -> None:
        self.truth: dict[str, float] = dict(TRUTH)
        self.launched: list[str] = []
        self.bytes = 0

    def __call__(self, *, name: str, arguments: tuple[Any, ...], memory: dict[int, bytearray]) -> None:
        self.launched.append(name)
        if name == "stream":
            self.bytes = 16 * int(arguments[1])
        if name in {"fill", "link_nodes", "stream", "empty"}:
            return
        *values, _, elapsed = arguments
        truth, steps = self.truth, int(values[-1])
        cycles = {
            "read_cached": lambda: 16 * int(values[1]) * steps / truth["l2_bytes_per_cycle"],
            "chase": lambda: steps * truth["dram_latency_cycles"],
            "multiply": lambda: steps * 4 * 4 * truth["multiply_cycles"],
            "combine_bits": lambda: steps * 4 * 24 * truth["integer_cycles"],
            "shuffle": lambda: steps * SHUFFLE_CYCLES,
            "round_trip": lambda: steps * SHUFFLE_CYCLES * truth["shared_roundtrip_per_shuffle"],
            "load_up": lambda: 1e6,
        }[name]()
        hertz = truth["sustained_hertz" if name == "load_up" else "boost_hertz"]
        memory[int(elapsed)][:16] = np.int64([round(cycles), round(1e9 * cycles / hertz)]).tobytes()

    def record(self, enqueue: Callable[[], None]) -> tuple[str, int]:
        before = len(self.launched)
        enqueue()
        (name,) = set(self.launched[before:])
        return name, len(self.launched) - before

    def replay(self, graph: tuple[str, int], count: int) -> list[float]:
        name, launches = graph
        each = self.truth["launch_seconds"]
        if name == "stream":
            each = self.bytes / self.truth["dram_bytes_per_second"]
        return [GRAPH_SECONDS + launches * each] * count


@pytest.fixture
def machine(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An H200 by its name, with little memory to fill."""
    machine = Machine()
    driver.kernels = machine
    driver.name = "NVIDIA H200"
    driver.attributes["l2"] = 1 << 16
    monkeypatch.setattr(Device, "record_graph", machine.record)
    monkeypatch.setattr(Device, "time_replays", machine.replay)
    for name, value in {"STREAM_BYTES": 1 << 20, "NODES": 1 << 12, "LOAD_LAUNCHES": 3}.items():
        monkeypatch.setattr(calibration, name, value)
    return machine


def test_samples_are_what_the_device_is(machine: Machine) -> None:
    with open_device() as device:
        found = dict(Benchmarks(device, b"cubin", sub_partitions=4).samples())
    assert set(found) == set(TRUTH)
    assert list(found)[-1] == "sustained_hertz", (
        "the clock falls under load, so that the highest comes before"
    )
    for name, samples in found.items():
        assert samples == pytest.approx([TRUTH[name]] * len(samples), rel=1e-4), name
        assert len(samples) == (1 if name == "sm_count" else REPEATS)


def test_caches_are_filled_before_each_chase(machine: Machine) -> None:
    with open_device() as device:
        Benchmarks(device, b"cubin", sub_partitions=4).dram_latency_cycles()
    assert machine.launched == ["fill", "link_nodes", *["fill", "chase"] * REPEATS]


def test_launches_have_room_for_what_they_write(machine: Machine, driver: FakeDriver) -> None:
    with open_device() as device:
        list(Benchmarks(device, b"cubin", sub_partitions=4).samples())
    for _, name, arguments, options in (call for call in driver.calls if call[0] == "launch"):
        threads = options["grid"][0] * options["block"][0]
        if name not in {"fill", "link_nodes", "empty"}:
            out = arguments[-1] if name == "stream" else arguments[-2]
            assert len(driver.memory[int(out)]) >= 4 * (1 if name == "chase" else threads), name
        if name in {"fill", "stream"}:
            assert 16 * int(arguments[1]) <= len(driver.memory[int(arguments[0])])
        if name == "stream":
            assert int(arguments[1]) % (8 * threads) == 0
        if name == "load_up":
            assert int(arguments[1]) % threads == 0
        if name == "read_cached":
            assert int(arguments[1]) % (8 * threads) == 0
            assert 16 * int(arguments[1]) <= len(driver.memory[int(arguments[0])])


def read(path: Path) -> Gpu:
    source = read_source(path)
    gpu = gpu_at(source, source.data)
    assert not isinstance(gpu, DiagnosticList)
    return gpu


def test_the_command_prints_and_writes(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "h200.yaml"
    done = run("calibrate", "-o", path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("NVIDIA H200 (sm_90), as h200\n")
    gpu, known = read(path), gpus.load("h200")
    given = f"{known.multiply_cycles.value:.4g} +{known.multiply_cycles.confidence}"
    assert re.search(rf"^multiply_cycles +8\.5 +8\.5 +8\.5 +{given}", done.stdout, re.MULTILINE)
    for name, fact in gpu.facts().items():
        if name not in TRUTH:
            assert fact == known.facts()[name]
            continue
        assert fact.value == TRUTH[name]
        assert fact.confidence == "measured"
        assert re.fullmatch(
            r"measured by vqcc calibrate \S+ on NVIDIA H200, driver .+, CUDA 13\.\S+", fact.source
        )
    before = path.read_bytes()
    assert run("calibrate", "-o", path).exit_code == 0
    assert path.read_bytes() == before


def test_results_as_json(machine: Machine, tmp_path: Path) -> None:
    done = run("calibrate", "--gpu", "h100", "--json")
    assert done.exit_code == 0
    results = done.json
    assert (results["device"], results["target"], results["gpu"]) == ("NVIDIA H200", "sm_90", "h100")
    assert results["diagnostics"] == []
    rows = {row["name"]: row for row in results["facts"]}
    assert list(rows) == [name for name in gpus.load("h100").facts() if name in TRUTH]
    assert {name: row["value"] for name, row in rows.items()} == TRUTH
    row = rows["boost_hertz"]
    given = gpus.load("h100").boost_hertz
    assert (row["given"], row["confidence"]) == (given.value, given.confidence)
    assert row["low"] == pytest.approx(row["high"])
    assert json.loads(done.stdout) == results


@pytest.mark.parametrize(
    ("arguments", "name", "capability", "codes", "exit_code"),
    [
        ([], "Some GPU", (9, 0), ["VQ0407"], 1),
        ([], "Some GPU", (8, 7), ["VQ0407"], 1),
        (["--gpu", "rtx4090"], "NVIDIA H200", (9, 0), ["VQ0408"], 5),
        (["--gpu", "h20"], "NVIDIA H200", (9, 0), ["VQ0401"], 1),
    ],
)
def test_a_gpu_that_is_not_the_device_is_refused_before_anything_is_measured(
    arguments: list[str],
    name: str,
    capability: tuple[int, int],
    codes: list[str],
    exit_code: int,
    machine: Machine,
    driver: FakeDriver,
    tmp_path: Path,
) -> None:
    driver.name, driver.capability = name, capability
    done = run("calibrate", *arguments, "-o", tmp_path / "gpu.yaml", "--json")
    assert (done.exit_code, done.codes) == (exit_code, codes)
    assert machine.launched == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fact", "value"), [("launch_seconds", -1e-6), ("integer_cycles", 0.1), ("sustained_hertz", 5e12)]
)
def test_a_measurement_that_cannot_be_writes_nothing(
    fact: str, value: float, machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "h200.yaml"
    path.write_text("old")
    machine.truth[fact] = value
    done = run("calibrate", "-o", path, "--json")
    assert (done.exit_code, done.codes) == (4, ["VQ0409"])
    assert fact in done.json["diagnostics"][0]["message"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("call", ["module_from_buffer", "launch", "mem_alloc"])
def test_the_drivers_errors_are_diagnostics(call: str, machine: Machine, driver: FakeDriver) -> None:
    driver.failing.add(call)
    done = run("calibrate", "--json")
    assert (done.exit_code, done.codes) == (5, ["VQ0807"])
    assert driver.contexts == 0


def test_an_output_that_is_no_file_is_refused_first(
    machine: Machine, driver: FakeDriver, tmp_path: Path
) -> None:
    done = run("calibrate", "-o", tmp_path, "--json")
    assert done.exit_code == 1
    assert [each["code"] for each in json.loads(done.stdout)["diagnostics"]] == ["VQ0712"]
    assert driver.calls == []
