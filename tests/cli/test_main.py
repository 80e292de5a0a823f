"""What all commands share: help, usage, colours, internal errors, what is imported when."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import run
from libraries import spec_text
from model_specs import linear, model_text

import vqcc
from vqcc.cli import support

COMMANDS = ("compile", "quantize", "pack", "validate", "bench", "explain", "list", "schema", "doctor")
HEAVY = ("faiss", "jinja2", "matplotlib", "ml_dtypes", "numpy", "pydantic", "rich", "safetensors", "yaml")
VQCC = (sys.executable, "-m", "vqcc")


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "TERM"}}
    return {**kept, "PYTHONPATH": str(Path(vqcc.__file__).parents[1]), **changes}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: vqcc [OPTIONS] COMMAND")
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_no_command_shows_the_help() -> None:
    done = run()
    assert done.exit_code == 2
    assert "Commands:" in done.stdout + done.stderr


def test_version() -> None:
    assert run("--version").stdout == f"vqcc, version {vqcc.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    done = run(command, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: vqcc {command} [OPTIONS]")
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    ("word", "hint"),
    [("complie", "did you mean 'compile'?"), ("bnech", "did you mean 'bench'?"), ("zzz", "")],
)
def test_an_unknown_command(word: str, hint: str) -> None:
    done = run(word)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"no such command '{word}'" in done.stderr
    assert hint in done.stderr


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("compile x.yaml --level O2", "'--level': unknown value 'O2'; did you mean 'o2'? use gc, sc, o1, "),
        ("explain x.yaml --level bset", "'--level': unknown value 'bset'; did you mean 'best'? use gc, sc, "),
        ("compile x.yaml --toolchain nvc", "'--toolchain': unknown value 'nvc'; did you mean 'nvcc'? use "),
        ("validate x --backend cpu", "'--backend': unknown value 'cpu'; use emulate or cuda"),
        ("list gpu", "unknown value 'gpu'; did you mean 'gpus'? use algorithms, ops, gpus or levels"),
    ],
)
def test_a_word_that_is_none_of_a_choice_is_helped_with_as_in_a_spec(line: str, text: str) -> None:
    done = run(*line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert text in done.stderr


def imported(*arguments: str) -> set[str]:
    """Top-level modules that a command imports."""
    program = (
        "import sys\n"
        "from vqcc.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\n', *sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["compile", "--help"], ["validate", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert "click" in modules
    assert modules.isdisjoint(HEAVY)


def test_compile_imports_no_number_crunching(spec: Path, tmp_path: Path) -> None:
    modules = imported("compile", str(spec), "-o", str(tmp_path / "out"))
    assert (tmp_path / "out" / "tiny" / "tiny.h").is_file()
    assert "jinja2" in modules
    assert modules.isdisjoint({"faiss", "matplotlib", "ml_dtypes", "numpy", "pycuda", "rich", "safetensors"})


def test_an_unchanged_model_imports_nothing_heavy(tmp_path: Path) -> None:
    """What would plan it or make it is not even loaded."""
    spec = tmp_path / "small.yaml"
    spec.write_bytes(model_text({"q": linear(40, 64, algorithm="vq-4-4-1")}))
    arguments = ("compile", str(spec), "-o", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"))
    assert run(*arguments).exit_code == 0
    assert imported(*arguments).isdisjoint(HEAVY)


def test_an_internal_error(monkeypatch: pytest.MonkeyPatch, compiled: Path) -> None:
    def fail(_path: Path) -> None:
        raise RuntimeError("something that cannot happen\nsecond line")

    monkeypatch.setattr("vqcc.library.load_libraries", fail)
    done = run("validate", compiled)
    assert (done.exit_code, done.stdout) == (70, "")
    assert "error[VQ0901]: RuntimeError: something that cannot happen\n" in done.stderr
    assert "please report" in done.stderr
    assert "Traceback" not in done.stderr
    as_json = run("validate", compiled, "--json")
    assert (as_json.exit_code, as_json.codes) == (70, ["VQ0901"])
    shown = run("--traceback", "validate", compiled)
    assert shown.exit_code == 70
    assert "Traceback (most recent call last)" in shown.stderr
    assert "something that cannot happen" in shown.stderr
    assert "error[VQ0901]" in shown.stderr


def test_a_traceback_is_for_internal_errors_only(tmp_path: Path) -> None:
    done = run("--traceback", "validate", tmp_path)
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr


def test_an_interruption(monkeypatch: pytest.MonkeyPatch, compiled: Path) -> None:
    def interrupt(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vqcc.library.load_libraries", interrupt)
    done = run("validate", compiled)
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def terminated(spec: Path, out: Path, *, ignored: bool) -> subprocess.CompletedProcess[str]:
    """A compile, in a process of its own, that is sent SIGTERM while it writes its first file."""
    script = f"""
