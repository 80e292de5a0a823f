"""Packed files: what is written is read, and a file for anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import FakeToolchain, spec_text

from vqcc.building import build_library, write_library
from vqcc.code_layouts import layout_mapping
from vqcc.diagnostics import VqccError
from vqcc.library import load_library
from vqcc.spec.load import parse_spec
from vqcc.tensors.container import write_safetensors
from vqcc.tensors.packed_file import METADATA_KEY, check_order, load_packed, save_packed
from vqcc.tensors.packing import pack_tensor

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.library import Library

INT8 = {
    "family": "kmeans",
    "vector_size": 4,
    "entries": 16,
    "residuals": 2,
    "codebook_dtype": "int8",
    "scales": {"group": 32},
}


def library_of(directory: Path, algorithm: Any, **options: Any) -> Library:
    spec = parse_spec(spec_text(algorithm, **options).encode(), "spec")
    built = build_library(spec, toolchain=FakeToolchain(), cache=None)
    write_library(built, directory / built.name)
    return load_library(directory / built.name)


@pytest.fixture(params=["aqlm-2x8", "quip-2", INT8], ids=["aqlm-2x8", "quip-2", "int8"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Library:
    return library_of(tmp_path, request.param)


def saved(library: Library, path: Path) -> dict[str, Any]:
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", *library.op.weight_shape)
    packed = pack_tensor(tensor, library.layout)
    save_packed(path, library, [(tensor, packed)])
    return packed.arrays()


def rewritten(path: Path, arrays: dict[str, Any], description: Any) -> None:
    write_safetensors(
        path, {f"w.{part}": array for part, array in arrays.items()}, {METADATA_KEY: description}
    )


def described(library: Library, **other: object) -> str:
    """What a file says of the tensor w, packed for `library`, but for `other`."""
    fields = {
        "algorithm": library.algorithm.mapping(),
        "layout": layout_mapping(library.layout),
        "layout_id": library.layout_id,
        "order": "identity",
        "shape": list(library.op.weight_shape),
    }
    return json.dumps({"w": {**fields, **other}})


def refused(path: Path, library: Library, code: str) -> str:
    with pytest.raises(VqccError) as caught:
        load_packed(path, library)
    assert [item.code for item in caught.value.diagnostics] == [code]
    return caught.value.diagnostics[0].message


def test_what_is_written_is_read(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    arrays = saved(library, path)
    read = load_packed(path, library)["w"]
    assert read.keys() == arrays.keys()
    for part, array in arrays.items():
        np.testing.assert_array_equal(read[part], array)


def test_weights_of_another_layout_are_refused(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    saved(library, path)
    other = library_of(tmp_path, "vq-8-8-2", name="other", n=65)
    assert other.layout_id in refused(path, other, "VQ0531")


NESTED = '{"w": ' + "[" * 100_000


@pytest.mark.parametrize("description", ["", "null", "[]", "{", '{"w": {}}', '{"w": 3}', NESTED])
def test_a_file_that_is_not_packed_is_refused(description: str, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    rewritten(path, saved(library, path), description)
    assert "holds no packed weights" in refused(path, library, "VQ0530")


def test_a_missing_part_is_named(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    arrays = saved(library, path)
    del arrays["books"]
    rewritten(path, arrays, described(library))
    assert "no w.books" in refused(path, library, "VQ0530")


def test_a_part_of_the_wrong_shape_is_named(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    arrays = saved(library, path)
    arrays["codes"] = arrays["codes"][:-1]
    rewritten(path, arrays, described(library))
    assert "w.codes is uint32" in refused(path, library, "VQ0530")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("algorithm", {"family": "e8p"}),
        ("algorithm", None),
        ("layout", {"kind": "chunked"}),
        ("shape", [1, 2]),
        ("shape", "64 x 256"),
    ],
)
def test_a_description_is_held_against_its_id(
    field: str, value: object, library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "packed.safetensors"
    rewritten(path, saved(library, path), described(library, **{field: value}))
    assert f"'w' has another {field} than its layout_id stands for" in refused(path, library, "VQ0530")


def test_a_tensor_that_is_described_twice_is_refused(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    own = described(library)
    rewritten(path, saved(library, path), f"{own[:-1]}, {own[1:]}")
    assert "holds no packed weights" in refused(path, library, "VQ0530")


@pytest.mark.parametrize("order", ["alphabet", None, 3, []])
def test_an_order_that_is_none_is_refused(order: object, library: Library, tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    arrays = saved(library, path)
    rewritten(path, arrays, described(library, order=order))
    assert f"in an order {order!r}" in refused(path, library, "VQ0530")


def test_another_order_than_the_librarys_is_a_warning(library: Library, tmp_path: Path) -> None:
    """Only where kernels look for hot entries: a library without a profile has none."""
    plain, ordered = tmp_path / "plain", tmp_path / "ordered"
    profiled = replace(library, profile_codes=("0" * 64,))
    saved(library, plain)
    saved(profiled, ordered)
    assert (
        check_order(plain, library) == check_order(ordered, library) == check_order(ordered, profiled) == ()
    )
    (found,) = check_order(plain, profiled)
    assert (found.code, found.severity) == ("VQ0544", "warning")
    assert f"{plain}: the entries of 'w' are in the order 'identity'" in found.message
    assert load_packed(plain, profiled).keys() == {"w"}


def test_two_tensors_of_one_name_are_refused(library: Library, tmp_path: Path) -> None:
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", *library.op.weight_shape)
    packed = pack_tensor(tensor, library.layout)
    with pytest.raises(VqccError) as caught:
        save_packed(tmp_path / "packed.safetensors", library, [(tensor, packed), (tensor, packed)])
    assert caught.value.diagnostics[0].code == "VQ0529"
