from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import vqcc
from vqcc import doctor
from vqcc.codegen.cache import CompileCache
from vqcc.doctor import Check, diagnose

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 64 << 20


def run(tmp_path: Path, path: str = os.defpath) -> dict[str, Check]:
    checks = diagnose(path=path, cache_directory=tmp_path / "cache", cache_limit_bytes=LIMIT)
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.status in ("ok", "warning", "missing")
        assert check.detail
        assert "\n" not in check.detail
    return {check.name: check for check in checks}


def program(directory: Path, name: str, body: str) -> str:
    """Make a shell script and return a PATH on which it is found."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(directory)


def test_here(tmp_path: Path) -> None:
    checks = run(tmp_path)
    assert checks["python"].status == "ok"
    assert checks["vqcc"].detail == vqcc.__version__
    for name in ("pydantic", "nvidia-cuda-nvrtc", "NVRTC", "compile cache"):
        assert checks[name].status == "ok", checks[name]
    assert "compiled a kernel for sm_90" in checks["NVRTC"].detail
    assert "driver 580" in checks["NVRTC"].detail
    assert not (tmp_path / "cache").exists(), "looking must not create"


def test_a_machine_without_programs(tmp_path: Path) -> None:
    checks = run(tmp_path, str(tmp_path / "nothing"))
    assert checks["nvcc"].status == "warning"
    assert checks["C++ compiler"].status == "warning"
    assert "g++" in str(checks["C++ compiler"].help)


def test_nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    checks = run(tmp_path, str(tmp_path / "nothing"))
    assert (checks["pydantic"].status, checks["pydantic"].help) == ("missing", "pip install pydantic")
    assert (checks["faiss-cpu"].status, checks["faiss-cpu"].help) == (
        "warning",
        'pip install "vqcc[quantize]"',
    )
    assert checks["CUDA wheels"].status == "warning"
    pycuda = checks["pycuda"]
    assert pycuda.status == "warning"
    assert pycuda.detail == (
        "not installed; vqcc validate --backend cuda, bench, tune and calibrate run kernels through it"
    )
    assert str(pycuda.help).startswith(
        'install a CUDA toolkit (nvcc on the PATH), then pip install "vqcc[gpu]"'
    )


def test_pytorch_is_shown_where_it_is_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor asked for where it is not: beside it the compiler is another version."""
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # so that its import would fail
    monkeypatch.setattr(doctor, "_version", {"torch": "2.13.0"}.get)
    assert run(tmp_path, str(tmp_path / "nothing"))["torch"] == Check("torch", "ok", "2.13.0 (vqcc.torch)")
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert "torch" not in run(tmp_path, str(tmp_path / "nothing"))


def test_with_a_toolkit_pycuda_needs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    path = program(tmp_path / "bin", "nvcc", "echo 'release 13.0, V13.0.88'")
    checks = run(tmp_path, path)
    assert checks["nvcc"].detail == f"nvcc 13.0.88 host default at {path}/nvcc"
    assert str(checks["pycuda"].help).startswith('pip install "vqcc[gpu]"')


def test_an_nvcc_that_does_not_run(tmp_path: Path) -> None:
    check = run(tmp_path, program(tmp_path / "bin", "nvcc", "exit 1"))["nvcc"]
    assert check.status == "warning"


@pytest.mark.parametrize(
    ("name", "body", "status"), [("clang++", "echo clang 19", "ok"), ("g++", "exit 1", "warning")]
)
def test_host_compilers(tmp_path: Path, name: str, body: str, status: str) -> None:
    check = run(tmp_path, program(tmp_path / "bin", name, body))["C++ compiler"]
    assert check.status == status
    if status == "ok":
        assert check.detail == f"clang 19 at {tmp_path}/bin/clang++"


def test_a_compiler_that_says_nothing(tmp_path: Path) -> None:
    check = run(tmp_path, program(tmp_path / "bin", "g++", "exit 0"))["C++ compiler"]
    assert check.detail == f"g++ at {tmp_path}/bin/g++"


def test_a_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROGRAM_SECONDS", 0.1)
    check = doctor._host_compiler(program(tmp_path / "bin", "g++", "exec sleep 30"))
    assert check.status == "warning"


def test_nvrtc_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    check = doctor._nvrtc()
    assert (check.status, check.detail) == ("missing", "NVRTC is not installed")
    assert "pip install" in str(check.help)


def test_wheels_of_different_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"nvidia-cuda-nvrtc": "13.0.88", "nvidia-cuda-runtime": "13.5.37"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    check = doctor._wheels_in_step()
    assert (check.status, check.help) == ("warning", 'pip install "nvidia-cuda-runtime==13.0.*"')


