"""The functions that commands are made of, as a program calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from libraries import build_fake, spec_text
from safetensors.numpy import load_file, save_file

from vqcc import api
from vqcc.algorithms.presets import resolve
from vqcc.diagnostics import VqccError
from vqcc.tensors.container import load, save


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({"w": np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)}, path)
    return path


def test_everything_it_offers_is_there() -> None:
    assert all(callable(getattr(api, name)) for name in api.__all__)


def test_algorithms_by_name_and_by_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert api.algorithm_named("aqlm-2x8") == resolve("aqlm-2x8")
    Path("mine.yml").write_text(spec_text("gptvq-2"))
    assert api.algorithm_named("mine.yml") == resolve("gptvq-2")
    # A preset's name stays a preset's, unless there is a file of that name.
    Path("quip-2").write_text(spec_text("gptvq-4"))
    assert api.algorithm_named("quip-2") == resolve("gptvq-4")
    for text, code in (("aqlm", "VQ0301"), ("missing.yaml", "VQ0101")):
        with pytest.raises(VqccError) as caught:
            api.algorithm_named(text)
        assert caught.value.diagnostics[0].code == code


def test_from_weights_to_packed(weights: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    tensor = api.quantize(
        weights,
        "w",
        "vq-4-4-1",
        tmp_path / "q.safetensors",
        seed=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1]
    loaded = load(tmp_path / "q.safetensors")
    assert np.array_equal(loaded.codes, tensor.codes)
    built = build_fake("vq-4-4-1", n=32, k=64)
    assert api.write_library(built, tmp_path / "tiny")
    packed = api.pack(tmp_path / "q.safetensors", tmp_path / "tiny", tmp_path / "p.safetensors", gpu="h200")
    ((_, parts),) = packed
    stored = load_file(tmp_path / "p.safetensors")
    assert {name.removeprefix("w.") for name in stored} == set(parts.arrays())
    for name, array in parts.arrays().items():
        assert np.array_equal(stored[f"w.{name}"], array)


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    algorithm = resolve("vq-4-4-1")
    tensors = [
        algorithm.random_tensor(rng, "good", 32, 64),
        algorithm.random_tensor(rng, "long", 33, 64),
        resolve("vq-4-3-1").random_tensor(rng, "other", 32, 64),
    ]
    save(tmp_path / "q.safetensors", tensors)
    api.write_library(build_fake("vq-4-4-1", n=32, k=64), tmp_path / "tiny")
    with pytest.raises(VqccError) as caught:
        api.pack(tmp_path / "q.safetensors", tmp_path / "tiny", tmp_path / "p.safetensors")
    messages = [item.message for item in caught.value.diagnostics]
    assert [item.code for item in caught.value.diagnostics] == ["VQ0803"] * 2
    assert "'long'" in messages[0]
    assert "'other'" in messages[1]
    assert not (tmp_path / "p.safetensors").exists()
    packed = api.pack(
        tmp_path / "q.safetensors", tmp_path / "tiny", tmp_path / "p.safetensors", names=["good"]
    )
    assert [tensor.name for tensor, _ in packed] == ["good"]


def test_packed_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    api.write_library(build_fake("vq-4-4-1", n=32, k=64), tmp_path / "tiny")
    with pytest.raises(VqccError) as caught:
        api.pack(tmp_path / "none", tmp_path / "tiny", tmp_path / "p", gpu="a100")
    assert caught.value.diagnostics[0].code == "VQ0805"
