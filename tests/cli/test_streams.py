"""Standard output that is full, closed, or a pipe whose reader has gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vqcc
from vqcc.codegen.bundle import read_bundle

FULL = Path("/dev/full")
LINES = (
    "--help",
    "compile --help",
    "list gpus",
    "list gpus --json",
    "schema",
    "explain VQ0403",
    "explain VQ9999 --json",
    "profile {quantized}",
    "profile {quantized} --json",
    "explain {compiled}",
    "explain {compiled} --json",
    "compile {spec} -o {out}",
    "compile {spec} -o {out} --json",
    "validate {compiled} --json",
)


def shell(line: str, redirection: str, **places: Path) -> subprocess.CompletedProcess[str]:
    """Run `vqcc LINE REDIRECTION` in a shell."""
    command = f"exec {sys.executable} -m vqcc {line.format(**places)} {redirection}"
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env={**os.environ, "PYTHONPATH": str(Path(vqcc.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def places(spec: Path, compiled: Path, quantized: Path, tmp_path: Path) -> dict[str, Path]:
    return {"spec": spec, "compiled": compiled, "quantized": quantized, "out": tmp_path / "out"}


@pytest.mark.parametrize("line", LINES)
def test_a_full_disk_under_stdout_is_one_diagnostic(line: str, places: dict[str, Path]) -> None:
    done = shell(line, "> /dev/full", **places)
    assert done.returncode == 1
    assert done.stderr.startswith("error[VQ0701]: standard output: No space left on device\n = help: ")
    assert done.stderr.count("\n") == 3
    assert FULL.is_char_device()


@pytest.mark.parametrize("line", LINES)
def test_a_reader_that_has_gone_ends_a_command_quietly(line: str, places: dict[str, Path]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vqcc", *line.format(**places).split()],
            env={**os.environ, "PYTHONPATH": str(Path(vqcc.__file__).parents[1])},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_was_compiled_is_there_though_it_could_not_be_told(places: dict[str, Path]) -> None:
    assert shell("compile {spec} -o {out} --json", "> /dev/full", **places).returncode == 1
    assert read_bundle(places["out"] / "tiny").manifest["name"] == "tiny"


@pytest.mark.parametrize("line", ["list gpus", "schema", "compile {spec} -o {out}"])
def test_a_closed_stdout_swallows_what_is_printed(line: str, places: dict[str, Path]) -> None:
    done = shell(line, ">&-", **places)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_full_stderr_leaves_exit_code_and_stdout_alone(places: dict[str, Path]) -> None:
    done = shell("explain VQ9999", "2> /dev/full", **places)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    done = shell("explain VQ9999 --json", "2>&-", **places)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["diagnostics"][0]["code"] == "VQ0710"
