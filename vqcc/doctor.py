"""What of the machine vqcc can use: one check per thing it may need, none of which ever raises."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import vqcc
from vqcc.diagnostics import VqccError
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

Status = Literal["ok", "warning", "missing"]

_OLDEST_PYTHON = (3, 11)
_TARGET = "sm_90"
_KERNEL = """#include <cuda_fp16.h>
extern "C" __global__ void doctor(__half* x) { x[threadIdx.x] = __hadd(x[threadIdx.x], x[threadIdx.x]); }
"""
_HOST_COMPILERS = ("g++", "clang++")
_PROGRAM_SECONDS = 30.0

# Distributions, what each is for, and the extra of vqcc that brings it ("" where vqcc itself needs it).
_PACKAGES = (
    ("click", "command line", ""),
    ("pyyaml", "specs", ""),
    ("pydantic", "specs", ""),
    ("jinja2", "templates", ""),
    ("rich", "terminal output", ""),
    ("numpy", "references and packing", ""),
    ("ml-dtypes", "bfloat16", ""),
    ("safetensors", "tensor files", ""),
    ("platformdirs", "the cache directory", ""),
    ("nvidia-cuda-nvrtc", "the compiler", ""),
    ("nvidia-cuda-runtime", "CUDA headers", ""),
    ("cuda-bindings", "CUDA graphs and the driver", "gpu"),
    ("faiss-cpu", "vqcc quantize", "quantize"),
    ("matplotlib", "plots", "report"),
)


@dataclass(frozen=True)
class Check:
    """One finding. `missing` stops the commands that need it, `warning` does not; `help` says what to do."""

    name: str
    status: Status
    detail: str
    help: str | None = None


def diagnose(*, path: str, cache_directory: Path, cache_limit_bytes: int) -> list[Check]:
    """Look at everything vqcc may use. `path` is where programs are searched, as in $PATH."""
    return [
        _python(),
        Check("vqcc", "ok", vqcc.__version__),
        *(_package(*package) for package in _PACKAGES),
        *_torch(),
        _wheels_in_step(),
        _nvrtc(),
        _nvcc(path),
        _host_compiler(path),
        _pycuda(path),
        *_gpus(),
        _cache(cache_directory, cache_limit_bytes),
    ]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Check("python", "missing", version, "vqcc needs Python 3.11 or newer")
    return Check("python", "ok", f"{version} at {sys.executable}")


def _package(name: str, purpose: str, extra: str) -> Check:
    version = _version(name)
    if version is not None:
        return Check(name, "ok", f"{version} ({purpose})")
    if extra:
        return Check(name, "warning", f"not installed; used for {purpose}", f'pip install "vqcc[{extra}]"')
    return Check(name, "missing", f"not installed; needed for {purpose}", f"pip install {name}")


def _torch() -> Iterator[Check]:
    """PyTorch if it is there, unimported. Nothing is said where it is not: its wheels pin the compiler beside them."""
    version = _version("torch")
    if version is not None:
        yield Check("torch", "ok", f"{version} (vqcc.torch)")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError, ValueError, OSError):
        return None


def _wheels_in_step() -> Check:
    """NVRTC reads the headers of its own release; newer ones may use what it does not know."""
    versions = {name: _version(name) for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-runtime")}
    compiler, headers = versions.values()
    if compiler is None or headers is None:
        return Check("CUDA wheels", "warning", "NVRTC or the headers are not installed as wheels")
    if compiler.split(".")[:2] == headers.split(".")[:2]:
        return Check("CUDA wheels", "ok", f"compiler {compiler}, headers {headers}")
    pin = ".".join(compiler.split(".")[:2])
    detail = f"compiler {compiler} and headers {headers} are of different releases"
    return Check("CUDA wheels", "warning", detail, f'pip install "nvidia-cuda-runtime=={pin}.*"')


def _nvrtc() -> Check:
    """Compile a kernel, headers included: the only proof that all of it works."""
    from vqcc.codegen.toolchain import find

    try:
        toolchain = find("nvrtc")
        compiled = toolchain.compile(_KERNEL, target=_TARGET, want_ptx=False, file_name="doctor.cu")
    except VqccError as error:
        first = error.diagnostics[0]
        return Check("NVRTC", "missing", first.message, first.help)
    detail = (
        f"{toolchain.identity}: compiled a kernel for {_TARGET} ({counted(len(compiled.cubin), 'byte')});"
    )
    return Check("NVRTC", "ok", f"{detail} its cubins need driver {toolchain.minimum_driver} or newer")


def _nvcc(path: str) -> Check:
    from vqcc.codegen.toolchain import find

    found = shutil.which("nvcc", path=path)
    if found is None:
        return Check("nvcc", "warning", "not on the PATH; only --toolchain nvcc needs it")
    try:
        return Check("nvcc", "ok", f"{find('nvcc', nvcc_path=Path(found)).identity} at {found}")
    except VqccError as error:
        return Check("nvcc", "warning", error.diagnostics[0].message, error.diagnostics[0].help)


def _host_compiler(path: str) -> Check:
    for name in _HOST_COMPILERS:
        found = shutil.which(name, path=path)
        if found is not None and (said := _say([found, "--version"])) is not None:
            return Check("C++ compiler", "ok", f"{said.splitlines()[0] if said else name} at {found}")
    return Check(
        "C++ compiler",
        "warning",
        f"neither {' nor '.join(_HOST_COMPILERS)} works; the emulator compiles kernels with it",
        "install g++ 11 or newer (Debian, Ubuntu: apt install g++)",
    )


def _pycuda(path: str) -> Check:
    """Import PyCUDA in a process of its own: it loads the driver's library, which may take a process down."""
    version = _version("pycuda")
    if version is None:
        toolkit = (
            "" if shutil.which("nvcc", path=path) else "install a CUDA toolkit (nvcc on the PATH), then "
        )
        return Check(
            "pycuda",
            "warning",
            "not installed; vqcc validate --backend cuda, bench, tune and calibrate run kernels through it",
            f'{toolkit}pip install "vqcc[gpu]"; PyCUDA comes as source and is built against the toolkit',
        )
    said = _say([sys.executable, "-c", "import pycuda.driver"], want_errors=True)
    if said == "":
        return Check("pycuda", "ok", version)
    reason = said.strip().splitlines()[-1] if said and said.strip() else "its import fails"
    return Check("pycuda", "warning", f"{version} is installed, but: {reason}", "it needs the NVIDIA driver")


