"""Whole models: the library of each layer, shared as the model's directory shares it, and what is no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from libraries import FakeToolchain
from model_specs import attention, linear, model_text

import vqcc.torch
from vqcc.codegen.bundle import write_bundle
from vqcc.models import Model, parse_any
from vqcc.models.building import build_model

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.models.building import BuiltModel

    Files = Any

LAYERS = {
    "q": linear(64),
    "k": linear(32),
    "down": linear(40, 64, algorithm="vq-4-4-1"),
    "up": linear(40, 64, algorithm="vq-4-4-1"),
    "attention": attention(),
}


@pytest.fixture(scope="module")
def built() -> BuiltModel:
    model = parse_any(model_text(LAYERS, fuse={"qk": ["q", "k"]}), "small.yaml")
    assert isinstance(model, Model)
    return build_model(model, toolchain=FakeToolchain(), cache=None)


@pytest.fixture(scope="module")
def directory(built: BuiltModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "small"
    write_bundle(directory, built.files, fields=built.fields)
    return directory


def test_layers_have_their_libraries(directory: Path, cache_directory: Path) -> None:
    libraries = vqcc.torch.load_model(directory, rows=1, emulator_cache=cache_directory / "emulator")
    assert list(libraries) == ["qk", "down", "up", "attention"]
    assert {layer: library.name for layer, library in libraries.items()} == {
        "qk": "small-qk", "down": "small-down", "up": "small-down", "attention": "small-attention",
    }  # fmt: skip
    assert libraries["down"] is libraries["up"]
    fused, down = libraries["qk"], libraries["down"]
    assert isinstance(fused, vqcc.torch.LinearLibrary)
    assert isinstance(down, vqcc.torch.LinearLibrary)
    assert isinstance(libraries["attention"], vqcc.torch.AttentionLibrary)
    assert fused.shape == (96, 256)
    y = down.linear(torch.ones(1, 64).half(), vqcc.torch.Weight.empty(down))
    assert torch.equal(y, torch.zeros(1, 40).half())


def test_options_are_for_every_library(directory: Path) -> None:
    libraries = vqcc.torch.load_model(str(directory), overlap=True)
    assert all(library._identity.endswith(".overlap") for library in libraries.values())


def test_rows_bound_every_library_that_has_so_many(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's legal range is that of its library with the most."""
    most = {"qk": 1, "down": 8}

    def most_rows(runtime: Any) -> int:
        return most.get(runtime.library.name.removeprefix("small-"), 0)

    monkeypatch.setattr("vqcc.torch.loading._most_rows", most_rows)
    libraries: dict[str, Any] = dict(vqcc.torch.load_model(directory, rows=8))
    assert [library._rows for library in libraries.values()] == [1, 8, 8, None]
    for rows in (0, 9):
        with pytest.raises(
            ValueError, match=f"^rows is {rows}; launches of model small have 1 to 8 rows of x$"
        ):
            vqcc.torch.load_model(directory, rows=rows)
    most.clear()
    with pytest.raises(ValueError, match="have no rows of x, and model small has no others: leave rows out"):
        vqcc.torch.load_model(directory, rows=1)


def test_a_model_is_no_library_and_a_library_no_model(directory: Path, gate: Files, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"a whole model.*Help: load all with vqcc.torch.load_model\(\), or give one of its folders: qk",
    ):
        vqcc.torch.load(directory)
    with pytest.raises(
        ValueError, match=r"\[VQ0704\] .* is one library, not a whole model.*Help: load it as one library"
    ):
        vqcc.torch.load_model(gate.bundle)
    for nothing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"\[VQ0704\]"):
            vqcc.torch.load_model(nothing)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [({"q": {"library": "gone"}}, "it has no folder gone"), ({"q": {}}, "'library'"), ([], "list")],
)
def test_a_manifest_that_describes_no_model(
    built: BuiltModel, tmp_path: Path, layers: Any, reason: str
) -> None:
    write_bundle(tmp_path / "small", built.files, fields={**built.fields, "layers": layers})
    with pytest.raises(ValueError, match=rf"\[VQ0705\] the manifest of .* describes no model: .*{reason}"):
        vqcc.torch.load_model(tmp_path / "small")
