"""`vqcc tune` with a stand-in for the device: what it prints, writes and refuses."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cache_libraries import cache_spec_text
from command import run
from fake_device import FakeBench, FakeDevice, fake_device
from libraries import spec_text

import vqcc.runtime.device
from vqcc.data_files import lock_path
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.tuning.lock import load_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


OPEN_DEVICE = vqcc.runtime.device.open_device


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    return fake_device(monkeypatch)


@dataclass(frozen=True)
class Tiny:
    """A spec of each subject, and its kernels."""

    text: Callable[..., str]
    first: str
    second: str


WEIGHT = Tiny(partial(spec_text, "vq-4-4-1", n=64, k=128, m=[1, 3]), "m1_float16", "m3_float16")
CACHE = Tiny(partial(cache_spec_text, "cq-2", name="tiny", batch=[1, 3]), "b1_float16", "b3_float16")


@pytest.fixture(params=[WEIGHT, CACHE], ids=["weight", "cache"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    found: Tiny = request.param
    return found


@pytest.fixture
def spec(tmp_path: Path, tiny: Tiny) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.text(level="best"))
    return path


def test_candidates_are_told_and_recorded(tiny: Tiny, spec: Path) -> None:
    done = run("tune", spec, "--top", 2)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1/")
    assert "us predicted" in lines[0]
    assert lines[-1] == f"{lock_path(spec)}: {len(lines) - 1} of {len(lines) - 1} candidates timed now"
    lock = load_lock(lock_path(spec))
    assert lock is not None
    assert {kernel.kernel for kernel in lock.kernels} == {tiny.first, tiny.second}
    again = run("tune", spec, "--top", 2, "--json")
    assert {(step["reason"], step["layer"]) for step in again.json["steps"]} == {("known", None)}
    assert again.json["skipped"] == {}
    anew = run("tune", spec, "--top", 2, "--again", "--json")
    assert {step["reason"] for step in anew.json["steps"]} == {""}
    compiled = run("compile", spec, "-o", spec.parent / "out", "--explain")
    assert compiled.exit_code == 0, compiled.stderr
    assert "recorded by `vqcc tune`, on Fake GPU, driver 1" in " ".join(compiled.stdout.split())


@pytest.mark.parametrize(
    "tiny", [WEIGHT, pytest.param(CACHE, marks=pytest.mark.full)], ids=["weight", "cache"]
)
def test_what_a_lock_did_is_told_each_time(tiny: Tiny, spec: Path) -> None:
    """By compile in its summary and as warnings, whether it compiles anew or not, and by explain."""
    out, lock = spec.parent / "out", lock_path(spec)

    def compiled(*options: str) -> Any:
        done = run("compile", spec, "-o", out, *options)
        assert done.exit_code == 0, done.stderr
        return done

    assert ".lock.yaml" not in compiled().stdout
    assert compiled("--json").json["libraries"][0]["lock"] is None
    assert run("tune", spec, "--top", 1).exit_code == 0
    for _ in range(2):
        done = compiled()
        assert f"\n  as measured in tiny.lock.yaml: h200: {tiny.first}, {tiny.second}\n" in done.stdout
        assert done.stderr == ""
    assert "\n  tiny.lock.yaml: no times of a100\n" in compiled("--gpu", "a100").stdout
    lock.write_text(lock.read_text().replace("complete: true", "complete: false"))
    told = (
        f"warning[VQ0318]: {lock}: on h200 the session of {tiny.first} and {tiny.second} was not completed\n"
    )
    for state in ("written", "unchanged"):
        done = compiled()
        assert f": {state}, " in done.stdout
        assert "\n  tiny.lock.yaml: not used\n" in done.stdout
        assert done.stderr.startswith(told)
    library, (warning,) = compiled("--json").json["libraries"][0], compiled("--json").json["diagnostics"]
    assert library["lock"]["file"] == str(lock)
    assert library["lock"]["kernels"] == {}
    assert f"{lock}: {library['lock']['complaints'][0]}" == warning["message"]
    assert run("explain", spec).stderr.startswith(told)
    assert run("explain", spec, "--json").json["diagnostics"] == [warning]


@pytest.mark.parametrize("tiny", [CACHE], ids=["cache"])
def test_what_launches_are_unlike_is_told(tiny: Tiny, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside each time, in the lock file, and where the decision says what was measured."""
    note = "sequences of 64 tokens: longer ones do not fit its free memory"
    monkeypatch.setattr(FakeBench, "note_of_last", note)
    lines = run("tune", spec, "--top", 1).stdout.splitlines()
    assert {line.endswith(f" us predicted ({note})") for line in lines if tiny.second in line} == {True}
    assert not any(note in line for line in lines if tiny.first in line)
    assert f'device: "Fake GPU, driver 1; {note}"\n' in lock_path(spec).read_text()
    assert f"on Fake GPU, driver 1; {note}" in " ".join(run("explain", spec).stdout.split())