def _say(command: list[str], *, want_errors: bool = False) -> str | None:
    """Run a program for what it prints; with `want_errors`, for what it prints on failure ("" if none)."""
    try:
        done = subprocess.run(  # noqa: S603  (programs found on the user's own PATH)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROGRAM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error) if want_errors else None
    if want_errors:
        return "" if done.returncode == 0 else done.stderr.decode(errors="replace") or "it crashed"
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _gpus() -> Iterator[Check]:
    try:
        driver, names = _ask_driver()
    except ImportError as error:
        yield Check(
            "GPU", "warning", f"cuda-bindings cannot be imported: {error}", "pip install cuda-bindings"
        )
    except Exception as error:  # whatever a driver, its absence or its bindings come up with
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        help_text = "not needed to compile; to run kernels, install the NVIDIA driver"
        yield Check("GPU", "warning", f"no CUDA driver: {reason}", help_text)
    else:
        yield Check("CUDA driver", "ok", f"for CUDA {driver // 1000}.{driver % 1000 // 10}")
        if names:
            yield Check("GPU", "ok", "; ".join(names))
        else:
            yield Check("GPU", "warning", "the driver shows no GPU", "not needed to compile")


def why_no_gpu() -> str | None:
    """Why this machine runs no kernels, driver and GPU before all else; None if it has both, or nobody can tell."""
    last = list(_gpus())[-1]
    unknown = _version("cuda-bindings") is None  # which asks the driver
    return None if unknown or last.status == "ok" else last.detail


def _ask_driver() -> tuple[int, list[str]]:
    """Ask for the CUDA version of the driver (13020 means 13.2), and each GPU's name and architecture."""
    from cuda.bindings import driver

    def done(result: tuple[Any, ...]) -> Any:
        status, *values = result
        if int(status) != 0:
            raise RuntimeError(f"the driver answers {status.name}")
        return values[0] if values else None

    version = int(done(driver.cuDriverGetVersion()))
    done(driver.cuInit(0))
    major = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    minor = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    names = []
    for index in range(done(driver.cuDeviceGetCount())):
        device = done(driver.cuDeviceGet(index))
        name = done(driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode(errors="replace")
        sm = 10 * done(driver.cuDeviceGetAttribute(major, device))
        sm += done(driver.cuDeviceGetAttribute(minor, device))
        names.append(f"{name} (sm_{sm})")
    return version, names


def _cache(directory: Path, limit_bytes: int) -> Check:
    from vqcc.codegen.cache import CompileCache

    held = CompileCache(directory, limit_bytes).stats()
    entries = counted(held.entries, "entry", "entries")
    detail = f"{directory}: {entries}, {_size(held.total_bytes)} of {_size(limit_bytes)}"
    nearest = next((place for place in (directory, *directory.parents) if place.exists()), None)
    if nearest is None or not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Check("compile cache", "warning", f"{detail}; it cannot be written to", "use --cache-dir")
    return Check("compile cache", "ok", detail)


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
