"""What pages show of commands is what these print; figures aside, which follow the compiler and the device code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
#: Commands that are not run here: they need a GPU, or what only their page has, or tell of this machine.
NOT_RUN = ("vqcc tune ", "vqcc doctor", "vqcc pack other.safetensors", "make ")
PAGES = ("README", *(
    f"docs/{page}"
    for page in ("attention", "commands", "diagnostics", "explain", "profile", "quantize", "validate", "vq-tensors")
))  # fmt: skip
#: A kernel's hash, a number, and a bar whose length is one.
FIGURE = re.compile(r"_[0-9a-f]{8}\b|[0-9][0-9,.]*(e[+-][0-9]+)?|#+")
COMMAND = re.compile(r"(?:\$ |\.venv/bin/)(?=(?:vqcc|make) )")


def blocks(text: str) -> list[list[str]]:
    """Lines of the blocks of a page that begin with a command: fenced ones, and indented ones of the README."""
    fenced = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    \$ .*\n(?:(?:    .*)?\n)*", text, re.MULTILINE)
    return [[line.removeprefix("    ") for line in block.splitlines()] for block in indented] + [
        block.splitlines() for block in fenced
    ]


def shown(page: str) -> list[tuple[str, list[str]]]:
    """Commands of a page and the lines that it shows of their outputs."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks((ROOT / f"{page}.md").read_text()):
        for line in block:
            start = COMMAND.match(line)
            if start is not None:
                found.append((line[start.end() :], []))
            else:
                found[-1][1].append(line)
    return [(line, output) for line, output in found if output and not line.startswith(NOT_RUN)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, cache_directory: Path) -> Iterator[Path]:
    """A directory with what commands of the pages read: the demo, and the tensor and spec of vq-tensors.md."""
    directory = tmp_path_factory.mktemp("pages")
    for name in ("specs", "tests"):
        (directory / name).symlink_to(ROOT / name)
    page = (ROOT / "docs" / "vq-tensors.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (spec,) = re.findall(r"^```yaml\n(vqcc: 1\nname: own\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    subprocess.run([sys.executable, "-c", program], cwd=directory, check=True)
    (directory / "own.yaml").write_text(spec)
    commands = [
        line for page in ("docs/quantize", "docs/commands", "docs/attention") for line, _ in shown(page)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("XDG_CACHE_HOME", str(cache_directory / "user"))
        for line in commands:
            if line.split()[1] in {"quantize", "compile", "pack"}:
                assert run(*line.split()[1:]).exit_code == 0, line
        yield directory


def write_wrong_spec(name: str, output: list[str]) -> None:
    """Write a spec of the lines that its diagnostics quote."""
    quoted = (re.match(r"([0-9]+) \| (.*)$", line) for line in output)
    lines = {1: "vqcc: 1", 2: "name: wrong", **{int(found[1]): found[2] for found in quoted if found}}
    Path(name).write_text("".join(f"{lines[number]}\n" for number in sorted(lines)))


def plain(text: str) -> list[str]:
    """The lines without figures, and without what differs the second time."""
    masked = (re.sub(r" +", " ", FIGURE.sub("0", line)).rstrip() for line in text.strip("\n").splitlines())
    return [line.replace(": unchanged,", ": written,") for line in masked]


def places(wanted: list[str], got: list[str]) -> list[int | None] | None:
    """Which of the lines got each wanted one is, None for `...`, which stands for any; None if they are others."""
    pattern = "".join(
        r"((?:.*\n)*?)" if line.strip() == "..." else f"({re.escape(line)}\n)" for line in wanted
    )
    text = "".join(f"{line}\n" for line in got)
    found = re.fullmatch(pattern, text)
    if found is None:
        return None
    return [
        None if line.strip() == "..." else text.count("\n", 0, found.start(number))
        for number, line in enumerate(wanted, 1)
    ]


def updated(page: str, output: list[str], found: list[int | None], got: str) -> str:
    """The text of a page whose `output` of a command has the figures of what the command printed."""
    printed = [line.rstrip().replace(": unchanged,", ": written,") for line in got.strip("\n").splitlines()]
    figures = [line if place is None else printed[place] for line, place in zip(output, found, strict=False)]
    shown_before = output[: len(figures)]
    margin = "    " if page == "README" else ""
    old, new = (
        "".join(f"{margin}{line}".rstrip() + "\n" for line in lines) for lines in (shown_before, figures)
    )
    text = (ROOT / f"{page}.md").read_text()
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_is_printed_as_golden_figures(
    page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """With --update-golden the page is given today's figures."""
    place = shutil.copytree(prepared, tmp_path / "page", symlinks=True)
    monkeypatch.chdir(place)
    (place / "out" / "demo").mkdir()
    cases = shown(page)
    assert cases
    for line, output in cases:
        words = line.split("  #")[0].split()
        if words[1] == "compile" and words[2] in {"wrong.yaml", "bad.yaml"}:
            write_wrong_spec(words[2], output)
        done = run(*words[1:])
        got = f"{done.stderr}\n{done.stdout}"
        found = places(plain("\n".join(output)), plain(got))
        assert found is not None, f"{page}.md shows otherwise:\n$ {line}\n{got}"
        if request.config.getoption("--update-golden"):
            (ROOT / f"{page}.md").write_text(updated(page, output, found, got))


def test_figures_of_a_page_are_those_printed() -> None:
    """Its lines stay, and what it leaves out stays left out."""
    output = ["out/own: written, 1 byte", "...", "  own.h200.cubin  3"]
    got = "\nout/own: unchanged, 1,234 bytes\n  own.h  1\n  own.h200.cubin  456\n"
    assert places(plain("\n".join(output)), plain(got)) is None  # 1 byte, 1,234 bytes
    output[0] = "out/own: written, 7 bytes"
    found = places(plain("\n".join(output)), plain(got))
    assert found == [0, None, 2]
    page = ROOT / "docs" / "vq-tensors.md"
    shown_there = shown("docs/vq-tensors")[0][1][:2]
    text = updated("docs/vq-tensors", shown_there, [0, 1], "a: unchanged, 1\n  b  2  \n")
    assert "\na: written, 1\n  b  2\n" in text
    assert len(text.splitlines()) == len(page.read_text().splitlines())
