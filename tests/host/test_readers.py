"""The headers of the C readers of packed files are fit for any program."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from build_tools import STANDARDS, compilers
from packed_books import BooksReader
from packed_files import INCLUDE, compile_c
from packed_weights import WeightsReader

if TYPE_CHECKING:
    from pathlib import Path

MAPPED = "mapped_file.h"
HEADERS = (
    "weights.h",
    "books.h",
    "packed_file.h",
    "weight_description.h",
    "book_description.h",
    "description.h",
    "json.h",
    "sha256.h",
    MAPPED,
)


@pytest.mark.parametrize(("language", "standard"), STANDARDS)
def test_compiles_without_a_warning(language: str, standard: str, tmp_path: Path) -> None:
    """Both readers in two files of one program, one of them without files of its own; and each header alone."""
    suffix = "cpp" if language == "c++" else "c"
    uses = "vqcc_weights weights; vqcc_books books; return (int)vqcc_weights_check(NULL, 0, &weights)"
    uses += " + (int)vqcc_books_check(NULL, 0, &books) - 1;"
    for part, first, second in (("one", "books", "weights"), ("two", "weights", "books")):
        before = (
            f'#define VQCC_{first.upper()}_NO_FILES\n#include "vqcc/{first}.h"\n#include "vqcc/{second}.h"\n'
        )
        text = f"{before}int {part}(void);\nint {part}(void) {{ {uses} }}\n"
        (tmp_path / f"{part}.{suffix}").write_text(text)
    (tmp_path / f"main.{suffix}").write_text(
        "int one(void);\nint two(void);\nint main(void) { return one() + two() - 2; }\n"
    )
    for header in HEADERS:
        (tmp_path / f"{header}.{suffix}").write_text(f'#include "vqcc/{header}"\n#include "vqcc/{header}"\n')
    for compiler in compilers(language).values():
        files = [f"{part}.{suffix}" for part in ("one", "two", "main")]
        compile_c(tmp_path, compiler, standard, "-O2", *files, "-o", "program")
        assert subprocess.run([tmp_path / "program"], check=False).returncode == 0
        alone = [f"{header}.{suffix}" for header in HEADERS]
        compile_c(tmp_path, compiler, standard, "-fsyntax-only", "-Wno-unused-function", *alone)


def test_nothing_an_engine_must_not_find() -> None:
    """No state, output, allocation or way out; no includes but of types, memory and, where files are wanted, POSIX."""
    posix = {"<errno.h>", "<fcntl.h>", "<sys/mman.h>", "<sys/stat.h>", "<unistd.h>"}
    assert set(re.findall(r"#include\s*(<\S+)", (INCLUDE / "vqcc" / MAPPED).read_text())) > posix
    for name in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", (INCLUDE / "vqcc" / name).read_text(), flags=re.DOTALL)
        without = re.sub(r"#ifndef VQCC_\w+_NO_FILES\n.*?\n#endif\n", "", text, flags=re.DOTALL)
        standard = {"<stddef.h>", "<stdint.h>", "<string.h>"} | {f'"{other}"' for other in HEADERS}
        included = set(re.findall(r"#include\s*(\S+)", without))
        assert included <= standard | (posix if name == MAPPED else set())
        assert name == MAPPED or f'"{MAPPED}"' not in included
        assert not re.findall(r"\b(?:f?printf|malloc|calloc|realloc|free|exit|abort|extern|goto)\b", text)
        assert not re.findall(r"^(?:static (?!inline )|[a-z_]+ [a-z_]+;)", text, re.MULTILINE)
        assert max(map(len, text.splitlines())) <= 120


STATUSES = (
    "OK", "NULL_POINTER", "FILE", "TRUNCATED", "HEADER_BYTES", "JSON", "NESTING", "DUPLICATE", "ENTRY", "DTYPE",
    "EXTENT", "PLACES", "NOT_PACKED", "DESCRIPTION", "IDENTITY", "ARRAY", "CODES", "NAME", "LAYOUT", "BYTES", "KIND",
)  # fmt: skip


def test_statuses_keep_their_numbers() -> None:
    """Programs were compiled with them."""
    assert WeightsReader.all_statuses() == dict(enumerate(STATUSES))
    assert BooksReader.all_statuses() == {
        number: name for number, name in enumerate(STATUSES) if name != "CODES"
    }
