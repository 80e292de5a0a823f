"""Sharded files with an index: read as one file is; a wrong index or shard is refused, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sharded import read_index, split_file, write_index

from vqcc.algorithms import presets
from vqcc.diagnostics import VqccError
from vqcc.hotness import profile_tensor
from vqcc.tensors import container, shards
from vqcc.tensors.header import TensorFile, release_pages

PRESETS = {"a.weight": "aqlm-2x8", "b": "vq-4-4-2", "c": "quip-4"}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = [presets.resolve(preset).random_tensor(rng, name, 16, 64) for name, preset in PRESETS.items()]
    path = tmp_path / "single.safetensors"
    container.save(path, tensors)
    return path


@pytest.fixture
def index(single: Path, tmp_path: Path) -> Path:
    return split_file(single, tmp_path / "sharded", 3)


def refused(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(VqccError) as caught:
        container.load_all(path)
    assert caught.value.exit_code == 1
    return [(item.code, f"{item.message} | {item.help}") for item in caught.value.diagnostics]


@pytest.mark.parametrize("metadata_in", ["shards", "first", "index"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_are_read_as_one_file_is(single: Path, tmp_path: Path, count: int, metadata_in: str) -> None:
    index = split_file(single, tmp_path / "sharded", count, metadata_in=metadata_in)
    expected = container.load_all(single)
    for path in (index, index.parent):
        found = container.load_all(path)
        assert [tensor.name for tensor in found] == list(PRESETS)
        for one, other in zip(found, expected, strict=True):
            assert one.algorithm == other.algorithm
            for (part, array), (name, wanted) in zip(one.arrays(), other.arrays(), strict=True):
                assert part == name
                assert np.array_equal(array, wanted)
            assert profile_tensor(one).codes_sha256 == profile_tensor(other).codes_sha256
        assert np.array_equal(container.load(path, "c").decode(), container.load(single, "c").decode())


def test_plain_weights_may_be_sharded(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: np.full((2, 4), ord(name), np.float32)}, tmp_path / f"{name}.safetensors")
    index = write_index(tmp_path, {name: f"{name}.safetensors" for name in "ab"}, {})
    assert container.load_weights(index, "b")[0, 0] == ord("b")


def test_views_outlive_the_files(index: Path) -> None:
    tensors = container.load_all(index)
    wanted = [tensor.decode() for tensor in tensors]
    for file in index.parent.iterdir():
        file.unlink()
    for tensor, weights in zip(tensors, wanted, strict=True):
        for _, array in tensor.arrays():
            release_pages(array)
        assert np.array_equal(tensor.decode(), weights)


def test_one_file_descriptor_a_file(single: Path) -> None:
    """Many tensors stay open at a time: each mapping holds a descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    tensors = container.load_all(single)
    assert sum(1 for tensor in tensors for _ in tensor.arrays()) > 5
    assert len(list(Path("/proc/self/fd").iterdir())) - before == 1


def test_tensors_that_the_index_leaves_out_are_not_there(index: Path) -> None:
    places = read_index(index)
    del places["b.codes"]
    write_index(index.parent, places, {})
    ((code, message),) = refused(index)
    assert code == "VQ0517"
    assert "no b.codes" in message


def test_everything_wrong_with_shards_is_reported(index: Path) -> None:
    places = read_index(index)
    first, second, third = sorted(set(places.values()))
    directory = index.parent
    (directory / first).unlink()
    (directory / second).write_bytes(b"none")
    arrays = load_file(directory / third)
    gone = sorted(arrays)[0]
    del arrays[gone]
    save_file(arrays, directory / third)
    found = refused(index)
    assert [code for code, _ in found] == ["VQ0533", "VQ0502", "VQ0533"]
    assert first in found[0][1]
    assert second in found[1][1]
    assert f"'{third}' that it does not hold: {gone}" in found[2][1]


