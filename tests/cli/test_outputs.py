"""No command writes over what it reads, or twice over one file."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from command import run
from libraries import spec_text
from sharded import split_file

if TYPE_CHECKING:
    from pathlib import Path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def place(weights: Path, quantized: Path, library: Path) -> Path:
    """A directory with inputs to lose: `w` weights, `q` VQ tensors, `spec.yaml`, a sharded `index`, a library."""
    directory = library.parent
    shutil.copy(weights, directory / "w")
    shutil.copy(quantized, directory / "q")
    (directory / "spec.yaml").write_text(spec_text("vq-4-4-1"))
    (directory / "shards").mkdir()
    split_file(quantized, directory / "shards")
    return directory


@pytest.mark.parametrize(
    ("line", "clash"),
    [
        ("quantize w --tensor w --algorithm vq-4-4-1 -o w", "w is the input w"),
        ("quantize w --tensor w --algorithm spec.yaml -o spec.yaml", "spec.yaml is the input spec.yaml"),
        ("profile q -o q", "q is the input q"),
        ("profile q -o ./a.svg --plot a.svg", "a.svg is another output of this command"),
        ("pack q --library tiny -o q", "q is the input q"),
        ("pack q --library tiny -o tiny/manifest.json", "tiny/manifest.json would lie in the library tiny"),
        ("pack q --library tiny -o tiny/packed", "tiny/packed would lie in the library tiny"),
        ("bench tiny -o tiny/rows.json", "tiny/rows.json would lie in the library tiny"),
    ],
)
def test_outputs_that_are_inputs_are_refused(
    line: str, clash: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = contents(place)
    done = run(*line.split(), "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0711"])
    assert done.json["diagnostics"][0]["message"] == clash
    assert "name another output" in done.json["diagnostics"][0]["help"]
    assert contents(place) == before


def test_an_output_may_have_the_name_of_a_preset(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no file that is read."""
    monkeypatch.chdir(place)
    done = run("quantize", "w", "--tensor", "w", "--algorithm", "vq-4-4-1", "-o", "vq-4-4-1")
    assert done.exit_code == 0
    assert (place / "vq-4-4-1").read_bytes() == (place / "q").read_bytes()


def test_the_shards_of_an_index_are_inputs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "shards")
    before = contents(place)
    for given in (".", *(path.name for path in place.joinpath("shards").glob("*.json"))):
        for name in contents(place / "shards"):
            done = run("profile", given, "-o", name, "--json")
            assert (done.exit_code, done.codes) == (1, ["VQ0711"]), (given, name)
    assert contents(place) == before
