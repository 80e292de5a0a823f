"""list, schema and doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml
from command import run

from vqcc import doctor, gpus
from vqcc.algorithms import presets
from vqcc.data_files import specs_directory
from vqcc.doctor import Check
from vqcc.levels import LEVELS
from vqcc.ops import OPS

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"algorithms": "preset", "ops": "op", "gpus": "gpu", "levels": "level"}
NAMES = {"algorithms": presets.names(), "ops": tuple(OPS), "gpus": gpus.names(), "levels": LEVELS}


@pytest.mark.parametrize("what", KEYS)
def test_list(what: str) -> None:
    done = run("list", what)
    assert (done.exit_code, done.stderr) == (0, "")
    first = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert first == list(NAMES[what])


@pytest.mark.parametrize("what", KEYS)
def test_list_json(what: str) -> None:
    done = run("list", what, "--json")
    assert (done.exit_code, set(done.json)) == (0, {what})
    assert [row[KEYS[what]] for row in done.json[what]] == list(NAMES[what])
    assert len({tuple(row) for row in done.json[what]}) == 1


def test_list_says_what_a_gpu_is() -> None:
    rows = {row["gpu"]: row for row in run("list", "gpus", "--json").json["gpus"]}
    assert rows["h200"]["target"] == "sm_90"
    assert rows["rtx4090"]["shared_kib_per_block"] == 99
    assert rows["a100"]["sms"] == 108


def test_list_says_what_a_level_does() -> None:
    """Each level of the paper's ablation differs from the one before it."""
    rows = run("list", "levels", "--json").json["levels"]
    assert len({tuple(list(row.values())[1:]) for row in rows}) == len(rows)
    by_name = {row["level"]: row for row in rows}
    assert by_name["gc"]["cached_entries"] == "none"
    assert "registers" not in by_name["o1"]["cached_entries"]
    assert "registers" in by_name["o2"]["cached_entries"]
    assert (by_name["o2"]["split"], by_name["o3"]["split"]) == ("none", "by codebook")
    assert (by_name["o3"]["fusion"], by_name["o4"]["fusion"]) == ("none", "exchange")


@pytest.mark.parametrize("arguments", [["list"], ["list", "gpu"], ["list", "gpus", "h200"]])
def test_list_usage(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Usage: vqcc list" in done.stderr


def test_schema(tmp_path: Path) -> None:
    done = run("schema")
    assert (done.exit_code, done.stderr) == (0, "")
    jsonschema.Draft7Validator.check_schema(done.json)
    validator = jsonschema.Draft7Validator(done.json)
    for path in sorted(specs_directory().glob("*.yaml")):
        validator.validate(yaml.safe_load(path.read_text()))
    assert not validator.is_valid({"vqcc": 2})
    assert run("schema", "-o", tmp_path / "vqcc.schema.json").stdout == ""
    assert (tmp_path / "vqcc.schema.json").read_text() == done.stdout == run("schema", "--json").stdout


def test_a_schema_that_cannot_be_written(tmp_path: Path) -> None:
    done = run("schema", "-o", tmp_path / "no" / "schema.json", "--json")
    assert done.exit_code == 1
    assert len(done.codes) == 1


def test_doctor(tmp_path: Path) -> None:
    done = run("doctor", "--cache-dir", tmp_path / "cache")
    assert (done.exit_code, done.stderr) == (0, "")
    for name in (
        "python",
        "vqcc",
        "numpy",
        "NVRTC",
        "nvcc",
        "C++ compiler",
        "pycuda",
        "GPU",
        "compile cache",
    ):
        assert name in done.stdout
    assert str(tmp_path / "cache") in done.stdout
    assert not (tmp_path / "cache").exists()


def checks(monkeypatch: pytest.MonkeyPatch, *found: Check) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda **_: list(found))


def test_doctor_json(monkeypatch: pytest.MonkeyPatch) -> None:
    checks(monkeypatch, Check("python", "ok", "3.12"), Check("nvcc", "warning", "none", "install it"))
    done = run("doctor", "--json")
    assert done.exit_code == 0
    assert done.json == {
        "checks": [
            {"name": "python", "status": "ok", "detail": "3.12", "help": None},
            {"name": "nvcc", "status": "warning", "detail": "none", "help": "install it"},
        ]
    }


def test_doctor_ends_with_the_toolchains_code_if_something_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks(monkeypatch, Check("python", "ok", "3.12"), Check("NVRTC", "missing", "not found", "pip install"))
    done = run("doctor")
    assert done.exit_code == 3
    assert "MISSING  NVRTC" in done.stdout
    assert "pip install" in done.stdout
    as_json = run("doctor", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["checks"][1]["status"]) == (3, "missing")
