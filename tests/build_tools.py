"""What programs are built with: compilers; CMake and ninja of the development extra, beside this interpreter."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wheel_clang

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CMAKE",
    "NINJA",
    "SANITIZERS",
    "STANDARDS",
    "WARNINGS",
    "check_sources",
    "compilers",
    "each_compiler",
    "run_threads",
]

#: What headers for programs must be clean under, and languages with their standards.
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-Wconversion", "-Wundef")
STANDARDS = (
    ("c", "c99"),
    pytest.param("c", "c11", marks=pytest.mark.full),
    ("c++", "c++17"),
    pytest.param("c++", "c++20", marks=pytest.mark.full),
)

#: What programs run under, so that any finding ends them.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

_SCRIPTS = Path(sysconfig.get_path("scripts"))
CMAKE, NINJA = str(_SCRIPTS / "cmake"), str(_SCRIPTS / "ninja")


def compilers(language: str) -> dict[str, tuple[str, ...]]:
    """Commands of gcc and of clang for `c` or `c++`, by these names: whichever of both is not there, tests fail.

    clang is the one that is installed, else that of the development extra.
    """
    gcc, clang = {"c": ("gcc", "clang"), "c++": ("g++", "clang++")}[language]
    assert shutil.which(gcc), f"the tests need {gcc}"
    if shutil.which(clang):
        return {gcc: (gcc,), clang: (clang,)}
    assert wheel_clang.zig_executable(), f"the tests need {clang}, or ziglang of the extra `dev`"
    return {gcc: (gcc,), clang: (sys.executable, wheel_clang.__file__, language)}


def each_compiler(*languages: str) -> list[object]:
    """A parameter for each compiler of the languages: the language and the command."""
    return [
        pytest.param(language, command, id=name)
        for language in languages
        for name, command in compilers(language).items()
    ]


def check_sources(sources: Iterable[Path], includes: Iterable[Path], directory: Path) -> None:
    """Sources of a C++17 program are clean under every compiler; `directory` is for what comes of them."""
    flags = ["-std=c++17", *WARNINGS, *(f"-I{path}" for path in includes)]
    for name, command in compilers("c++").items():
        done = subprocess.run(
            [*command, *flags, "-fsyntax-only", *map(str, sources)],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{name}: {done.stderr}"


def run_threads(program: Path, directory: Path, *inputs: Path) -> None:
    """Compile a C program over codegen/header/threads.h in `directory`, with objects: ThreadSanitizer finds nothing."""
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-variable", "-Wno-unused-const-variable"]
    sanitizer = ["-fsanitize=thread", "-g", "-D_GNU_SOURCE", "-pthread"]
    includes = [f"-I{directory}", f"-I{Path(__file__).parent / 'codegen' / 'header'}"]
    command = ["gcc", *flags, *sanitizer, *includes, program, *inputs, "-o", directory / "program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    done = subprocess.run([directory / "program"], capture_output=True, text=True, check=False)
    if "unexpected memory mapping" in done.stderr:
        # The sanitizer places its memory at fixed addresses, which some systems have taken at random.
        command = ["setarch", "-R", directory / "program"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
