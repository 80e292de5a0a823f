"""VQ tensors in files: names, determinism, atomic replacement, agreement with the safetensors library."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from vqcc.algorithms import presets
from vqcc.diagnostics import VqccError
from vqcc.tensors import container
from vqcc.tensors.vq_tensor import VQTensor, numpy_dtype

if TYPE_CHECKING:
    from pathlib import Path

REAL = "encoder.layer.3.intermediate.dense.weight"


def random_tensor(name: str, preset: str = "vq-4-4-2", seed: int = 0) -> VQTensor:
    return presets.resolve(preset).random_tensor(np.random.default_rng(seed), name, 16, 64)


def code_of(error: pytest.ExceptionInfo[VqccError]) -> str:
    (found,) = error.value.diagnostics
    return found.code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vq.safetensors"


def test_several_tensors_by_name(path: Path) -> None:
    names = {"b.weight": "aqlm-2x8", "a.weight": "quip-4", "c": "gptvq-2"}
    container.save(path, [random_tensor(name, preset) for name, preset in names.items()])
    assert [tensor.name for tensor in container.load_all(path)] == ["a.weight", "b.weight", "c"]
    for name, preset in names.items():
        loaded = container.load(path, name)
        assert loaded.algorithm == presets.resolve(preset)
        assert np.array_equal(loaded.decode(), random_tensor(name, preset).decode())


def test_a_name_is_needed_where_there_are_several(path: Path) -> None:
    container.save(path, [random_tensor("a"), random_tensor("b")])
    with pytest.raises(VqccError) as caught:
        container.load(path)
    assert code_of(caught) == "VQ0515"
    assert caught.value.diagnostics[0].help == "name one: a, b"


def test_order_of_tensors_does_not_change_the_file(path: Path) -> None:
    tensors = [random_tensor(f"t{index}", preset) for index, preset in enumerate(("vq-4-4-2", "quip-2"))]
    container.save(path, tensors)
    first = path.read_bytes()
    container.save(path, tensors[::-1])
    assert path.read_bytes() == first


def test_the_library_reads_what_is_written(path: Path) -> None:
    tensor = replace(random_tensor("layer.weight"), relative_error=0.25)
    container.save(path, [tensor])
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {"layer.weight.codes", "layer.weight.codebooks", "layer.weight.scales"}
        assert np.array_equal(file.get_tensor("layer.weight.codes"), tensor.codes)
        metadata = file.metadata()
    assert list(metadata) == ["vqcc.algorithm"]
    assert json.loads(metadata["vqcc.algorithm"]) == {
        "layer.weight": {
            "algorithm": tensor.algorithm.mapping(),
            "shape": [16, 64],
            "dtype": "float16",
            "relative_error": 0.25,
        }
    }


def test_arrays_of_any_order_are_stored(path: Path) -> None:
    tensor = random_tensor("w")
    assert tensor.codebooks is not None
    container.save(path, [replace(tensor, codebooks=np.asfortranarray(tensor.codebooks))])
    assert np.array_equal(container.load(path).decode(), tensor.decode())


def test_loaded_arrays_are_views_that_cannot_be_written(path: Path) -> None:
    container.save(path, [random_tensor("w")])
    loaded = container.load(path)
    for _, array in loaded.arrays():
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_loaded_arrays_outlive_the_file_name(path: Path) -> None:
    container.save(path, [random_tensor("w", seed=1)])
    loaded = container.load(path)
    container.save(path, [random_tensor("w", seed=2)])
    assert np.array_equal(loaded.decode(), random_tensor("w", seed=1).decode())


def test_tensors_need_not_be_aligned(path: Path) -> None:
    tensor = random_tensor("w", "aqlm-2x8")
    container.save(path, [tensor])
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    header += b" " * (1 - len(header) % 2)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    loaded = container.load(path)
    assert not loaded.part("scales").flags.aligned
    assert np.array_equal(loaded.decode(), tensor.decode())


def test_other_tensors_of_the_file_are_left_alone(path: Path) -> None:
    tensor = random_tensor("w")
    container.save(path, [tensor])
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = {f"w.{part}": array for part, array in tensor.arrays()} | {"w.bias": np.zeros(16, np.float32)}
    save_file(arrays, path, metadata=metadata | {"other": "text"})
    assert container.load(path, "w").shape == (16, 64)


def test_two_tensors_of_one_name(path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        container.save(path, [random_tensor("w"), random_tensor("w")])
    assert code_of(caught) == "VQ0529"
    assert not path.exists()


def test_unknown_name_is_met_with_the_nearest(path: Path) -> None:
    container.save(path, [random_tensor("model.layers.0.up.weight"), random_tensor("other")])
    with pytest.raises(VqccError) as caught:
        container.load(path, "model.layers.0.up.wieght")
    assert code_of(caught) == "VQ0514"
    help_text = caught.value.diagnostics[0].help or ""
    assert "did you mean 'model.layers.0.up.weight'?" in help_text
    assert "VQ tensors of this file: model.layers.0.up.weight, other" in help_text


def test_nothing_is_left_behind_and_the_old_file_stays_when_writing_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.save(path, [random_tensor("old")])
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(VqccError) as caught:
        container.save(path, [random_tensor("new")])
    assert code_of(caught) == "VQ0527"
    assert "No space left" in caught.value.diagnostics[0].message
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        container.save(tmp_path / "missing" / "vq.safetensors", [random_tensor("w")])
    assert code_of(caught) == "VQ0527"


def test_files_have_the_usual_permissions(path: Path) -> None:
    plain = path.with_name("plain")
    plain.touch()
    container.save(path, [random_tensor("w")])
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_of_every_type(path: Path, dtype: str) -> None:
    weights = np.arange(12).reshape(3, 4).astype(numpy_dtype(dtype))
    container.write_safetensors(path, {"w": weights}, {})
    loaded = container.load_weights(path, "w")
    assert loaded.dtype.name == dtype
    assert np.array_equal(loaded.astype(np.float32), weights.astype(np.float32))
    assert not loaded.flags.writeable


def test_the_real_weight(real_weights: Path) -> None:
    weights = container.load_weights(real_weights, REAL)
    assert (weights.shape, weights.dtype.name) == ((1536, 384), "float16")
    assert 0.06 < weights.astype(np.float64).std() < 0.07


@pytest.mark.parametrize(
    ("array", "code", "text"),
    [
        (np.zeros((2, 2), np.float64), "VQ0524", "weights are float16, bfloat16, float32"),
        (np.zeros((2, 2), np.int8), "VQ0524", "is int8"),
        (np.zeros(4, np.float32), "VQ0525", "shape [4]"),
        (np.zeros((1, 2, 3), np.float16), "VQ0525", "shape [1, 2, 3]"),
        (np.zeros((0, 4), np.float16), "VQ0525", "shape [0, 4]"),
    ],
)
def test_weights_that_are_none(path: Path, array: np.ndarray, code: str, text: str) -> None:
    save_file({"w": array}, path)
    with pytest.raises(VqccError) as caught:
        container.load_weights(path, "w")
    assert code_of(caught) == code
    assert text in f"{caught.value.diagnostics[0].message} {caught.value.diagnostics[0].help}"


def test_weights_not_found(path: Path) -> None:
    save_file({f"layer.{index}.weight": np.zeros((2, 2), np.float32) for index in range(30)}, path)
    with pytest.raises(VqccError) as caught:
        container.load_weights(path, "layer.3.weigth")
    assert code_of(caught) == "VQ0514"
    help_text = caught.value.diagnostics[0].help or ""
    assert "did you mean 'layer.3.weight'?" in help_text
    assert "and 10 more" in help_text
