"""Files of packed weights: written for a library, read back for it, refused for any other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import build_fake
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vqcc.building import write_library
from vqcc.diagnostics import VqccError
from vqcc.library import Library, load_library
from vqcc.tensors.packed_file import METADATA_KEY, load_packed, save_packed
from vqcc.tensors.packing import pack_tensor

if TYPE_CHECKING:
    from pathlib import Path

N, K = 24, 64
INT8 = {
    "family": "kmeans",
    "vector_size": 4,
    "entries": 16,
    "residuals": 2,
    "scope": {"rows": 16, "cols": 32},
    "scales": {"group": 32},
    "codebook_dtype": "int8",
}


def make(tmp_path: Path, algorithm: Any, **options: Any) -> Library:
    directory = tmp_path / f"library-{len(list(tmp_path.iterdir()))}"
    write_library(build_fake(algorithm, **{"n": N, "k": K, **options}), directory)
    return load_library(directory)


def pack(path: Path, library: Library, *names: str) -> dict[str, dict[str, Any]]:
    """Random weights, packed and written; their arrays."""
    rng = np.random.default_rng(0)
    tensors = [library.algorithm.random_tensor(rng, name, N, K) for name in names]
    packed = [(tensor, pack_tensor(tensor, library.layout)) for tensor in tensors]
    save_packed(path, library, packed)
    return {tensor.name: parts.arrays() for tensor, parts in packed}


def refusal(path: Path, library: Library) -> list[tuple[str, str]]:
    with pytest.raises(VqccError) as caught:
        load_packed(path, library)
    return [(item.code, item.message) for item in caught.value.diagnostics]


@pytest.mark.parametrize("algorithm", ["vq-4-4-1", "gptvq-2", "quip-4", INT8], ids=str)
def test_what_was_packed_is_read(algorithm: Any, tmp_path: Path) -> None:
    library = make(tmp_path, algorithm)
    written = pack(tmp_path / "packed", library, "a", "b.weight")
    found = load_packed(tmp_path / "packed", library)
    assert set(found) == {"a", "b.weight"}
    for name, arrays in written.items():
        assert set(found[name]) == set(arrays)
        for part, array in arrays.items():
            assert found[name][part].dtype == array.dtype
            assert np.array_equal(found[name][part], array)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    library, other = make(tmp_path, "vq-4-4-1"), make(tmp_path, "vq-4-3-1")
    pack(tmp_path / "packed", library, "a", "b")
    found = refusal(tmp_path / "packed", other)
    assert [code for code, _ in found] == ["VQ0531", "VQ0531"]
    assert f"'{library.layout_id}'" in found[0][1]
    assert other.layout_id in found[0][1]


def test_a_library_for_other_m_and_gpus_reads_the_same_file(tmp_path: Path) -> None:
    library = make(tmp_path, "vq-4-4-1", m=1, gpu="h200")
    other = make(tmp_path, "vq-4-4-1", m=[4, 16], gpu=["a40", "b200"], level="gc", dtype="bfloat16", name="x")
    pack(tmp_path / "packed", library, "a")
    assert set(load_packed(tmp_path / "packed", other)) == {"a"}


def damaged(path: Path, arrays: dict[str, Any] | None = None, metadata: Any = None) -> None:
    """Write the file again with some arrays replaced (None: removed), or with other metadata."""
    with safe_open(path, "np") as file:
        kept = file.metadata()
    content = {**load_file(path), **(arrays or {})}
    text = json.dumps(metadata) if metadata is not None else kept[METADATA_KEY]
    present = {name: array for name, array in content.items() if array is not None}
    save_file(present, path, {METADATA_KEY: text})


@pytest.mark.parametrize("metadata", [[], 3, {"a": 3}, {"a": {}}, {"a": None}, "text", {"a": []}])
def test_metadata_that_is_none(metadata: Any, tmp_path: Path) -> None:
    library = make(tmp_path, "vq-4-4-1")
    pack(tmp_path / "packed", library, "a")
    damaged(tmp_path / "packed", metadata=metadata)
    found = refusal(tmp_path / "packed", library)
    assert [code for code, _ in found] in (["VQ0530"], ["VQ0531"])


def test_a_file_without_metadata(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, dtype=np.float32)}, tmp_path / "plain")
    found = refusal(tmp_path / "plain", make(tmp_path, "vq-4-4-1"))
    assert [code for code, _ in found] == ["VQ0530"]


def test_every_wrong_part_is_named(tmp_path: Path) -> None:
    library = make(tmp_path, INT8)
    pack(tmp_path / "packed", library, "a")
    held = load_file(tmp_path / "packed")
    damaged(
        tmp_path / "packed",
        {
            "a.codes": held["a.codes"][:-1].copy(),
            "a.books": held["a.books"].astype(np.int8),
            "a.stage_scales": None,
            "a.scales": held["a.scales"].astype(np.float32),
        },
    )
    found = refusal(tmp_path / "packed", library)
    assert [code for code, _ in found] == ["VQ0530"] * 4
    for part, (_, message) in zip(("codes", "books", "stage_scales", "scales"), found, strict=True):
        assert f"a.{part}" in message
    assert "uint32 [23, " in found[0][1]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert [code for code, _ in refusal(tmp_path / "none", make(tmp_path, "vq-4-4-1"))] == ["VQ0501"]


def test_two_of_one_name_are_not_written(tmp_path: Path) -> None:
    library = make(tmp_path, "vq-4-4-1")
    with pytest.raises(VqccError) as caught:
        pack(tmp_path / "packed", library, "a", "a")
    assert caught.value.diagnostics[0].code == "VQ0529"
    assert not (tmp_path / "packed").exists()
