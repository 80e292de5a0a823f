from __future__ import annotations

import re
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from vqcc.codegen import nvrtc
from vqcc.codegen.cubin import read_cubin
from vqcc.codegen.nvrtc import Nvrtc
from vqcc.diagnostics import ExitCode, VqccError

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void halves(__half* x) { x[threadIdx.x] = __hadd(x[threadIdx.x], x[threadIdx.x]); }
extern "C" __global__ void sums(__nv_bfloat16* x, float* y) {
  __shared__ float shared[32];
  shared[threadIdx.x] = __bfloat162float(x[threadIdx.x]);
  __syncthreads();
  y[threadIdx.x] = shared[31 - threadIdx.x];
}
"""
INDEXED = """
extern "C" __global__ void indexed(float* x, int i) {
  float values[64];
  for (int j = 0; j < 64; ++j) values[j * i & 63] = x[j];
  for (int j = 0; j < 64; ++j) x[j] = values[j];
}
"""
TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.fixture(scope="module")
def found() -> Nvrtc:
    return Nvrtc.find()


def compile_error(toolchain: Nvrtc, source: str, target: str = "sm_90") -> VqccError:
    with pytest.raises(VqccError) as caught:
        toolchain.compile(source, target=target, want_ptx=False, file_name="x.cu")
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    return caught.value


def test_identity_names_every_version(found: Nvrtc) -> None:
    assert re.fullmatch(r"nvrtc 13\.[\d.]+ headers 13\.[\d.]+ cccl 13\.[\d.]+", found.identity)
    assert found.minimum_driver == "580"


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_for_every_architecture_without_a_gpu(found: Nvrtc, target: str) -> None:
    compiled = found.compile(SOURCE, target=target, want_ptx=False, file_name="x.cu")
    info = read_cubin(compiled.cubin)
    assert (f"sm_{info.sm}", info.kernels) == (target, ("halves", "sums"))
    assert list(compiled.resources) == ["halves", "sums"]
    sums = compiled.resources["sums"]
    assert sums.static_shared_bytes >= 128
    assert (sums.barriers, sums.stack_bytes, sums.spill_store_bytes, sums.spill_load_bytes) == (1, 0, 0, 0)
    assert 0 < sums.registers <= 64
    assert compiled.ptx is None
    assert "Compile time" not in compiled.log


def test_ptx_on_request(found: Nvrtc) -> None:
    compiled = found.compile(SOURCE, target="sm_90", want_ptx=True, file_name="x.cu")
    assert compiled.ptx is not None
    assert ".target sm_90" in compiled.ptx
    assert ".entry sums(" in compiled.ptx
    assert "\0" not in compiled.ptx


def test_an_array_indexed_at_run_time_shows_as_a_stack_frame(found: Nvrtc) -> None:
    compiled = found.compile(INDEXED, target="sm_90", want_ptx=False, file_name="x.cu")
    assert compiled.resources["indexed"].stack_bytes >= 256


def test_the_bindings_of_cuda_python_give_the_same_cubin(found: Nvrtc) -> None:
    from cuda.bindings import nvrtc as bindings

    options = ["-arch=sm_90", *found.options, *(f"-I{path}" for path in found.include_directories)]
    _, program = bindings.nvrtcCreateProgram(SOURCE.encode(), b"x.cu", 0, None, None)
    (status,) = bindings.nvrtcCompileProgram(program, len(options), [item.encode() for item in options])
    assert int(status) == 0
    _, size = bindings.nvrtcGetCUBINSize(program)
    cubin = b"\0" * size
    bindings.nvrtcGetCUBIN(program, cubin)
    bindings.nvrtcDestroyProgram(program)
    assert found.compile(SOURCE, target="sm_90", want_ptx=False, file_name="x.cu").cubin == cubin


def test_threads_compile_at_once_and_alike(found: Nvrtc) -> None:
    cubins: list[bytes] = []

    def work() -> None:
        cubins.append(found.compile(SOURCE, target="sm_90", want_ptx=False, file_name="x.cu").cubin)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cubins) == 4
    assert len(set(cubins)) == 1


def test_source_that_is_wrong(found: Nvrtc, tmp_path: Path) -> None:
    kept = Nvrtc.find(keep_failed=tmp_path)
    source = 'extern "C" __global__ void k(int* p) {\n  p[0] = missing;\n}\n'
    diagnostic = compile_error(kept, source).diagnostics[0]
    assert diagnostic.code == "VQ0603"
    assert 'x.cu(2): error: identifier "missing" is undefined' in str(diagnostic.help)
    assert (tmp_path / "x.cu").read_text() == source


def test_source_that_only_the_assembler_refuses(tmp_path: Path) -> None:
    kept = Nvrtc.find(keep_failed=tmp_path)
    diagnostic = compile_error(kept, 'extern "C" __global__ void k() { asm("bogus.op;"); }').diagnostics[0]
    assert diagnostic.code == "VQ0603"
    assert "ptxas" in str(diagnostic.help)
    too_much = (
        'extern "C" __global__ void k(int* p) { __shared__ int s[20000]; s[p[0]] = 1; p[1] = s[p[2]]; }'
    )
    diagnostic = compile_error(kept, too_much).diagnostics[0]
    assert diagnostic.code == "VQ0603"
    assert "too much shared data" in str(diagnostic.help)


def test_a_source_without_kernels_is_refused(found: Nvrtc) -> None:
    assert compile_error(found, "int f() { return 1; }").diagnostics[0].code == "VQ0606"


def test_an_architecture_it_does_not_know(found: Nvrtc) -> None:
    error = compile_error(found, SOURCE, "sm_77")
    assert error.diagnostics[0].code == "VQ0604"
    assert "sm_77" in error.diagnostics[0].message


def fake_wheels(root: Path, version: str = "13.5.37", *, headers: bool = True) -> list[str]:
    """Lay out directories as the wheels do, with empty files."""
    base = root / "nvidia" / f"cu{version.partition('.')[0]}"
    (base / "lib").mkdir(parents=True)
    (base / "lib" / f"libnvrtc.so.{version.partition('.')[0]}").write_bytes(b"")
    (root / f"nvidia_cuda_nvrtc-{version}.dist-info").mkdir()
    if headers:
        (base / "include").mkdir()
        (base / "include" / "cuda_fp16.h").write_text("")
        (root / f"nvidia_cuda_runtime-{version}.dist-info").mkdir()
    return [str(root)]


def test_identity_follows_the_wheels(tmp_path: Path) -> None:
    path = fake_wheels(tmp_path)
    assert Nvrtc.find(search_path=path).identity == "nvrtc 13.5.37 headers 13.5.37"
    (tmp_path / "nvidia_cuda_runtime-13.5.37.dist-info").rename(
        tmp_path / "nvidia_cuda_runtime-13.5.40.dist-info"
    )
    assert Nvrtc.find(search_path=path).identity == "nvrtc 13.5.37 headers 13.5.40"
    (tmp_path / "nvidia" / "cu13" / "include" / "cccl").mkdir()
    (tmp_path / "nvidia_cuda_cccl-13.3.5.dist-info").mkdir()
    again = Nvrtc.find(search_path=path)
    assert again.identity == "nvrtc 13.5.37 headers 13.5.40 cccl 13.3.5"
    assert [directory.name for directory in again.include_directories] == ["include", "cccl"]


def test_no_compiler_wheel(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        Nvrtc.find(search_path=[str(tmp_path)])
    assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0601", ExitCode.TOOLCHAIN)
    assert 'pip install "nvidia-cuda-nvrtc' in str(caught.value.diagnostics[0].help)


def test_a_wheel_that_lost_its_library(tmp_path: Path) -> None:
    path = fake_wheels(tmp_path)
    shutil.rmtree(tmp_path / "nvidia" / "cu13" / "lib")
    with pytest.raises(VqccError, match=r"nvidia-cuda-nvrtc 13\.5\.37 lacks") as caught:
        Nvrtc.find(search_path=path)
    assert caught.value.diagnostics[0].code == "VQ0601"


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    broken = Nvrtc.find(search_path=fake_wheels(tmp_path))
    assert compile_error(broken, SOURCE).diagnostics[0].code == "VQ0601"


def test_a_library_that_is_not_nvrtc(tmp_path: Path, found: Nvrtc) -> None:
    path = fake_wheels(tmp_path)
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libnvrtc.so.13"
    library.unlink()
    library.symlink_to(next(found.library.parent.glob("libnvrtc-builtins.so.*")))
    assert compile_error(Nvrtc.find(search_path=path), SOURCE).diagnostics[0].code == "VQ0601"


def test_a_cuda_release_never_tried(tmp_path: Path) -> None:
    with pytest.raises(VqccError, match=r"CUDA 14\.0\.1 is not known"):
        Nvrtc.find(search_path=fake_wheels(tmp_path, "14.0.1"))


def test_no_headers(tmp_path: Path) -> None:
    path = fake_wheels(tmp_path, headers=False)
    with pytest.raises(VqccError) as caught:
        Nvrtc.find(search_path=path)
    assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0602", ExitCode.TOOLCHAIN)
    assert 'pip install "nvidia-cuda-runtime' in str(caught.value.diagnostics[0].help)
    with pytest.raises(VqccError, match=r"no cuda_fp16\.h"):
        Nvrtc.find(search_path=path, cuda_include=tmp_path / "nowhere")


def test_headers_of_a_toolkit(tmp_path: Path, found: Nvrtc) -> None:
    include = tmp_path / "toolkit"
    include.mkdir()
    (include / "cuda_fp16.h").write_text("")
    path = fake_wheels(tmp_path / "wheels", headers=False)
    with pytest.raises(VqccError, match=r"no cuda_fp16\.h"):
        Nvrtc.find(search_path=path, cuda_include=include)  # of no known version
    (include / "cuda_runtime_api.h").write_text("#define CUDART_VERSION  13020\n")
    found = Nvrtc.find(search_path=path, cuda_include=include)
    assert found.identity == "nvrtc 13.5.37 headers of CUDA 13.2"
    assert found.include_directories == (include,)


def test_a_fault_of_nvrtc_itself(found: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc._Program, "compile", lambda self, options: 11)
    diagnostic = compile_error(found, SOURCE).diagnostics[0]
    assert diagnostic.code == "VQ0605"
    assert "NVRTC_ERROR_INTERNAL_ERROR" in diagnostic.message
