"""`vqcc profile`: reports, profiles, plots, sharded input, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import run
from sharded import split_file

from vqcc.algorithms import presets
from vqcc.hotness import load_profile
from vqcc.tensors import container

if TYPE_CHECKING:
    from pathlib import Path

PRESETS = {"a": "vq-4-4-2", "b": "gptvq-2", "c": "quip-4"}


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "vq.safetensors"
    made = [presets.resolve(preset).random_tensor(rng, name, 40, 64) for name, preset in PRESETS.items()]
    container.save(path, made)
    return path


def test_reports_every_tensor(tensors: Path) -> None:
    done = run("profile", tensors)
    assert (done.exit_code, done.stderr) == (0, "")
    heads = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == [
        "a [40, 64] VQ<4,4,2>",
        "b [40, 64] VQ<4,8,1>",
        "c [40, 64] VQ<8,16,2>",
    ]
    assert done.stdout.isascii()


def test_writes_a_profile(tensors: Path, tmp_path: Path) -> None:
    path = tmp_path / "hotness.json"
    done = run("profile", tensors, "-o", path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{path}: written, {path.stat().st_size:,} bytes\n")
    profile = load_profile(path)
    for found, tensor in zip(profile.tensors, container.load_all(tensors), strict=True):
        assert (found.name, found.algorithm, found.shape) == (tensor.name, tensor.algorithm, tensor.shape)
        assert found.codes_sha256 == hashlib.sha256(tensor.codes.tobytes()).hexdigest()
        assert found.counts.sum() == tensor.codes.size


def test_the_same_codes_give_the_same_profile(tensors: Path, tmp_path: Path) -> None:
    for name in "xy":
        assert run("profile", tensors, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_json(tensors: Path, tmp_path: Path) -> None:
    path = tmp_path / "hotness.json"
    done = run("profile", tensors, "-o", path, "--tensor", "c", "--tensor", "a", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert list(done.json) == ["output", "sha256", "plot", "tensors"]
    assert done.json["sha256"] == load_profile(path).sha256
    assert [tensor["tensor"] for tensor in done.json["tensors"]] == ["a", "c"]
    first = done.json["tensors"][0]
    statistics = load_profile(path).tensors[0].statistics()
    assert (first["hot"], first["cold"], first["mean"]) == (statistics.hot, statistics.cold, statistics.mean)
    assert (first["codes"], first["tables"], first["entries"]) == (2 * 40 * 16, 2, 16)
    assert set(first["consistency"]) == {"parts", "hottest", "overlap", "kept", "correlation"}


def test_part_rows(tensors: Path) -> None:
    for rows, parts in ((1, 80), (7, 12), (40, None), (1000, None)):
        (found,) = run("profile", tensors, "--tensor", "a", "--part-rows", rows, "--json").json["tensors"]
        assert found["part_rows"] == min(rows, 40)
        assert (found["consistency"] or {"parts": None})["parts"] == parts


@pytest.mark.parametrize("name", ["plot.svg", "plot.png"])
def test_plots(tensors: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    done = run("profile", tensors, "--plot", path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{path}: written" in done.stdout
    assert path.read_bytes()[:5] in {b"<?xml", b"\x89PNG\r"}


def test_sharded_input_is_the_same_as_one_file(tensors: Path, tmp_path: Path) -> None:
    index = split_file(tensors, tmp_path / "sharded", 3)
    outputs = []
    for source in (tensors, index, index.parent):
        outputs.append(tmp_path / f"profile-{len(outputs)}.json")
        assert run("profile", source, "-o", outputs[-1]).exit_code == 0
    assert len({output.read_bytes() for output in outputs}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["missing.safetensors"], "VQ0501", ""),
        (["."], "VQ0535", "name a file"),
        (["vq.safetensors", "--tensor", "d", "--tensor", "e"], "VQ0514", "VQ tensors of this file: a, b, c"),
        (["vq.safetensors", "-o", "missing/hotness.json"], "VQ0527", ""),
        (["vq.safetensors", "--plot", "plot.pdf"], "VQ0542", "name the plot so, as plot.svg"),
        (["vq.safetensors", "--plot", "missing/plot.svg"], "VQ0527", ""),
    ],
)
def test_what_cannot_be_profiled(
    arguments: list[str], code: str, hint: str, tensors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tensors.parent)
    done = run("profile", *arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert f"error[{code}]" in done.stderr
    assert hint in done.stderr
    assert list(tensors.parent.iterdir()) == [tensors]


def test_wrong_codes_are_named_in_every_tensor_and_nothing_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [presets.resolve("vq-4-4-1").random_tensor(rng, name, 8, 32) for name in "abc"]
    for tensor in (made[0], made[2]):
        tensor.codes[0, 3, 5] = 77
    path, output = tmp_path / "vq.safetensors", tmp_path / "hotness.json"
    container.save(path, made)
    done = run("profile", path, "-o", output, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0521", "VQ0521"])
    messages = [item["message"] for item in done.json["diagnostics"]]
    assert [f"{path}: {name}.codes[0, 3, 5] is 77" in text for name, text in zip("ac", messages, strict=True)]
    assert not output.exists()


def test_usage() -> None:
    assert run("profile").exit_code == 2
    assert run("profile", "x", "--part-rows", "0").exit_code == 2
    assert "sharded" in run("profile", "--help").stdout


def test_weights_are_no_vq_tensors(weights: Path) -> None:
    done = run("profile", weights)
    assert (done.exit_code, "error[VQ0511]" in done.stderr) == (1, True)


def test_old_profile_stays_when_the_new_one_fails(tensors: Path, tmp_path: Path) -> None:
    output = tmp_path / "hotness.json"
    output.write_text("old")
    data = bytearray(tensors.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    begin, _ = header["a.codes"]["data_offsets"]
    data[8 + int.from_bytes(data[:8], "little") + begin] = 255
    tensors.write_bytes(data)
    assert run("profile", tensors, "-o", output).exit_code == 1
    assert output.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted([output, tensors])
