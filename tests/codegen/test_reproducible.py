"""The same source gives the same bytes, wherever and however the compiler runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vqcc
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError

SOURCE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
namespace {
template <int Count> struct Config { static constexpr int kCount = Count; };
template <class C> __device__ __forceinline__ float sum(const float* x) {
  float total = 0.0f;
  for (int i = 0; i < C::kCount; ++i) total += x[i];
  return total;
}
}  // namespace
extern "C" __global__ void __launch_bounds__(128) sums(const __half* x, __nv_bfloat16* y) {
  __shared__ float shared[128];
  shared[threadIdx.x] = __half2float(x[threadIdx.x]);
  __syncthreads();
  y[threadIdx.x] = __float2bfloat16(sum<Config<8>>(shared + (threadIdx.x & 64)));
}
"""

COMPILE = """
import hashlib, json, sys
from pathlib import Path
from vqcc.codegen.toolchain import find
name, nvcc, host, source = sys.argv[1:]
toolchain = find(name, nvcc_path=Path(nvcc) if nvcc else None, host_compiler=Path(host) if host else None)
compiled = toolchain.compile(source, target="sm_90", want_ptx=True, file_name="sums.cu")
parts = [compiled.cubin, compiled.ptx.encode(), compiled.log.encode(), repr(compiled.resources).encode()]
print(json.dumps([toolchain.identity] + [hashlib.sha256(part).hexdigest() for part in parts]))
"""


def compile_in(directory: Path, seed: str, toolchain: str, programs: tuple[str, str]) -> list[str]:
    directory.mkdir(parents=True)
    # Were the working directory searched, this would not compile.
    (directory / "cuda_fp16.h").write_text("#error found in the working directory\n")
    environment = {
        "PYTHONPATH": str(Path(vqcc.__file__).parents[1]),
        "PYTHONHASHSEED": seed,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "NVCC_APPEND_FLAGS": "-lineinfo" if seed == "1" else "",
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, toolchain, *programs, SOURCE],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in directory.iterdir()] == ["cuda_fp16.h"], "the compiler left files"
    return list(json.loads(done.stdout))


def test_nvrtc(tmp_path: Path) -> None:
    first = compile_in(tmp_path / "a", "1", "nvrtc", ("", ""))
    assert compile_in(tmp_path / "somewhere" / "else", "2", "nvrtc", ("", "")) == first


def test_nvcc_or_a_word_about_its_absence(tmp_path: Path) -> None:
    nvcc, host = shutil.which("nvcc"), shutil.which("g++")
    if nvcc is None or host is None:
        with pytest.raises(VqccError, match="nvcc is not on the PATH"):
            find("nvcc")
        return
    first = compile_in(tmp_path / "a", "1", "nvcc", (nvcc, host))
    assert compile_in(tmp_path / "somewhere" / "else", "2", "nvcc", (nvcc, host)) == first
