"""The C reader of packed books reads what vqcc writes, for every library over a KV cache."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from build_tools import compilers
from cache_libraries import fake_cache_library
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_books import (
    ARRAYS,
    SIZES,
    BooksReader,
    books_file,
    books_library,
    python_refusal,
    sizes_of,
)
from packed_files import running, split
from problems import kmeans

from vqcc.library import load_cache_library
from vqcc.tensors.cache_packed_file import expected_parts, load_packed_books, save_packed_books
from vqcc.tensors.cache_packing import PackedBooks
from vqcc.verify.cache_harness import random_sides

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from vqcc.cache_library import CacheLibrary

ROWS: dict[str, Any] = {"by_rows": True, "key_order": "rotated"}
CASES: dict[str, CacheLibrary] = {
    "entries": books_library(),
    "two of a head": books_library("cq-2", "kv-8-6-2", rope="none"),
    "bfloat16 of a head": books_library(
        kmeans(scope="kv_head", codebook_dtype="bfloat16"), rope="interleaved", rope_base=5e5
    ),
    "rows": books_library("cq-2", rope="none", kv_heads=1, **ROWS),
    "rows of a layer": books_library("kv-4-8-1", rope_scaling=1e-5, **ROWS),
    "rows of a layer and of heads": books_library("kv-8-8-1", "cq-4", **ROWS),
    "paged": books_library("cq-4", page_size=64, q_heads=8, kv_heads=4),
}


@pytest.mark.parametrize("case", CASES)
def test_what_vqcc_writes_is_read(case: str, books_reader: BooksReader, tmp_path: Path) -> None:
    library = CASES[case]
    names = ("layers.0.keys", 'v"\\ü', "")
    data = books_file(tmp_path, library, *names)
    answer = books_reader.check(data)
    assert (answer.status, tuple(answer.found)) == ("OK", names)
    assert books_reader.open(tmp_path / "written.safetensors") == answer
    assert books_reader.accepts(data, library)
    for name, arrays in load_packed_books(tmp_path / "written.safetensors", library).items():
        found = answer.found[name]
        assert (found.kv_heads, found.head_dim) == (library.op.kv_heads, library.op.head_dim)
        assert (found.layout_id, found.by_rows) == (library.layout_id, library.by_rows)
        assert {part: data[place] for part, place in found.arrays.items()} == {
            part: array.tobytes() for part, array in arrays.items()
        }
    assert len({str(found.arrays) for found in answer.found.values()}) == len(names)


def test_every_array_is_read() -> None:
    assert {part for library in CASES.values() for part in expected_parts(library)} == set(ARRAYS)


@pytest.mark.parametrize(
    ("algorithm", "op"),
    [("cq-2", {}), ({"key": "cq-4", "value": "kv-4-8-1"}, {"rope": "half"}), ("kv-8-6-2", {"level": "o2"})],
)
def test_books_of_compiled_libraries(
    algorithm: Any, op: dict[str, Any], books_reader: BooksReader, tmp_path: Path
) -> None:
    """What `vqcc compile` and `vqcc pack` make, and sizes as the header has them."""
    library = fake_cache_library(tmp_path, algorithm, **op)
    assert load_cache_library(tmp_path / library.name).layout_id == library.layout_id
    keys, values = random_sides(library, np.random.default_rng(0))
    path = tmp_path / "packed.safetensors"
    save_packed_books(path, library, "layer", keys, values, library.pack(keys, values))
    answer = books_reader.check(path.read_bytes())
    assert list(answer.found) == ["layer"]
    header = (tmp_path / library.name / f"{library.name}.h").read_text()
    sizes = {part: sizes_of(library)[part] for part in SIZES}
    for part, size in sizes.items():
        assert f"#define CACHE_{part.upper()}_BYTES INT64_C({size})" in header
    assert f'#define CACHE_LAYOUT_ID "{library.layout_id}"' in header
    assert books_reader.find("layer", library.layout_id, sizes) == "OK"


def zeros(library: CacheLibrary) -> PackedBooks:
    arrays: dict[str, Any] = dict.fromkeys(ARRAYS)
    arrays |= {part: np.zeros(shape, dtype) for part, (dtype, shape) in expected_parts(library).items()}
    return PackedBooks(**arrays)


@pytest.mark.parametrize("examples", [40, pytest.param(400, marks=pytest.mark.full)])
def test_any_algorithm_and_shape(examples: int, books_reader: BooksReader, scratch: Path) -> None:
    """Arrays have the forms that the C reader computes of their description."""

    @settings(max_examples=examples)
    @given(st.randoms(use_true_random=False))
    def is_read(rng: Random) -> None:
        by_rows = rng.random() < 0.5

        def side() -> dict[str, Any]:
            size = rng.choice([1, 2, 4, 8, 16])
            return kmeans(
                vector_size=size,
                entries=256 if by_rows else rng.choice([2, 8, 64, 256]),
                residuals=1 if by_rows else rng.randint(1, 3),
                codebook_dtype="float16" if by_rows else rng.choice(["float16", "bfloat16"]),
                scope=rng.choice(["layer", "kv_head", {"kv_heads": 1, "channels": size}]),
            )

        library = books_library(
            side(),
            side(),
            by_rows=by_rows,
            key_order=rng.choice(["plain", "rotated", "fragment"]),
            kv_heads=rng.choice([1, 2]),
            head_dim=rng.choice([64, 128, 256]),
            page_size=rng.choice([0, 32, 256]),
            rope=rng.choice(["none", "half", "interleaved"]),
        )
        keys, values = random_sides(library, np.random.default_rng(0))
        path = scratch / "any.safetensors"
        save_packed_books(path, library, "w", keys, values, zeros(library))
        data = path.read_bytes()
        assert books_reader.accepts(data, library)
        assert python_refusal(scratch, data, library) == set()

    is_read()


def test_layers_of_a_library_are_found(books_reader: BooksReader, tmp_path: Path) -> None:
    """By name, for the library that reads them: other layouts, and arrays of other sizes, are refused."""
    library = CASES["rows"]
    books_reader.check(books_file(tmp_path, library))
    sizes = sizes_of(library)
    assert books_reader.find("w") == books_reader.find("w", library.layout_id, sizes) == "OK"
    assert [books_reader.find(name) for name in ("", "v", "w.", "w.key_books")] == ["NAME"] * 4
    others = [CASES["entries"], replace(library, by_rows=False), books_library("cq-2", kv_heads=1, **ROWS)]
    for other in others:
        assert books_reader.find("w", other.layout_id, sizes) == "LAYOUT"
    for part in SIZES:
        for change in (-1, 16, -sizes[part], 2**32):
            wrong = sizes | {part: sizes[part] + change}
            assert books_reader.find("w", library.layout_id, wrong) == "BYTES"
    books_reader.check(books_file(tmp_path, CASES["entries"]))
    own = sizes_of(CASES["entries"])
    assert own["book_facts"] == 0
    assert books_reader.find("w", "-", own) == "OK"
    assert books_reader.find("w", "-", own | {"book_facts": 8}) == "BYTES"


@pytest.mark.parametrize(("language", "standard"), [("c", "c11"), ("c++", "c++17")])
def test_every_compiler_reads_the_same(
    language: str, standard: str, books_reader: BooksReader, good_books: bytes, tmp_path: Path
) -> None:
    """Optimized, and without functions that open files."""
    for compiler in compilers(language).values():
        options = ("-O2", "-DVQCC_BOOKS_NO_FILES")
        with running(BooksReader, tmp_path, compiler, standard, *options) as other:
            assert other.check(good_books) == books_reader.check(good_books)
            assert other.check(good_books[:-1]) == books_reader.check(good_books[:-1])


def test_an_engine_can_allow_less_of_a_header(good_books: bytes, tmp_path: Path) -> None:
    length = len(good_books) - len(split(good_books)[2]) - 8
    for most, status in ((length, "OK"), (length - 1, "HEADER_BYTES")):
        limit = f"-DVQCC_BOOKS_MOST_HEADER_BYTES={most}"
        with running(BooksReader, tmp_path, ("gcc",), "c99", limit) as reader:
            assert reader.check(good_books).status == status