def test_a_tensor_in_two_shards(index: Path) -> None:
    places = read_index(index)
    first, second, _ = sorted(set(places.values()))
    both = load_file(index.parent / first) | load_file(index.parent / second)
    save_file(both, index.parent / second)
    ((code, message),) = refused(index)
    assert code == "VQ0534"
    assert f"'{first}' and '{second}' both hold " in message
    assert all(name in message for name, place in places.items() if place == first)


def test_shards_that_describe_a_tensor_differently(single: Path, tmp_path: Path) -> None:
    index = split_file(single, tmp_path / "sharded", 2)
    shard = index.parent / "model-00002-of-00002.safetensors"
    with TensorFile(shard) as file:
        described = json.loads(file.header.metadata["vqcc.algorithm"])
    described["b"]["shape"] = [32, 64]
    save_file(load_file(shard), shard, metadata={"vqcc.algorithm": json.dumps(described)})
    ((code, message),) = refused(index)
    assert code == "VQ0512"
    assert f"{shard}: metadata describes 'b' otherwise" in message


@pytest.mark.parametrize(
    "name",
    [
        "../single.safetensors",
        "/etc/passwd.safetensors",
        "sub/one.safetensors",
        "..\\one.safetensors",
        "one\0.safetensors",
        "..",
        ".",
        "",
        "model.bin",
        "x" * 300 + ".safetensors",
        None,
        7,
        ["a.safetensors"],
    ],
)
def test_shards_are_plain_names_beside_the_index(index: Path, name: object) -> None:
    write_index(index.parent, {**read_index(index), "d": name}, {})
    ((code, message),) = refused(index)
    assert code == "VQ0532"
    assert "plain" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "'a' stands twice"),
        (b"[]", "not the index"),
        (b"{}", "not the index"),
        (b'{"weight_map": {}}', "not the index"),
        (b'{"weight_map": ["a"]}', "not the index"),
        (b'{"metadata": 3, "weight_map": {"a": "a.safetensors"}}', "not the index"),
    ],
)
def test_what_is_no_index(index: Path, data: bytes, text: str) -> None:
    index.write_bytes(data)
    ((code, message),) = refused(index)
    assert code == "VQ0532"
    assert text in message


def test_an_index_too_large(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MAX_INDEX_BYTES", 10)
    ((code, message),) = refused(index)
    assert (code, "more than 10 bytes" in message) == ("VQ0532", True)


def test_an_index_that_is_not_there(tmp_path: Path) -> None:
    ((code, _),) = refused(tmp_path / "model.safetensors.index.json")
    assert code == "VQ0501"


def test_a_directory_needs_one_index(index: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ((code, message),) = refused(empty)
    assert (code, "no *.index.json" in message) == ("VQ0535", True)
    (index.parent / "other.safetensors.index.json").write_text("{}")
    ((code, message),) = refused(index.parent)
    assert (code, "holds 2 indexes" in message) == ("VQ0535", True)
    assert "name one: " in message


def test_unknown_names_are_all_reported(index: Path) -> None:
    with pytest.raises(VqccError) as caught:
        container.load_all(index, ["c", "d", "e"])
    assert [item.code for item in caught.value.diagnostics] == ["VQ0514", "VQ0514"]
    assert [tensor.name for tensor in container.load_all(index, ["c", "b", "c"])] == ["b", "c"]


def test_codes_may_be_left_to_be_checked_later(single: Path) -> None:
    data = bytearray(single.read_bytes())
    with TensorFile(single) as file:
        data[file.entries["b.codes"].begin + 5] = 200
    single.write_bytes(data)
    assert [code for code, _ in refused(single)] == ["VQ0521"]
    (tensor,) = container.load_all(single, ["b"], check_codes=False)
    with pytest.raises(VqccError) as caught:
        profile_tensor(tensor)
    assert "b.codes[0, 0, 5] is 200" in caught.value.diagnostics[0].message