def test_a_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 10, 4, "final", 0))
    assert doctor._python() == Check("python", "missing", "3.10.4", "vqcc needs Python 3.11 or newer")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "Traceback\nImportError: libcuda.so.1: cannot open",
            "2025.1 is installed, but: ImportError: libcuda.so.1",
        ),
        ("it crashed", "2025.1 is installed, but: it crashed"),
        ("\n", "2025.1 is installed, but: its import fails"),
    ],
)
def test_a_pycuda_that_does_not_import(monkeypatch: pytest.MonkeyPatch, error: str, said: str) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "2025.1")
    monkeypatch.setattr(doctor, "_say", lambda *_, **__: error)
    check = doctor._pycuda("")
    assert check.status == "warning"
    assert check.detail.startswith(said)


def test_a_pycuda_that_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "2025.1")
    monkeypatch.setattr(doctor, "_say", lambda *_, **__: "")
    assert doctor._pycuda("") == Check("pycuda", "ok", "2025.1")


def test_failures_of_programs_come_with_their_words(tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    program(directory, "p", "echo words >&2; exit 1")
    assert doctor._say([f"{directory}/p"], want_errors=True) == "words\n"
    program(directory, "p", "kill -SEGV $$")
    assert doctor._say([f"{directory}/p"], want_errors=True) == "it crashed"
    assert "No such file" in str(doctor._say([f"{directory}/q"], want_errors=True))


# The driver, played by a stand-in: what matters is that no answer of it raises.


def fake_driver(**answers: object) -> SimpleNamespace:
    success = type("Status", (int,), {"name": "CUDA_SUCCESS"})(0)
    attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
    )
    calls = {
        "cuDriverGetVersion": lambda: (success, 13020),
        "cuInit": lambda flags: (success,),
        "cuDeviceGetCount": lambda: (success, 2),
        "cuDeviceGet": lambda index: (success, index),
        "cuDeviceGetName": lambda size, device: (success, b"GPU %d\0\0" % device),
        "cuDeviceGetAttribute": lambda which, device: (success, {"major": 9, "minor": 0}[which]),
        **answers,
    }
    return SimpleNamespace(CUdevice_attribute=attribute, **calls)


def gpus(monkeypatch: pytest.MonkeyPatch, **answers: object) -> list[Check]:
    monkeypatch.setattr("cuda.bindings.driver", fake_driver(**answers), raising=False)
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.driver", fake_driver(**answers))
    return list(doctor._gpus())


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus(monkeypatch) == [
        Check("CUDA driver", "ok", "for CUDA 13.2"),
        Check("GPU", "ok", "GPU 0 (sm_90); GPU 1 (sm_90)"),
    ]


def test_a_driver_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    success = type("Status", (int,), {"name": "CUDA_SUCCESS"})(0)
    driver, gpu = gpus(monkeypatch, cuDeviceGetCount=lambda: (success, 0))
    assert (driver.status, gpu.status) == ("ok", "warning")


def test_a_driver_that_answers_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = type("Status", (int,), {"name": "CUDA_ERROR_NO_DEVICE"})(100)
    (check,) = gpus(monkeypatch, cuInit=lambda flags: (failed,))
    assert (check.status, check.detail) == (
        "warning",
        "no CUDA driver: the driver answers CUDA_ERROR_NO_DEVICE",
    )


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (RuntimeError("no libcuda\nmore"), "no CUDA driver: no libcuda"),
        (RuntimeError(), "no CUDA driver: RuntimeError()"),
        (ImportError("no cuda"), "cuda-bindings cannot be imported: no cuda"),
        (OSError(2, "gone"), "no CUDA driver: [Errno 2] gone"),
    ],
)
def test_a_driver_that_raises(monkeypatch: pytest.MonkeyPatch, error: Exception, detail: str) -> None:
    def ask() -> tuple[int, list[str]]:
        raise error

    monkeypatch.setattr(doctor, "_ask_driver", ask)
    (check,) = doctor._gpus()
    assert (check.status, check.detail) == ("warning", detail)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RuntimeError("no libcuda"), "no CUDA driver: no libcuda"),
        ((13020, []), "the driver shows no GPU"),
        ((13020, ["GPU 0 (sm_90)"]), None),
    ],
)
def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, answer: Any, expected: str | None) -> None:
    def ask() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(doctor, "_ask_driver", ask)
    monkeypatch.setattr(doctor, "_version", lambda _name: "13.0")
    assert doctor.why_no_gpu() == expected
    monkeypatch.setattr(doctor, "_version", lambda _name: None)
    assert doctor.why_no_gpu() is None


def test_the_cache(tmp_path: Path) -> None:
    CompileCache(tmp_path / "cache", LIMIT).put("0" * 64, bytes(3 << 20))
    check = run(tmp_path)["compile cache"]
    assert check == Check("compile cache", "ok", f"{tmp_path}/cache: 1 entry, 3.0 MiB of 64.0 MiB")


def test_a_cache_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    check = run(tmp_path)["compile cache"]
    assert check.status == "warning"
    assert "cannot be written to" in check.detail
