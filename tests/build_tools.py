"""What programs are built with: compilers; CMake and ninja of the development extra, beside this interpreter."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

__all__ = ["CMAKE", "NINJA", "STANDARDS", "WARNINGS", "compilers"]

#: What headers for programs must be clean under, and languages with their standards.
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-Wconversion", "-Wundef")
STANDARDS = (
    ("c", "c99"),
    pytest.param("c", "c11", marks=pytest.mark.full),
    ("c++", "c++17"),
    pytest.param("c++", "c++20", marks=pytest.mark.full),
)

_SCRIPTS = Path(sysconfig.get_path("scripts"))
CMAKE, NINJA = str(_SCRIPTS / "cmake"), str(_SCRIPTS / "ninja")


def compilers(language: str) -> list[str]:
    """The compilers of `c` or `c++` that there are; at least one."""
    names = {"c": ("gcc", "clang"), "c++": ("g++", "clang++")}[language]
    found = [name for name in names if shutil.which(name)]
    assert found, f"the tests need one of {', '.join(names)}"
    return found