def test_an_interruption_keeps_what_was_measured(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBench, "fails_at", 3)
    done = run("tune", spec, "--top", 2)
    assert done.exit_code == 130
    lock = load_lock(lock_path(spec))
    assert lock is not None
    assert sum(len(kernel.measured) for kernel in lock.kernels) == 2
    rest = run("tune", spec, "--top", 2, "--json")
    assert [step["reason"] for step in rest.json["steps"]].count("known") == 2


@pytest.mark.parametrize("tiny", [WEIGHT], ids=["weight"])
def test_another_device_is_refused(spec: Path, device: FakeDevice) -> None:
    for other in (
        FakeDevice("NVIDIA L40S", 142, "sm_89"),
        FakeDevice("NVIDIA H200 NVL", 114),
        FakeDevice("NVIDIA H100 80GB HBM3"),
    ):
        device.__dict__.update(other.__dict__)
        done = run("tune", spec, "--json")
        assert (done.exit_code, done.codes) == (int(ExitCode.NO_DEVICE), ["VQ0805"])
        assert not lock_path(spec).exists()
    device.__dict__.update(FakeDevice("NVIDIA L40S", 142, "sm_89").__dict__)
    named = run("tune", spec, "--gpu", "rtx4090", "--top", 1, "--json")
    assert named.exit_code == 0, named.stdout
    assert named.json["gpu"] == "rtx4090"


def test_of_the_specs_gpus_the_one_that_the_device_is(tmp_path: Path, device: FakeDevice) -> None:
    """Not the first of its target."""
    path = tmp_path / "tiny.yaml"
    path.write_text(spec_text("vq-4-4-1", n=64, k=128, level="best", gpu=["h100", "h200"]))
    assert run("tune", path, "--top", 1, "--json").json["gpu"] == "h200"
    device.name = "NVIDIA H100 80GB HBM3"
    assert run("tune", path, "--top", 1, "--json").json["gpu"] == "h100"
    lock = load_lock(lock_path(path))
    assert lock is not None
    assert {kernel.gpu for kernel in lock.kernels} == {"h100", "h200"}


def test_a_level_of_the_paper_and_a_wrong_lock_are_refused(tiny: Tiny, spec: Path) -> None:
    lock_path(spec).write_text("vqcc_lock: 7\n")
    assert run("tune", spec, "--json").codes == ["VQ0213"]
    spec.write_text(tiny.text(level="o2"))
    lock_path(spec).unlink()
    assert run("tune", spec, "--json").codes == ["VQ0317"]
    assert not lock_path(spec).exists()


def test_a_level_of_the_paper_needs_no_device_to_be_refused(
    tiny: Tiny, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vqcc.runtime.device, "open_device", OPEN_DEVICE)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert run("tune", spec, "--json").codes == ["VQ0806"]
    assert "without them the model chooses" in run("tune", spec).stderr
    spec.write_text(tiny.text(level="o2"))
    assert run("tune", spec, "--json").codes == ["VQ0317"]


@pytest.mark.parametrize("tiny", [WEIGHT], ids=["weight"])
def test_without_a_device_nothing_is_written(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> Any:
        raise VqccError(Diagnostic("VQ0806", "no device"), exit_code=ExitCode.NO_DEVICE)

    monkeypatch.setattr(vqcc.runtime.device, "open_device", none)
    done = run("tune", spec, "--json")
    assert (done.exit_code, done.codes) == (5, ["VQ0806"])
    assert not lock_path(spec).exists()
