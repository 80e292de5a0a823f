"""The C reader of packed weights reads what vqcc writes, wherever and however it is written."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from build_tools import compilers
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_files import (
    PROGRAMS,
    SANITIZERS,
    Pairs,
    compile_c,
    escaped,
    join,
    plain,
    running,
    split,
    with_description,
    written,
)
from packed_weights import (
    CASES,
    WeightsReader,
    chunked,
    library_for,
    library_of,
    packed_file,
    python_refusal,
    rotated,
)
from problems import kmeans

from vqcc.algorithms import FAMILIES, from_mapping
from vqcc.code_layouts import CODE_LAYOUTS
from vqcc.passes.bucket import bucket_layout
from vqcc.passes.fragment import fragment_layout
from vqcc.tensors.packed_file import load_packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random


@pytest.mark.parametrize("case", CASES)
def test_what_vqcc_writes_is_read(case: str, reader: WeightsReader, tmp_path: Path) -> None:
    library = library_of(case)
    n, k = library.op.weight_shape
    for by_frequency in (False, True):
        own = replace(library, profile_codes=("0" * 64,)) if by_frequency else library
        data = packed_file(tmp_path, own, "w", "v.w")
        answer = reader.check(data)
        assert (answer.status, list(answer.found)) == ("OK", ["v.w", "w"])
        assert reader.open(tmp_path / "written.safetensors") == answer
        for name, arrays in load_packed(tmp_path / "written.safetensors", own).items():
            found = answer.found[name]
            assert (found.n, found.k, found.layout_id) == (n, k, library.layout_id)
            assert found.by_frequency == by_frequency
            assert {part: data[place] for part, place in found.arrays.items()} == {
                part: array.tobytes() for part, array in arrays.items()
            }


def test_every_layout_and_family_is_read() -> None:
    libraries = [library_of(case) for case in CASES]
    assert {library.layout.kind for library in libraries} == set(CODE_LAYOUTS)
    assert {library.algorithm.family for library in libraries} == set(FAMILIES)


def test_any_algorithm_shape_and_layout(reader: WeightsReader, scratch: Path) -> None:
    """Arrays have the forms that the C reader computes of their description."""

    @settings(max_examples=150)
    @given(st.randoms(use_true_random=False))
    def is_read(rng: Random) -> None:
        size, entries = rng.choice([1, 2, 3, 4, 6, 8, 16]), rng.choice([2, 8, 256, 256, 4096])
        mapping = kmeans(
            vector_size=size,
            entries=entries,
            residuals=rng.randint(1, 4),
            codebook_dtype=rng.choice(["float16", "bfloat16", "int8"]),
            scales=rng.choice(["none", "tensor", "row", {"group": size * rng.randint(1, 9)}]),
            scope=rng.choice(["tensor", {"rows": rng.randint(1, 80), "cols": size * rng.randint(1, 20)}]),
        )
        algorithm, shape = from_mapping(mapping), (rng.randint(1, 300), size * rng.randint(1, 60))
        layouts = [chunked(algorithm, shape), fragment_layout(algorithm, shape)]
        layouts += [rotated(algorithm, shape)] if algorithm.code_bits in {8, 12} else []
        layouts += [bucket_layout(algorithm, shape)] if entries >= 256 else []
        layout = rng.choice([layout for layout in layouts if layout is not None])
        library = library_for(algorithm, shape, layout)
        data = packed_file(scratch, library)
        assert reader.accepts(data, library)
        assert python_refusal(scratch, data, library) == set()

    is_read()


def test_tensors_of_a_library_are_found(reader: WeightsReader, tmp_path: Path) -> None:
    """By name, for the library that reads them: another layout's, and codes and books of other sizes, are refused."""
    library = library_of()
    (found,) = reader.check(packed_file(tmp_path, library)).found.values()
    codes, books = (found.arrays[part].stop - found.arrays[part].start for part in ("codes", "books"))
    assert (codes, books) == (6 * 7 * 4, 128)
    assert reader.find("w") == reader.find("w", library.layout_id, codes, books) == "OK"
    assert reader.find("w", library.layout_id, 0, books) == reader.find("w", "-", codes, 0) == "OK"
    assert [reader.find(name) for name in ("", "v", "w.", "W", "w.codes")] == ["NAME"] * 5
    other = library_of("int8, tiles").layout_id
    assert [reader.find("w", wrong) for wrong in ("", other, library.layout_id[:-1])] == ["LAYOUT"] * 3
    for sizes in ((codes + 4, books), (codes, books - 1), (-codes, 0), (0, 2**32 + books)):
        assert reader.find("w", library.layout_id, *sizes) == "BYTES"


NAMES = (
    "",
    " ",
    '"',
    "\\",
    "\\\\",
    '\\"',
    "/",
    "\b\f\n\r\t\x01\x7f",
    "\\u0041",
    "A",
    "ä",
    "a\u0308",
    "模型.0",
    "𝄞",
    "𝄞\\ud834",
    "\ufeff\uffff\U0010ffff",
    "__metadata__",
    "w",
    "w.codes",
    "w.codes.codes",
    "model.layers.0.mlp.up_proj.weight",
)


