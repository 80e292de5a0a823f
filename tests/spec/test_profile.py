"""The profile that a spec names: found beside it, checked in full, and of the spec's own weights."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from libraries import make_profile, spec_text

from vqcc.diagnostics import VqccError
from vqcc.spec.load import load_spec, parse_spec


def write_spec(directory: Path, **options: object) -> Path:
    path = directory / "spec.yaml"
    path.write_text(spec_text("vq-4-4-1", n=32, k=64, **{"profile": "hotness.json", **options}))
    return path


def refusal(path: Path) -> list[tuple[str, str]]:
    """Codes of what is wrong with a spec, and what each is shown at."""
    with pytest.raises(VqccError) as caught:
        load_spec(path)
    lines = path.read_text().splitlines()
    return [
        (item.code, lines[item.span.line - 1][item.span.column - 1 : item.span.end_column - 1])
        for item in caught.value.diagnostics
    ]


def test_it_lies_beside_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    hashes = make_profile(tmp_path / "hotness.json", "vq-4-4-1", (32, 64))
    profile = load_spec(write_spec(tmp_path)).profile
    assert profile is not None
    assert profile.file == "hotness.json"
    assert profile.sha256 == hashlib.sha256((tmp_path / "hotness.json").read_bytes()).hexdigest()
    assert tuple(tensor.codes_sha256 for tensor in profile.tensors) == hashes
    relative = load_spec(Path("../spec.yaml")).profile
    assert relative is not None
    assert relative.sha256 == profile.sha256


@pytest.mark.parametrize("name", ["../hotness.json", "ABSOLUTE"])
def test_other_places(name: str, tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    make_profile(tmp_path / "hotness.json", "vq-4-4-1", (32, 64))
    name = str(tmp_path / "hotness.json") if name == "ABSOLUTE" else name
    assert load_spec(write_spec(tmp_path / "specs", profile=name)).profile is not None


def test_only_tensors_of_the_spec_count(tmp_path: Path) -> None:
    hashes = make_profile(tmp_path / "hotness.json", "vq-4-4-1", (32, 64), (33, 64), (32, 64), (32, 128))
    profile = load_spec(write_spec(tmp_path)).profile
    assert profile is not None
    assert [tensor.name for tensor in profile.tensors] == ["w0", "w2"]
    assert [tensor.codes_sha256 for tensor in profile.tensors] == [hashes[0], hashes[2]]


def test_without_one(tmp_path: Path) -> None:
    assert load_spec(write_spec(tmp_path, profile=None)).profile is None


@pytest.mark.parametrize(("algorithm", "shape"), [("vq-4-4-1", (32, 65 * 4)), ("vq-4-3-1", (32, 64))])
def test_one_of_other_weights(algorithm: str, shape: tuple[int, int], tmp_path: Path) -> None:
    make_profile(tmp_path / "hotness.json", algorithm, shape)
    path = write_spec(tmp_path)
    assert refusal(path) == [("VQ0316", '"hotness.json"')]
    with pytest.raises(VqccError) as caught:
        load_spec(path)
    (item,) = caught.value.diagnostics
    assert "VQ<4,4,1> [32, 64]" in item.message
    assert item.help is not None
    assert str(list(shape)) in item.help


def test_long_lists_of_other_weights_are_cut(tmp_path: Path) -> None:
    make_profile(tmp_path / "hotness.json", "vq-4-4-1", *[(n, 64) for n in range(33, 73)])
    with pytest.raises(VqccError) as caught:
        load_spec(write_spec(tmp_path))
    (item,) = caught.value.diagnostics
    assert item.help is not None
    assert len(item.help) < 200


def test_what_cannot_be_read_is_shown_at_the_name(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    assert refusal(path) == [("VQ0536", '"hotness.json"')]
    (tmp_path / "hotness.json").mkdir()
    assert refusal(path) == [("VQ0536", '"hotness.json"')]
    for name in ("x" * 2000, "\u00e9/a", "", "a/../../b"):
        ((code, _),) = refusal(write_spec(tmp_path, profile=name))
        assert code == "VQ0536"


def test_devices_and_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hotness.json")
    assert refusal(write_spec(tmp_path)) == [("VQ0536", '"hotness.json"')]
    assert refusal(write_spec(tmp_path, profile="/dev/zero")) == [("VQ0536", '"/dev/zero"')]


@pytest.mark.parametrize(
    ("text", "code"), [("", "VQ0537"), ("{}", "VQ0537"), ('{"vqcc_profile": 99}', "VQ0538")]
)
def test_what_is_no_profile(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "hotness.json").write_text(text)
    assert refusal(write_spec(tmp_path)) == [(code, '"hotness.json"')]


def test_it_is_checked_though_the_rest_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "hotness.json").write_text("{}")
    path = write_spec(tmp_path, gpu="h20")
    path.write_text(path.read_text().replace('"n": 32', '"n": 0'))
    assert [code for code, _ in refusal(path)] == ["VQ0204", "VQ0401", "VQ0537"]
    make_profile(tmp_path / "hotness.json", "vq-4-4-1", (7, 64))
    assert [code for code, _ in refusal(path)] == ["VQ0204", "VQ0401"], "nothing to compare it with"


def test_a_spec_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its profile is beside the path that diagnostics show."""
    make_profile(tmp_path / "hotness.json", "vq-4-4-1", (32, 64))
    data = write_spec(tmp_path).read_bytes()
    assert parse_spec(data, str(tmp_path / "none.yaml")).profile is not None
    monkeypatch.chdir(tmp_path)
    assert parse_spec(data, "none.yaml").profile is not None
