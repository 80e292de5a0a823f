"""A compile that is killed, wherever it is, leaves an old bundle or a new one, whole."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from libraries import spec_text
from model_specs import linear, model_text

import vqcc
from vqcc.codegen.bundle import read_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

FEW, MANY = 12, 100


class Compiler:
    """Runs `vqcc compile` of one of two versions of a spec, in one directory, with one cache."""

    def __init__(self, directory: Path) -> None:
        self.spec = directory / "tiny.yaml"
        self.out = directory / "out"
        self.bundle = self.out / "tiny"
        self.cache = directory / "cache"
        directory.mkdir(exist_ok=True)

    def start(self, version: int) -> subprocess.Popen[bytes]:
        self.spec.write_text(spec_text("vq-4-4-1", m=[version], n=40, k=64))
        command = ["compile", str(self.spec), "-o", str(self.out), "--cache-dir", str(self.cache)]
        root = str(Path(vqcc.__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-m", "vqcc", *command],
            env={**os.environ, "PYTHONPATH": root},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, version: int) -> float:
        """Compile to the end; seconds it took."""
        started = time.monotonic()
        process = self.start(version)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        return time.monotonic() - started

    def kill(self, version: int, after: float) -> bool:
        """Start a compile and kill it; whether it was still running."""
        process = self.start(version)
        time.sleep(after)
        running = process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
        return running

    def held(self) -> Mapping[str, bytes]:
        """Content of the bundle that lies there, each file verified by its manifest."""
        return dict(read_bundle(self.bundle).files)


def survive(directory: Path, kills: int, seed: int) -> None:
    reference = Compiler(directory / "reference")
    versions: dict[int, Mapping[str, bytes]] = {}
    cold, warm = 0.0, 0.0
    for version in (1, 2):
        cold = reference.finish(version)
        versions[version] = reference.held()
    for version in (1, 2):
        warm = reference.finish(version)
    assert versions[1] != versions[2]

    compiler = Compiler(directory / "killed")
    generator = random.Random(seed)
    seen: set[int] = set()
    running = 0
    pace = 1.0  # follows the machine: a kill that comes too late is no kill
    for i in range(kills):
        # Every fourth finds an empty cache. Half of the moments lie near the end, where files are written.
        empty = i % 4 == 3
        compiler.cache = directory / f"cache-{i}" if empty else reference.cache
        moment = generator.uniform(0.75 if i % 8 < 4 else 0, 1.1)
        met = compiler.kill(1 + i % 2, moment * (cold if empty else warm) * pace)
        running += met
        pace *= 1.1 if met else 0.8
        if not compiler.bundle.exists():
            assert not seen, "a bundle that was there has gone"
            continue
        held = compiler.held()
        state = next((number for number, files in versions.items() if files == held), None)
        assert state is not None, f"a mix after kill {i}: {sorted(held)}"
        seen.add(state)
    assert running >= kills // 4, "too few kills met a running compile"
    for version in (2, 1, 2):
        compiler.finish(version)
        assert compiler.held() == versions[version]
    assert [path.name for path in compiler.out.iterdir()] == ["tiny"]


def test_a_few_kills(tmp_path: Path) -> None:
    survive(tmp_path, FEW, seed=1)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_many_kills(tmp_path: Path) -> None:
    survive(tmp_path, MANY, seed=2)


#: `vqcc ARGUMENTS`, ended by itself at once when function NAME of MODULE has been called that often.
KILLED = """
import importlib, os, signal, sys
module, name, times, *arguments = sys.argv[1:]
*path, name = name.split(".")
place = importlib.import_module(module)
for each in path:
    place = getattr(place, each)
function, calls = getattr(place, name), []

def counted(*words, **named):
    value = function(*words, **named)
    calls.append(1)
    if len(calls) == int(times):
        os.kill(os.getpid(), signal.SIGKILL)
    return value

setattr(place, name, counted)
from vqcc.cli import main
main(arguments)
"""
MODEL = {name: linear(n, 64, algorithm="vq-4-4-1") for name, n in (("q", 40), ("down", 64))}


@pytest.mark.parametrize(
    ("place", "times", "compiled"),
    [
        (("vqcc.codegen.cache", "CompileCache.put"), 1, 1),
        pytest.param(("vqcc.codegen.bundle", "_write"), 3, 2, marks=pytest.mark.full),
        pytest.param(("vqcc.codegen.bundle", "_write"), 7, 2, marks=pytest.mark.full),
    ],
    ids=["one library is compiled", "few files are written", "most files are written"],
)
def test_a_model_goes_on_where_it_was_killed(
    place: tuple[str, str], times: int, compiled: int, tmp_path: Path
) -> None:
    """What was compiled is found in the cache, and nothing that is half written lies where the model shall be."""
    (tmp_path / "small.yaml").write_bytes(model_text(MODEL))
    command = ["compile", "small.yaml", "-o", "out", "--cache-dir", "cache", "-j", "1", "--json"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "PYTHONPATH": str(Path(vqcc.__file__).parents[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("-c", KILLED, *place, str(times), *command)
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = tmp_path / "out"
    assert not (out / "small").exists()
    assert out.exists() == (place[1] == "_write")
    done = run("-m", "vqcc", *command)
    assert done.returncode == 0, done.stderr
    took = json.loads(done.stdout)["libraries"][0]["took"]
    assert (took["compiled"], took["found"]) == (len(MODEL) - compiled, compiled)
    assert set(read_bundle(out / "small").files) > {"q/small-q.h", "down/small-down.h", "small.h"}
    assert [path.name for path in out.iterdir()] == ["small"]


def build_in(directory: Path, hash_seed: str, *options: str) -> dict[str, bytes]:
    """All files of a bundle built by a process of its own, from a spec in that directory, without a cache."""
    directory.mkdir(parents=True)
    (directory / "tiny.yaml").write_text(
        spec_text("vq-4-4-1", m=[1, 2], n=40, k=64, gpu=["h200", "rtx4090"], dtype=["float16", "bfloat16"])
    )
    root = str(Path(vqcc.__file__).parents[1])
    emit = "cu,ptx,cubin,header,plan"
    done = subprocess.run(
        [sys.executable, "-m", "vqcc", "compile", "tiny.yaml", "--no-cache", "--emit", emit, *options],
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": hash_seed, "HOME": str(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (directory / "out" / "tiny").iterdir()}


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    first = build_in(tmp_path / "a", "1")
    second = build_in(tmp_path / "somewhere" / "else" / "b", "4242", "-j", "2")
    assert sorted(first) == [
        "manifest.json",
        "tiny.h",
        *(
            f"tiny.{gpu}.{kind}"
            for gpu in ("h200", "rtx4090")
            for kind in ("cu", "cubin", "plan.json", "ptx")
        ),
    ]
    assert first == second
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_what_does_not_change_keeps_its_time(tmp_path: Path) -> None:
    compiler = Compiler(tmp_path)
    compiler.finish(1)
    for path in compiler.bundle.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    before = {path.name: path.stat().st_mtime_ns for path in compiler.bundle.iterdir()}
    inode = compiler.bundle.stat().st_ino
    compiler.finish(1)
    assert {path.name: path.stat().st_mtime_ns for path in compiler.bundle.iterdir()} == before
    assert compiler.bundle.stat().st_ino == inode
    compiler.finish(2)
    after = {path.name: path.stat().st_mtime_ns for path in compiler.bundle.iterdir()}
    assert set(after.values()).isdisjoint({10**18})
