"""Hand-written sources as compilers are given them: every file as it is, under a name of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqcc.codegen.cache import cache_key
from vqcc.codegen.toolchain import find
from vqcc.codegen.written_source import read_source
from vqcc.diagnostics import VqccError
from vqcc.emulator import Buffer, build

if TYPE_CHECKING:
    from pathlib import Path

#: A list, included for one thing and then for another.
LIST = "ENTRY(one, 1)\nENTRY(two, 20)\n"
LISTED = """\
#define ENTRY(name, value) __device__ int name() { return value; }
#include "list.inc"
#undef ENTRY
#define ENTRY(name, value) + value
extern "C" __global__ void listed(int* x) {
  x[0] = one() + two();
  x[1] = 0
#include "list.inc"
      ;
}
"""


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_cu", ".cu").replace("_inc", ".inc")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory / "main.cu"


def computed(path: Path, cache_directory: Path, kernel: str, count: int) -> list[int]:
    """What one thread of the kernel writes, on the emulator."""
    source = read_source(path)
    module = build(source.text, headers=source.headers, cache_directory=cache_directory / "emulator")
    out = np.zeros(count, np.int32)
    module.launch(kernel, (1, 1, 1), (1, 1, 1), 0, [Buffer("x", out, "output")])
    return out.tolist()


def test_files_are_given_as_they_are(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main_cu='#include "a.cuh"\n  # include "b/b.cuh"\nlast\n',
        a_cuh='#pragma once\n#include "b/b.cuh"\nof a\n',
        b__b_cuh="of b",
    )
    source = read_source(path)
    assert source.text == '#include "written/0/main.cu"\n'
    assert source.headers == {
        "written/0/main.cu": '#line 1 "main.cu"\n#include "written/1/a.cuh"\n  # include "written/2/b.cuh"\nlast\n',
        "written/1/a.cuh": '#line 1 "a.cuh"\n#pragma once\n#include "written/2/b.cuh"\nof a\n',
        "written/2/b.cuh": '#line 1 "b.cuh"\nof b',
    }
    assert source.files == (path, tmp_path / "a.cuh", tmp_path / "b" / "b.cuh")
    assert source.shown == {"main.cu": path, "a.cuh": tmp_path / "a.cuh", "b.cuh": tmp_path / "b" / "b.cuh"}


def test_what_is_included_twice_is_there_twice(tmp_path: Path, cache_directory: Path) -> None:
    assert computed(write(tmp_path, main_cu=LISTED, list_inc=LIST), cache_directory, "listed", 2) == [21, 21]


def test_only_active_includes_count(tmp_path: Path, cache_directory: Path) -> None:
    """Not those in comments or left out by #if, be they ahead of the one that counts or broken."""
    path = write(
        tmp_path,
        main_cu="""\
#pragma once
#ifdef NEVER
#include "value.inc"
#include "broken.inc"
#endif
// #include "broken.inc"
/*
#include "broken.inc"
*/ #include "value.inc"
#if 0
#include "nowhere.inc"
#endif
#if __has_include("nowhere.inc") || !__has_include("value.inc")
#error has_include
#endif
#include "value.inc"
extern "C" __global__ void written(int* x) { *x = value(); }
#include "main.cu"
""",
        value_inc="#pragma once\n__device__ int value() { return 7; }\n",
        broken_inc="",
    )
    (tmp_path / "broken.inc").write_bytes(b"\xff")
    assert computed(path, cache_directory, "written", 1) == [7]
    source = read_source(path)
    compiled = find("nvrtc").compile(
        source.text, target="sm_90", want_ptx=False, file_name="main.cu", headers=source.headers
    )
    assert list(compiled.resources) == ["written"]


def test_a_header_of_cuda_in_quotes(tmp_path: Path, cache_directory: Path) -> None:
    """And one's own of that name, which others do not meet by accident."""
    path = write(
        tmp_path,
        main_cu="""\
#include "cuda_fp16.h"
#include "own/first.inc"
extern "C" __global__ void written(int* x) { *x = of_own() + __half2int_rn(__float2half(2.0f)); }
""",
        own__first_inc='#include "cuda_fp16.h"\n',
    )
    (tmp_path / "own" / "cuda_fp16.h").write_text("__device__ int of_own() { return 40; }\n")
    assert computed(path, cache_directory, "written", 1) == [42]


def test_an_included_file_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, main_cu='#include "data.inc"\n')
    (tmp_path / "data.inc").write_bytes(b"\xff")
    assert read_source(path).headers["written/1/data.inc"] == (
        '#line 1 "data.inc"\n#error data.inc is not UTF-8 text\n'
    )


def test_a_mark_of_the_byte_order_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "main.cu"
    path.write_bytes(b"\xef\xbb\xbf#define A \\\r\n  1\r\n")
    assert read_source(path).headers["written/0/main.cu"] == '#line 1 "main.cu"\n#define A \\\n  1\n'


def test_the_cache_knows_every_file(tmp_path: Path) -> None:
    def key() -> str:
        source = read_source(write(tmp_path, main_cu='#include "a.inc"\n'))
        return cache_key(
            find("nvrtc"),
            source.text,
            target="sm_90",
            want_ptx=False,
            file_name="main.cu",
            headers=source.headers,
        )

    keys = []
    for text in ("1", "2"):
        (tmp_path / "a.inc").write_text(text)
        keys.append(key())
    assert keys[0] != keys[1] == key()


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main_cu='#include "a/x.cuh.2"\n#include "a/x.cuh"\n#include "b/x.cuh"\n',
        a__x_cuh="a",
        b__x_cuh="b",
    )
    (tmp_path / "a" / "x.cuh.2").write_text("c")
    shown = read_source(path).shown
    assert {name: f"{file.parent.name}/{file.name}" for name, file in shown.items() if name != "main.cu"} == {
        "x.cuh.2": "a/x.cuh.2",
        "x.cuh": "a/x.cuh",
        "x.cuh.3": "b/x.cuh",
    }


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b" " * 4_000_001], ids=["none", "binary", "large"])
def test_sources_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "main.cu"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VqccError, match=r"main\.cu") as caught:
        read_source(path)
    assert [each.code for each in caught.value.diagnostics] == ["VQ0701"]
