"""Hand-written sources as one text: includes in their places, lines that say where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vqcc.codegen.written_source import read_source
from vqcc.diagnostics import VqccError

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_cu", ".cu")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory / "main.cu"


def test_each_file_once_where_it_is_first_included(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main_cu='#include "a.cuh"\n  # include "b/b.cuh"\nlast\n',
        a_cuh='#pragma once\n#include "b/b.cuh"\nof a\n',
        b__b_cuh="of b",
    )
    source = read_source(path)
    assert source.text == (
        '#line 1 "main.cu"\n'
        '#line 1 "a.cuh"\n'
        "\n"
        '#line 1 "b.cuh"\n'
        "of b\n"
        '#line 3 "a.cuh"\n'
        "of a\n"
        '#line 2 "main.cu"\n'
        '#line 3 "main.cu"\n'
        "last\n"
    )
    assert source.files == (path, tmp_path / "a.cuh", tmp_path / "b" / "b.cuh")
    assert source.shown == {"main.cu": path, "a.cuh": tmp_path / "a.cuh", "b.cuh": tmp_path / "b" / "b.cuh"}


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path, main_cu='#include "a/x.cuh"\n#include "b/x.cuh"\n', a__x_cuh="a", b__x_cuh="b")
    source = read_source(path)
    assert source.shown["x.cuh"].parent.name == "a"
    assert source.shown["x.cuh.2"].parent.name == "b"


def test_a_file_that_includes_itself(tmp_path: Path) -> None:
    assert read_source(write(tmp_path, main_cu='#include "main.cu"\nrest')).text.count("rest") == 1


def test_an_include_that_leads_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path, main_cu='first\n#include "a.cuh"\n', a_cuh='#include  "none.cuh"\n')
    with pytest.raises(VqccError) as caught:
        read_source(path)
    (found,) = caught.value.diagnostics
    assert found.code == "VQ0610"
    assert str(found.span) == f"{tmp_path / 'a.cuh'}:1:12"
    assert found.span is not None
    assert found.span.end_column == 20


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b" " * 4_000_001], ids=["none", "binary", "large"])
def test_sources_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "main.cu"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VqccError, match=r"main\.cu") as caught:
        read_source(path)
    assert [each.code for each in caught.value.diagnostics] == ["VQ0701"]
