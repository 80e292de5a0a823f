"""Finding kernels in a source, compiling them, and the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqcc.diagnostics import ExitCode, VqccError
from vqcc.emulator import Buffer, build
from vqcc.emulator.source import kernel_names, with_registration

if TYPE_CHECKING:
    from pathlib import Path

_STORE = 'extern "C" __global__ void store(int* out, int value) { out[threadIdx.x] = value; }\n'


@pytest.fixture
def emulator_cache(cache_directory: Path) -> Path:
    return cache_directory / "emulator"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("", ()),
        (_STORE, ("store",)),
        ('extern "C" __global__ void __launch_bounds__(256) k(int a) {}', ("k",)),
        ('extern "C" __global__ void __launch_bounds__((kA + 1) * f(2), 3)\n  k(\n int a) {}', ("k",)),
        ('extern "C" __global__ __launch_bounds__(32) void k() {}', ("k",)),
        ('extern "C" __launch_bounds__(32) __global__ void k() {}', ("k",)),
        ('extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(32) k() {}', ("k",)),
        ('extern "C" __global__ void a(int); extern "C" __global__ void b(int) {}', ("b",)),
        ('extern "C" __global__ void a(int);\nextern "C" __global__ void a(int) {}', ("a",)),
        ('// extern "C" __global__ void a() {}\n/* extern "C" __global__ void b() {} */', ()),
        ('const char* s = "extern \\"C\\" __global__ void a() {}";', ()),
        ('extern "C" __device__ int f() { return 1; } extern "C" __global__ void k() {}', ("k",)),
        ('extern  "C"  __global__  void  k /* name */ ( ) // body\n{ }', ("k",)),
        ("__global__ void mangled() {}", ()),
    ],
)
def test_kernel_names(source: str, names: tuple[str, ...]) -> None:
    assert kernel_names(source) == names


@pytest.mark.parametrize(
    ("attributes", "registered"),
    [
        ("", "VQCC_EMULATOR_KERNEL(k)"),
        ("__launch_bounds__(32, 1)", "VQCC_EMULATOR_KERNEL(k)"),
        ("__cluster_dims__(2, 1, 1) __launch_bounds__(32)", "VQCC_EMULATOR_KERNEL(k, 2, 1, 1)"),
        ("__launch_bounds__(32) __cluster_dims__(f<1>(2))", "VQCC_EMULATOR_KERNEL(k, f<1>(2))"),
    ],
)
def test_clusters_are_registered(attributes: str, registered: str) -> None:
    source = f'extern "C" __global__ void {attributes} k() {{}}'
    assert registered in with_registration(source, "k.cu").splitlines()


def test_clusters_that_are_not_emulated_do_not_compile(emulator_cache: Path) -> None:
    for dimensions in ("3", "16", "2, 2, 1"):
        source = f'extern "C" __global__ void __cluster_dims__({dimensions}) k() {{}}'
        with pytest.raises(VqccError) as caught:
            build(source, cache_directory=emulator_cache)
        assert "clusters of 1, 2, 4 or 8 blocks along x" in str(caught.value)


def test_compile_error_names_the_line_of_the_source(emulator_cache: Path) -> None:
    with pytest.raises(VqccError) as caught:
        build(
            _STORE + "\n__device__ int f() { return missing; }\n",
            cache_directory=emulator_cache,
            file_name="some.cu",
        )
    assert caught.value.exit_code is ExitCode.TOOLCHAIN
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "VQ0822"
    assert "some.cu:3" in diagnostic.message
    assert "missing" in diagnostic.message


def test_shared_variables_are_refused_by_name(emulator_cache: Path) -> None:
    source = 'extern "C" __global__ void k() { __shared__ int x[4]; x[0] = 1; }'
    with pytest.raises(VqccError, match="shared_variables_are_not_emulated_use_the_dynamic_shared_memory"):
        build(source, cache_directory=emulator_cache)


def test_missing_compiler(emulator_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcc.emulator.compiler.shutil.which", lambda name: None)
    with pytest.raises(VqccError) as caught:
        build(_STORE, cache_directory=emulator_cache)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, caught.value.exit_code) == ("VQ0820", ExitCode.TOOLCHAIN)
    assert "apt install g++" in (diagnostic.help or "")


def test_compiler_that_does_not_run(emulator_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(VqccError, match="cannot be run") as caught:
        build(_STORE, cache_directory=emulator_cache, compiler=str(tmp_path / "no-such-compiler"))
    assert caught.value.exit_code is ExitCode.TOOLCHAIN


def test_compiler_that_fails_on_the_runtime(tmp_path: Path) -> None:
    compiler = tmp_path / "false-compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "g++ 0" && exit 0\necho "no such language" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    with pytest.raises(VqccError, match="no such language") as caught:
        build(_STORE, cache_directory=tmp_path / "cache", compiler=str(compiler))
    assert caught.value.diagnostics[0].code == "VQ0821"


def test_cache_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VqccError) as caught:
        build(_STORE, cache_directory=tmp_path / "file" / "cache")
    assert caught.value.diagnostics[0].code == "VQ0702"
    assert "give a writable directory" in (caught.value.diagnostics[0].help or "")


def run_store(cache: Path, value: int, source: str = _STORE) -> None:
    out = np.zeros(32, np.int32)
    emulated = build(source, cache_directory=cache)
    emulated.launch("store", (1, 1, 1), (32, 1, 1), 0, [Buffer("out", out, "output"), value])
    assert out.tolist() == [value] * 32


def test_a_built_source_is_not_compiled_again(emulator_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_store(emulator_cache, 1)

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("vqcc.emulator.compiler.HostCompiler.compile_kernels", fail)
    run_store(emulator_cache, 2)
    with pytest.raises(AssertionError, match="compiled again"):
        run_store(emulator_cache, 3, _STORE + "// changed\n")


@pytest.mark.usefixtures("copied_runtime")
def test_one_runtime_serves_several_cache_directories(emulator_cache: Path, tmp_path: Path) -> None:
    run_store(emulator_cache, 1)
    run_store(tmp_path, 2, _STORE + "// elsewhere\n")
    run_store(emulator_cache, 3)


def test_a_damaged_module_is_compiled_again(emulator_runtime: Path, tmp_path: Path) -> None:
    emulator_cache = tmp_path  # of its own: other tests may be compiling into the shared one
    source = _STORE + "// damaged\n"
    shutil.copy(emulator_runtime, emulator_cache)
    # Compiled by another process: a library that this one has mapped must not be changed under it.
    program = "import sys, pathlib; from vqcc.emulator import build; "
    program += "build(sys.argv[2], cache_directory=pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(emulator_cache), source], check=True)
    (module,) = emulator_cache.glob("kernels-*.so")
    module.write_bytes(b"not a library")
    run_store(emulator_cache, 4, source)


def test_scratch_of_killed_processes_is_removed(emulator_cache: Path) -> None:
    run_store(emulator_cache, 1)
    stale, fresh = emulator_cache / "scratch-stale", emulator_cache / "scratch-fresh"
    for directory in (stale, fresh):
        directory.mkdir(exist_ok=True)
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(stale, (long_ago, long_ago))
    run_store(emulator_cache, 1, _STORE + "// another\n")
    assert not stale.exists()
    assert fresh.exists()
    fresh.rmdir()


def test_processes_share_one_empty_cache(tmp_path: Path) -> None:
    program = f"""
import sys, pathlib
import numpy as np
from vqcc.emulator import Buffer, build
out = np.zeros(32, np.int32)
emulated = build({_STORE!r}, cache_directory=pathlib.Path(sys.argv[1]))
emulated.launch("store", (1, 1, 1), (32, 1, 1), 0, [Buffer("out", out, "output"), 9])
assert (out == 9).all()
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("kernels-*.so"))) == 1
    assert len(list(tmp_path.glob("libvqcc_emulator-*.so"))) == 1
    assert not list(tmp_path.glob("scratch-*"))


def test_several_modules_with_the_same_names_live_side_by_side(emulator_cache: Path) -> None:
    doubled = _STORE.replace("= value", "= 2 * value")
    first, second = (build(source, cache_directory=emulator_cache) for source in (_STORE, doubled))
    for emulated, expected in ((first, 5), (second, 10), (first, 5)):
        out = np.zeros(32, np.int32)
        emulated.launch("store", (1, 1, 1), (32, 1, 1), 0, [Buffer("out", out, "output"), 5])
        assert out.tolist() == [expected] * 32
