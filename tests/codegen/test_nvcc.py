from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from vqcc.codegen import nvcc as module
from vqcc.codegen.nvcc import Nvcc
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import ExitCode, VqccError

SOURCE = """
#include <cuda_fp16.h>
extern "C" __global__ void halves(__half* x) { x[threadIdx.x] = __hadd(x[threadIdx.x], x[threadIdx.x]); }
"""
VERSION = "echo 'Cuda compilation tools, release 13.0, V13.0.88'"


def program(directory: Path, body: str) -> Path:
    """Make a shell script that stands in for nvcc: `body` runs unless it is asked for its version."""
    path = directory / "nvcc"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then {VERSION}; exit 0; fi\n{body}\n')
    path.chmod(0o755)
    return path


def refusal(path: Path | None, *, target: str = "sm_90") -> VqccError:
    keep = path.parent / "failed" if path else None
    with pytest.raises(VqccError) as caught:
        Nvcc.find(path, keep_failed=keep).compile(SOURCE, target=target, want_ptx=False, file_name="x.cu")
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    return caught.value


def test_the_real_nvcc_or_a_word_about_its_absence(tmp_path: Path) -> None:
    place, host = shutil.which("nvcc"), shutil.which("g++")
    if place is None or host is None:
        assert refusal(None).diagnostics[0].code == "VQ0601"
        return
    found = find("nvcc", nvcc_path=Path(place), host_compiler=Path(host), keep_failed=tmp_path)
    assert found.identity.startswith("nvcc 1")
    assert "host g++" in found.identity
    compiled = found.compile(SOURCE, target="sm_90", want_ptx=True, file_name="x.cu")
    assert compiled.resources["halves"].stack_bytes == 0
    assert ".target sm_90" in str(compiled.ptx)
    with pytest.raises(VqccError) as caught:
        found.compile(
            'extern "C" __global__ void k() { missing(); }', target="sm_90", want_ptx=False, file_name="y.cu"
        )
    assert caught.value.diagnostics[0].code == "VQ0603"
    assert "missing" in str(caught.value.diagnostics[0].help)
    assert (tmp_path / "y.cu").exists()
    with pytest.raises(VqccError) as caught:
        found.compile(SOURCE, target="sm_77", want_ptx=False, file_name="x.cu")
    assert caught.value.diagnostics[0].code == "VQ0604"


def test_no_nvcc() -> None:
    error = refusal(None)
    assert error.diagnostics[0].code == "VQ0601"
    assert "--toolchain nvrtc" in str(error.diagnostics[0].help)


def test_not_a_program(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nvcc").diagnostics[0].code == "VQ0605"
    assert "--toolchain nvrtc" in str(refusal(tmp_path / "nvcc").diagnostics[0].help)
    (tmp_path / "nvcc").write_text("no program")
    assert refusal(tmp_path / "nvcc").diagnostics[0].code == "VQ0605"


def test_a_program_that_is_not_nvcc(tmp_path: Path) -> None:
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "nvcc").chmod(0o755)
    diagnostic = refusal(tmp_path / "nvcc").diagnostics[0]
    assert (diagnostic.code, diagnostic.help) == ("VQ0605", "hello")


def test_an_nvcc_never_tried(tmp_path: Path) -> None:
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho 'release 11.8, V11.8.89'\n")
    (tmp_path / "nvcc").chmod(0o755)
    assert "CUDA 11.8.89 is not known" in refusal(tmp_path / "nvcc").diagnostics[0].message


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("nvcc fatal   : Unsupported gpu architecture 'sm_90'", "VQ0604"),
        ("x.cu(3): error: something", "VQ0603"),
        ("ptxas fatal   : Ptx assembly aborted due to errors", "VQ0603"),
        ("gcc: fatal error: cannot execute 'cc1plus'", "VQ0605"),
        ("sh: 1: ptxas: not found", "VQ0605"),
        ("", "VQ0605"),
    ],
)
def test_what_it_says_decides_whose_fault_it_is(tmp_path: Path, said: str, code: str) -> None:
    assert refusal(program(tmp_path, f'echo "{said}" >&2; exit 2')).diagnostics[0].code == code


def test_output_that_is_no_cubin(tmp_path: Path) -> None:
    assert refusal(program(tmp_path, "echo nonsense > out-cubin")).diagnostics[0].code == "VQ0606"


def test_success_without_output(tmp_path: Path) -> None:
    assert refusal(program(tmp_path, "exit 0")).diagnostics[0].code == "VQ0605"


def test_its_environment_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-lineinfo")
    monkeypatch.setenv("CPATH", "/somewhere")
    diagnostic = refusal(program(tmp_path, "env; pwd; stat -c %a .; ls; exit 2")).diagnostics[0]
    said = str(diagnostic.help)
    assert "NVCC_APPEND_FLAGS" not in said
    assert "CPATH" not in said
    assert "LC_ALL=C" in said
    assert "\n700\nx.cu" in said
    assert not Path(next(line for line in said.splitlines() if line.startswith("/"))).exists()


def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPILE_SECONDS", 0.3)
    body = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    start = time.monotonic()
    diagnostic = refusal(program(tmp_path, body)).diagnostics[0]
    assert diagnostic.code == "VQ0605"
    assert "did not end within" in diagnostic.message
    assert time.monotonic() - start < 10
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        if not _runs(child):
            break
        time.sleep(0.01)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        # A killed orphan may wait for its new parent to notice.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_an_error_of_a_header_is_one_of_the_source(tmp_path: Path) -> None:
    """It is found by the name that includes it, and kept with the source."""
    found = Nvcc.find(
        program(tmp_path, """sed 's/^/more.cuh(1): error: /' written/1/more.cuh; exit 1"""),
        keep_failed=tmp_path / "kept",
    )
    with pytest.raises(VqccError) as caught:
        found.compile(
            SOURCE, target="sm_90", want_ptx=False, file_name="x.cu", headers={"written/1/more.cuh": "three"}
        )
    assert caught.value.diagnostics[0].code == "VQ0603"
    assert "more.cuh(1): error: three" in str(caught.value.diagnostics[0].help)
    assert (tmp_path / "kept" / "written" / "1" / "more.cuh").read_text() == "three"
