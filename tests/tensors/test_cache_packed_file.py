"""Files of packed codebooks: what is written is read, and what does not fit a library is refused with its reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cache_libraries import fake_cache_library
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vqcc.diagnostics import VqccError
from vqcc.tensors.cache_packed_file import load_packed_books, save_packed_books
from vqcc.verify.cache_harness import random_sides

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.cache_library import CacheLibrary


def save(library: CacheLibrary, path: Path) -> dict[str, Any]:
    keys, values = random_sides(library, np.random.default_rng(0))
    packed = library.pack(keys, values)
    save_packed_books(path, library, "layer.0", keys, values, packed)
    return packed.arrays()


@pytest.mark.parametrize(
    ("algorithm", "level", "op"),
    [
        ("cq-2", "best", {}),
        ("cq-2", "gc", {"rope": "interleaved"}),
        ("kv-4-8-1", "best", {}),
        ({"key": "cq-4", "value": "kv-4-8-1"}, "best", {"q_heads": 2}),
        ("kv-8-6-2", "o2", {}),
    ],
)
def test_round_trip(tmp_path: Path, algorithm: Any, level: str, op: dict[str, Any]) -> None:
    library = fake_cache_library(tmp_path, algorithm, level=level, **op)
    arrays = save(library, tmp_path / "packed.safetensors")
    (loaded,) = load_packed_books(tmp_path / "packed.safetensors", library).values()
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert ("book_facts" in loaded) == library.by_rows
    assert ("rotations" in loaded) == (library.op.rope != "none")


def test_the_same_books_give_the_same_bytes(tmp_path: Path) -> None:
    library = fake_cache_library(tmp_path)
    for name in ("a", "b"):
        save(library, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", "np") as file:
        (described,) = json.loads(file.metadata()["vqcc.packed"]).items()
    assert described[0] == "layer.0"
    assert described[1]["layout_id"] == library.layout_id
    assert (described[1]["keys"], described[1]["values"]) == ("random keys", "random values")


def test_books_of_another_library(tmp_path: Path) -> None:
    save(fake_cache_library(tmp_path / "one"), tmp_path / "packed")
    with pytest.raises(VqccError) as caught:
        load_packed_books(tmp_path / "packed", fake_cache_library(tmp_path / "two", "cq-4"))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0531"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("algorithm", {"key": {}, "value": {}}),
        ("algorithm", None),
        ("kv_heads", 1),
        ("kv_heads", 2.0),
        ("head_dim", 128),
        ("layout", {"heads": 2}),
        ("by_rows", False),
        ("by_rows", 1),
        ("rope", ["half", 10000.0, 1.0]),
    ],
)
def test_a_description_that_its_id_does_not_stand_for(field: str, value: Any, tmp_path: Path) -> None:
    library = fake_cache_library(tmp_path)
    save(library, tmp_path / "packed")
    with safe_open(tmp_path / "packed", "np") as file:
        described = json.loads(file.metadata()["vqcc.packed"])
    described["layer.0"] |= {field: value}
    save_file(load_file(tmp_path / "packed"), tmp_path / "changed", {"vqcc.packed": json.dumps(described)})
    with pytest.raises(VqccError) as caught:
        load_packed_books(tmp_path / "changed", library)
    (found,) = caught.value.diagnostics
    assert found.code == "VQ0530"
    assert f"another {field} than its layout_id stands for" in found.message


@pytest.mark.parametrize("field", ["algorithm", "kv_heads", "head_dim", "layout", "by_rows", "rope"])
def test_a_description_that_lacks_what_its_id_stands_for(field: str, tmp_path: Path) -> None:
    library = fake_cache_library(tmp_path, rope="half")
    save(library, tmp_path / "packed")
    with safe_open(tmp_path / "packed", "np") as file:
        described = json.loads(file.metadata()["vqcc.packed"])
    del described["layer.0"][field]
    save_file(load_file(tmp_path / "packed"), tmp_path / "changed", {"vqcc.packed": json.dumps(described)})
    with pytest.raises(VqccError, match="VQ0530"):
        load_packed_books(tmp_path / "changed", library)


@pytest.mark.parametrize("change", ["missing", "type", "shape", "metadata", "nested without end"])
def test_a_file_that_was_changed(tmp_path: Path, change: str) -> None:
    library = fake_cache_library(tmp_path)
    save(library, tmp_path / "packed")
    arrays = load_file(tmp_path / "packed")
    with safe_open(tmp_path / "packed", "np") as file:
        metadata = file.metadata()
    if change == "missing":
        del arrays["layer.0.book_facts"]
    elif change == "type":
        arrays["layer.0.book_facts"] = arrays["layer.0.book_facts"].astype(np.float64)
    elif change == "shape":
        arrays["layer.0.key_books"] = arrays["layer.0.key_books"][:, :1, :128]
    else:
        metadata = {"vqcc.packed": "[1]" if change == "metadata" else "[" * 100_000}
    save_file(arrays, tmp_path / "changed", metadata)
    with pytest.raises(VqccError) as caught:
        load_packed_books(tmp_path / "changed", library)
    assert [item.code for item in caught.value.diagnostics] == ["VQ0530"]
