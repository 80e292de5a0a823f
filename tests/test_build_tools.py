"""Compilers of the tests are what they are called, and refuse what they should."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import wheel_clang
from build_tools import WARNINGS, compilers

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """\
#include <stdio.h>
int main(void) {
#ifdef __clang__
  return printf("clang\\n") < 0;
#else
  return printf("gcc\\n") < 0;
#endif
}
"""
#: What clang alone warns of, then what both do.
CLANG_WARNS = "int add(int x);\nint add(int x) {\n  x = x;\n  return x;\n}\n"
BOTH_WARN = "int narrow(long x);\nint narrow(long x) { return x; }\n"


@pytest.mark.parametrize(("language", "suffix"), [("c", "c"), ("c++", "cpp")])
def test_both_are_there(language: str, suffix: str, tmp_path: Path) -> None:
    """They make objects and programs, and stop at warnings of their own."""
    for name, text in (("program", PROGRAM), ("clang", CLANG_WARNS), ("both", BOTH_WARN)):
        (tmp_path / f"{name}.{suffix}").write_text(text)

    def status(command: tuple[str, ...], *words: str) -> int:
        return subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, check=False).returncode

    printed = []
    for command in compilers(language).values():
        assert status(command, *WARNINGS, "-c", f"program.{suffix}", "-o", "program.o") == 0
        assert status(command, "program.o", "-o", "program") == 0
        printed.append(
            subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout
        )
        is_clang = printed[-1] == "clang\n"
        assert (status(command, *WARNINGS, "-fsyntax-only", f"clang.{suffix}") != 0) == is_clang
        assert status(command, *WARNINGS, "-fsyntax-only", f"both.{suffix}") != 0
    assert printed == ["gcc\n", "clang\n"]


def test_a_missing_clang_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name.startswith("clang") else name)
    monkeypatch.setattr(wheel_clang, "zig_executable", lambda: None)
    with pytest.raises(AssertionError, match="the tests need clang"):
        compilers("c")
