"""Counts of whole tensors against np.bincount tile by tile; hashes, parts, checks and memory."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matrix import random_case

from vqcc.algorithms import from_mapping, presets
from vqcc.diagnostics import VqccError
from vqcc.hotness import codes_sha256, count_codes, counting, profile_tensor

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.tensors.vq_tensor import VQTensor


def expected(tensor: VQTensor) -> np.ndarray:
    """Counts [books, tables, entries] the slow way."""
    algorithm = tensor.algorithm
    tables, entries = algorithm.table_count, algorithm.table_entries
    books = []
    for rows, columns in algorithm.scope.slices(*tensor.shape):
        vectors = slice(columns.start // algorithm.vector_size, columns.stop // algorithm.vector_size)
        looked_up = algorithm.table_rows(tensor.codes[:, rows, vectors])
        books.append([np.bincount(table, minlength=entries) for table in looked_up.reshape(tables, -1)])
    return np.array(books)


def drawn(mapping: Any, n: int, k: int, seed: int = 0) -> VQTensor:
    algorithm = presets.resolve(mapping) if isinstance(mapping, str) else from_mapping(mapping)
    return algorithm.random_tensor(np.random.default_rng(seed), "w", n, k)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([64, 300, 8 << 20]), st.sampled_from([None, 1, 3, 1000]))
def test_counts_are_those_of_bincount(seed: int, window: int, part_rows: int | None) -> None:
    case = random_case(seed)
    assume(
        part_rows is None or case.algorithm.table_entries < 65536
    )  # VQ0543: too many counts for small parts
    tensor = case.algorithm.random_tensor(np.random.default_rng(seed), "w", case.n, case.k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_WINDOW_BYTES", window)
        found = profile_tensor(tensor, part_rows=part_rows)
    assert np.array_equal(found.counts, expected(tensor))
    assert found.codes_sha256 == hashlib.sha256(tensor.codes.tobytes()).hexdigest()
    assert np.array_equal(count_codes(tensor), found.counts)
    assert codes_sha256(tensor) == found.codes_sha256
    assert found.parts is not None
    assert np.array_equal(found.parts.first_book.sum(axis=0), found.counts[0])


@pytest.mark.parametrize("name", ["quip-2", "quip-4"])
def test_e8p_counts_the_rows_of_its_table_over_all_stages(name: str) -> None:
    tensor = drawn(name, 24, 64)
    counts = count_codes(tensor)
    assert counts.shape == (1, 1, 256)
    assert np.array_equal(counts[0, 0], np.bincount((tensor.codes >> 8).reshape(-1), minlength=256))


def test_parts_are_ranges_of_rows() -> None:
    tensor = drawn("vq-4-4-2", 10, 64)
    found = profile_tensor(tensor, part_rows=4)
    assert found.parts is not None
    assert (found.parts.rows, found.parts.first_book.shape) == (4, (3, 2, 16))
    for part, rows in enumerate((slice(0, 4), slice(4, 8), slice(8, 10))):
        for table in range(2):
            counts = np.bincount(tensor.codes[table, rows].reshape(-1), minlength=16)
            assert np.array_equal(found.parts.first_book[part, table], counts)


def test_parts_of_a_tile_stay_in_it() -> None:
    tiled = {"family": "kmeans", "vector_size": 4, "entries": 16, "scope": {"rows": 6, "cols": 16}}
    found = profile_tensor(drawn(tiled, 16, 32), part_rows=4)
    assert found.parts is not None
    assert found.parts.first_book.shape == (2, 1, 16)
    assert found.parts.first_book.sum(axis=(1, 2)).tolist() == [4 * 4, 2 * 4]


@pytest.mark.parametrize(
    ("name", "n", "k", "rows"),
    [
        # 32 parts at most; 8 codes per entry: 16384 / (8 * 256) = 8 parts of a tile; 2 at least.
        ("vq-4-4-1", 3200, 64, 100),
        ("gptvq-2", 512, 512, 32),
        ("aqlm-3", 64, 64, 32),
    ],
)
def test_default_parts(name: str, n: int, k: int, rows: int) -> None:
    found = profile_tensor(drawn(name, n, k))
    assert found.parts is not None
    assert found.parts.rows == rows


def test_parts_that_are_too_small() -> None:
    tensor = drawn("aqlm-1x16", 300, 8)
    with pytest.raises(VqccError) as caught:
        profile_tensor(tensor, part_rows=1)
    (found,) = caught.value.diagnostics
    assert found.code == "VQ0543"
    assert found.help == "at most 128 are counted: use --part-rows 3 or more"
    assert profile_tensor(tensor, part_rows=3).parts is not None


@pytest.mark.parametrize(
    "name",
    ["vq-4-4-2", {"family": "kmeans", "vector_size": 4, "entries": 16, "scope": {"rows": 4, "cols": 8}}],
)
def test_a_code_out_of_range_has_its_place(name: Any) -> None:
    tensor = drawn(name, 8, 32)
    codes = tensor.codes.copy()
    codes[-1, 6, 5] = 16
    wrong = replace(tensor, codes=codes)
    for count in (count_codes, profile_tensor):
        with pytest.raises(VqccError) as caught:
            count(wrong)
        (found,) = caught.value.diagnostics
        assert found.code == "VQ0521"
        assert f"w.codes[{len(codes) - 1}, 6, 5] is 16" in found.message


def test_progress_ends_with_all_bytes() -> None:
    tensor = drawn("vq-4-4-2", 40, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_WINDOW_BYTES", 100)
        seen: list[tuple[int, int]] = []
        profile_tensor(tensor, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == (tensor.codes.nbytes, tensor.codes.nbytes)


def sparse_file(path: Path, n: int, k: int) -> None:
    """A valid file of one vq-4-8-1 tensor whose data are all zeros and take no room on disk."""
    algorithm = presets.resolve("vq-4-8-1")
    entries: dict[str, Any] = {}
    end = 0
    kinds = {"uint8": ("U8", 1), "float16": ("F16", 2), "float32": ("F32", 4)}
    for part in algorithm.parts(n, k):
        kind, width = kinds[part.dtypes[0]]
        size = width * int(np.prod(part.shape))
        entries[f"w.{part.name}"] = {"dtype": kind, "shape": part.shape, "data_offsets": [end, end + size]}
        end += size
    description = {"w": {"algorithm": algorithm.mapping(), "shape": [n, k], "dtype": "float16"}}
    header = json.dumps(entries | {"__metadata__": {"vqcc.algorithm": json.dumps(description)}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)


SCRIPT = """
import re, sys
from pathlib import Path
import numpy, vqcc.api, vqcc.hotness.histogram
def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before = resident("VmRSS")
(summary,), _ = vqcc.api.profile(Path(sys.argv[1]))
print(summary.codes, resident("VmHWM") - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """256 MB of codes in less than 64 MB, mapped pages included."""
    path = tmp_path / "large.safetensors"
    sparse_file(path, 1 << 16, 1 << 14)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], check=True, capture_output=True, text=True, timeout=120
    )
    codes, mebibytes = done.stdout.split()
    assert int(codes) == 1 << 28
    assert float(mebibytes) < 64
