"""Make and ninja read dependency files back as they were meant: an edit of each file is noticed, and no other."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from build_tools import NINJA

from vqcc.depfile import Rule, UnnamableError, render

if TYPE_CHECKING:
    from collections.abc import Callable

AWKWARD = [
    "plain.yaml",
    "a b",
    "a  b",
    " a",
    "a#b",
    "#a",
    "a$b",
    "a$$b",
    "$(a) b",
    "a:b",
    "a: b",
    "a\\b",
    "a\\ b",
    "a\\\\ b",
    "a(1).yaml",
    "a%b",
    "a[1]b",
    "a=b",
    "~a",
    "a,b@c{d}e!f+g",
    "\u00fc\u6f22",
]
UNNAMABLE = ["a\nb", "a\tb", "a;b", "a|b", "a\\#b", "a\\:b", "a\\$b", "a ", "a:", "a\\", "a(b)"]


def aged(path: Path, seconds: float) -> None:
    """Make a file so much older than it is now, or newer."""
    when = time.time() - seconds
    os.utime(path, (when, when))


def test_the_text() -> None:
    rules = [
        Rule("out/a b.h", [Path("/x=y/a"), Path("/s/a #1"), Path("/s/$b")]),
        Rule("c.h", [Path("/s/$b")]),
    ]
    assert render(rules).decode() == (
        "out/a\\ b.h: \\\n  /s/a\\ \\#1 \\\n  /s/$$b \\\n  /x=y/a\nc.h: \\\n  /s/$$b\n/s/a\\ \\#1: \n/s/$$b: \n"
    )


@pytest.mark.parametrize("name", UNNAMABLE)
def test_what_would_be_misread_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnnamableError, match="a dependency file cannot name"):
        render([Rule("out.h", [tmp_path / name])])
    with pytest.raises(UnnamableError):
        render([Rule(name, [tmp_path])])


def make_stale(directory: Path) -> bool:
    """Whether make, which reads the file, takes out.h for outdated."""
    (directory / "Makefile").write_text("out.h:\n\ttouch out.h\n-include out.d\n")
    done = subprocess.run(["make", "-q", "out.h"], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 1


def ninja_stale(directory: Path) -> bool:
    (directory / "build.ninja").write_text(
        "rule r\n command = true\n depfile = out.d\nbuild out.h: r\ndefault out.h\n"
    )
    done = subprocess.run([NINJA, "-n"], cwd=directory, capture_output=True, text=True, check=True)
    return "no work to do" not in done.stdout


@pytest.mark.parametrize("is_stale", [make_stale, ninja_stale])
@pytest.mark.parametrize("name", AWKWARD)
def test_an_edit_is_noticed(name: str, is_stale: Callable[[Path], bool], tmp_path: Path) -> None:
    given, other, unrelated = tmp_path / name, tmp_path / "other", tmp_path / "unrelated"
    for path in (given, other, unrelated):
        path.write_text("")
        aged(path, 100)
    (tmp_path / "out.d").write_bytes(render([Rule("out.h", [given, other])]))
    aged(tmp_path / "out.d", 100)
    (tmp_path / "out.h").write_text("")
    if is_stale is ninja_stale:  # which goes by its log: build once
        ninja_stale(tmp_path)
        subprocess.run([NINJA], cwd=tmp_path, capture_output=True, check=True)
    assert not is_stale(tmp_path)
    aged(unrelated, -100)
    assert not is_stale(tmp_path)
    for path in (given, other):
        aged(path, -100)
        assert is_stale(tmp_path), path
        aged(path, 100)
        assert not is_stale(tmp_path)


@pytest.mark.parametrize("is_stale", [make_stale, ninja_stale])
def test_a_file_that_is_gone_is_a_change(is_stale: Callable[[Path], bool], tmp_path: Path) -> None:
    (tmp_path / "out.d").write_bytes(render([Rule("out.h", [tmp_path / "gone"])]))
    (tmp_path / "out.h").write_text("")
    assert is_stale(tmp_path)


@pytest.mark.parametrize("directory", ["a b", "a#b", "a$b", "a:b"])
def test_a_target_with_an_awkward_name(directory: str, tmp_path: Path) -> None:
    """make finds the rule by the name that it was given."""
    place = tmp_path / directory
    place.mkdir()
    (tmp_path / "in").write_text("")
    (place / "out.h").write_text("")
    rule = render([Rule(f"{directory}/out.h", [tmp_path / "in"])])
    (tmp_path / "Makefile").write_bytes(b"%.h:\n\ttouch '$@'\n" + rule)
    aged(tmp_path / "in", 100)
    command = ["make", "-q", f"{directory}/out.h"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    aged(tmp_path / "in", -100)
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 1