import os, signal
from vqcc.cli import main
from vqcc.codegen import bundle
write = bundle._write
bundle._write = lambda *file: (os.kill(os.getpid(), signal.SIGTERM), write(*file))
signal.signal(signal.SIGTERM, signal.{"SIG_IGN" if ignored else "SIG_DFL"})
main(["compile", {str(spec)!r}, "-o", {str(out)!r}])
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


def test_a_termination_ends_as_an_interruption_does(spec: Path, tmp_path: Path) -> None:
    """Nothing half written is left. Who ignores the signal is not ended by it."""
    out = tmp_path / "out"
    done = terminated(spec, out, ignored=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "terminated\n")
    assert not out.exists()
    done = terminated(spec, out, ignored=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "tiny" / "manifest.json").is_file()


def on_terminal(arguments: list[str], **changes: str) -> str:
    """What a command prints on a terminal."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [*VQCC, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment(**changes)
        )
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
        process.wait(60)
    finally:
        os.close(master)
    return shown.decode()


def test_colours_on_a_terminal_only(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(spec_text("aqlm-2x9"))
    arguments = ["compile", str(wrong), "-o", str(tmp_path / "out")]
    coloured = on_terminal(arguments, TERM="xterm-256color")
    assert "\x1b[1;31merror[VQ0301]\x1b[0m" in coloured
    plain = on_terminal(arguments, TERM="xterm-256color", NO_COLOR="1")
    assert "error[VQ0301]: unknown preset" in plain
    assert "\x1b" not in plain
    assert "\x1b" not in on_terminal(arguments, TERM="dumb")
    assert "\x1b[1;31m" in on_terminal(arguments, TERM="xterm-256color", NO_COLOR="")
    piped = subprocess.run(
        [*VQCC, *arguments], env=environment(), capture_output=True, text=True, check=False
    )
    assert piped.returncode == 1
    assert "\x1b" not in piped.stderr


def test_tables_have_no_colours_where_none_are_wanted() -> None:
    plain = on_terminal(["list", "gpus"], TERM="xterm-256color", NO_COLOR="1", COLUMNS="200")
    assert "rtx4090" in plain
    assert "\x1b[3" not in plain


def test_progress_is_for_terminals(weights: Path, tmp_path: Path) -> None:
    arguments = [
        "quantize",
        str(weights),
        "--tensor",
        "w",
        "--algorithm",
        "vq-4-4-1",
        "-o",
        str(tmp_path / "q"),
    ]
    assert "quantizing w" in on_terminal(arguments, TERM="xterm-256color")
    piped = subprocess.run(
        [*VQCC, *arguments], env=environment(), capture_output=True, text=True, check=False
    )
    assert (piped.returncode, piped.stderr) == (0, "")


def test_a_model_shows_how_far_it_is(tmp_path: Path) -> None:
    """By the library that is done, and what part of them is; there is nothing to show where all of it is unchanged."""
    spec = tmp_path / "small.yaml"
    layers = {name: linear(n, 64, algorithm="vq-4-4-1") for name, n in (("q", 40), ("down", 64))}
    spec.write_bytes(model_text(layers))
    arguments = [
        "compile",
        str(spec),
        "-o",
        str(tmp_path / "out"),
        "--cache-dir",
        str(tmp_path / "cache"),
        "-j",
        "1",
    ]
    shown = on_terminal(arguments, TERM="xterm-256color", NO_COLOR="1", COLUMNS="100")
    assert re.search(r"small-q .* 50%", shown)
    assert "2 libraries in " in shown
    again = on_terminal(arguments, TERM="xterm-256color", NO_COLOR="1", COLUMNS="100")
    assert "unchanged" in again
    assert "%" not in again


def test_a_reader_that_goes_away() -> None:
    """`vqcc ... | head` ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [*VQCC, "schema"], stdout=out, stderr=subprocess.PIPE, env=environment(), text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_an_output_that_is_not_unicode(tmp_path: Path) -> None:
    wrong = tmp_path / "wr\u00f6ng.yaml"
    wrong.write_text(spec_text("aqlm-2x9"))
    done = subprocess.run(
        [*VQCC, "compile", wrong],
        env=environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii"),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"error[VQ0301]" in done.stderr
    assert b"Traceback" not in done.stderr


def test_json_takes_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    support.print_json({"a": [float("inf"), float("nan"), 1.5], "b": (True, None, "x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": [True, None, "x"]}


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*VQCC, "--version"], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == f"vqcc, version {vqcc.__version__}\n"