@pytest.mark.parametrize("space", ["", " \t\r\n"], ids=["dense", "spaced"])
@pytest.mark.parametrize("outer", [json.dumps, plain, escaped])
@pytest.mark.parametrize("inner", [json.dumps, plain, escaped])
def test_names_however_they_are_written(
    space: str,
    outer: Callable[[str], str],
    inner: Callable[[str], str],
    reader: WeightsReader,
    tmp_path: Path,
) -> None:
    """Those of the description are in a text of JSON in a text of JSON."""
    library = library_of()
    header, description, body = split(packed_file(tmp_path, library, *NAMES))
    text = space + written(description, space, inner) + space
    data = join(with_description(header, text), body, space=space, escape=outer)
    answer = reader.check(data)
    assert (answer.status, list(answer.found)) == ("OK", sorted(NAMES))
    assert len({str(found.arrays) for found in answer.found.values()}) == len(NAMES)
    assert reader.accepts(data, library)
    assert python_refusal(tmp_path, data, library) == set()
    for name in NAMES:
        places = answer.found[name].arrays
        for part, place in places.items():
            begin, end = header.of(f"{name}.{part}").of("data_offsets")
            assert (place.start, place.stop) == (len(data) - len(body) + begin, len(data) - len(body) + end)
    assert [reader.find(name) for name in ("\\A", "a", "𝄞\ufffd", "model")] == ["NAME"] * 4


def many_tensors(directory: Path, count: int) -> tuple[Pairs, Pairs, bytes]:
    return split(packed_file(directory, library_of("smallest"), *(f"layer.{i}" for i in range(count))))


@pytest.mark.full
def test_many_tensors_in_any_order(reader: WeightsReader, tmp_path: Path) -> None:
    """More arrays than the reader holds places of at a time."""
    header, description, body = many_tensors(tmp_path, 300)
    library = library_of("smallest")
    by_name = Pairs(sorted(header))
    shuffled = Pairs(sorted(header, key=lambda item: hash_of(item[0])))
    for own in (header, by_name, Pairs(reversed(header)), shuffled):
        for order in (description, Pairs(reversed(description))):
            answer = reader.check(join(with_description(own, order), body))
            assert (answer.status, list(answer.found)) == ("OK", [name for name, _ in order])
        assert python_refusal(tmp_path, join(own, body), library) == set()


def hash_of(name: str) -> int:
    return int.from_bytes(name[::-1].encode()) % 1_000_003


@pytest.mark.full
@pytest.mark.parametrize("pair", [(0, 1), (0, -1), (1023, 1024), (1023, -1), (1024, -1), (-2, -1)])
def test_a_key_of_many_that_stands_twice(
    pair: tuple[int, int], reader: WeightsReader, tmp_path: Path
) -> None:
    """Of more keys than the reader holds at a time."""
    header, description, body = many_tensors(tmp_path, 1100)
    first, second = pair
    for which in (header, description):
        assert len(which) > 1024
        twice = Pairs(which)
        twice[second] = (twice[first][0], twice[second][1])
        own = (twice, description) if which is header else (header, twice)
        data = join(with_description(*own) if which is description else twice, body)
        assert reader.check(data).status == "DUPLICATE"


@pytest.mark.parametrize("place", [0, 255, 256, 257, 1000, -1])
def test_an_array_of_many_that_lies_on_another(place: int, reader: WeightsReader, tmp_path: Path) -> None:
    """Wherever the one stands that it hides, and whichever of both comes first."""
    header, _, body = many_tensors(tmp_path, 1100)
    places = sorted((value.of("data_offsets"), name) for name, value in header if name != "__metadata__")
    (begin, end), _ = places[place]
    other = next(name for (start, stop), name in places if stop - start == end - begin and start != begin)
    wrong = header.put(other, header.of(other).put("data_offsets", [begin, end]))
    library = library_of("smallest")
    for own in (wrong, Pairs(reversed(wrong)), Pairs(sorted(wrong))):
        assert reader.check(join(own, body)).status == "PLACES"
    assert python_refusal(tmp_path, join(wrong, body), library) == {"VQ0508", "VQ0509"}


@pytest.mark.parametrize(("language", "standard"), [("c", "c11"), ("c++", "c++17")])
def test_every_compiler_reads_the_same(
    language: str, standard: str, reader: WeightsReader, good: bytes, tmp_path: Path
) -> None:
    """Optimized, and without functions that open files."""
    for compiler in compilers(language).values():
        with running(WeightsReader, tmp_path, compiler, standard, "-O2", "-DVQCC_WEIGHTS_NO_FILES") as other:
            assert other.check(good) == reader.check(good)
            assert other.check(good[:-1]) == reader.check(good[:-1])


def test_an_engine_can_allow_less_of_a_header(good: bytes, tmp_path: Path) -> None:
    length = int.from_bytes(good[:8], "little")
    for most, status in ((length, "OK"), (length - 1, "HEADER_BYTES")):
        limit = f"-DVQCC_WEIGHTS_MOST_HEADER_BYTES={most}"
        with running(WeightsReader, tmp_path, ("gcc",), "c99", limit) as reader:
            assert reader.check(good).status == status


def test_the_program_can_fail(tmp_path: Path) -> None:
    """A reader that goes past a file is noticed."""
    harness = (PROGRAMS / "reader.h").read_text()
    source = harness.replace("allocated(head[0] == 'c' ? bytes", "allocated(head[0] == 'c' ? bytes - 1")
    assert source != harness
    (tmp_path / "reader.h").write_text(source)
    (tmp_path / "weights.c").write_bytes((PROGRAMS / "weights.c").read_bytes())
    compile_c(tmp_path, ("gcc",), "c99", *SANITIZERS, "weights.c", "-o", "weights")
    request = b"c" + (16).to_bytes(8, "little") + (8).to_bytes(8, "little") + b"{}      "
    done = subprocess.run([tmp_path / "weights"], input=request, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"AddressSanitizer" in done.stderr
