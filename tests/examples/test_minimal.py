"""examples/minimal: built by plain g++, over a stand-in for libcuda; its launch is that of the Python harness."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_tools import CMAKE, check_sources

from vqcc.building import build_library, write_library
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.library import Library, load_library
from vqcc.runtime.backend import CudaRunner
from vqcc.spec.load import load_spec
from vqcc.verify.backends import EmulatorBackend

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "minimal"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
DEVICES = {"h200": "9 0 132", "rtx4090": "8 9 128"}
OUTPUT = "y"


@dataclass(frozen=True)
class Example:
    """The program, the library that it embeds, and the folder of the stand-in."""

    program: Path
    library: Library
    driver: Path

    def run(self, record: Path, **settings: str) -> subprocess.CompletedProcess[str]:
        record.mkdir(exist_ok=True)
        sizes = "".join(str(size_of(each.c_type)) for each in self.arguments)
        names = [each.name for each in self.arguments]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.driver),
            "STUB_RECORD": str(record),
            "STUB_SIZES": sizes,
            "STUB_OUTPUT": str(names.index(OUTPUT)),
            **settings,
        }
        return subprocess.run([self.program], env=environment, capture_output=True, text=True, check=False)

    @property
    def arguments(self) -> Any:
        return self.library.builds["h200"].kernels[0].arguments


def size_of(c_type: str) -> int:
    return {"int": 4, "int32": 4, "float": 4}.get(c_type, 8)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, cache_directory: Path) -> Example:
    directory = tmp_path_factory.mktemp("minimal")
    spec = load_spec(EXAMPLE / "minimal.yaml")
    cache = CompileCache(cache_directory / "compiled", 1 << 30)
    emit: Any = ("cu", "cubin", "header", "plan", "object")
    built = build_library(spec, toolchain=find("nvrtc"), cache=cache, emit=emit, machine="x86_64")
    write_library(built, directory / "out" / "minimal")
    bundle = directory / "out" / "minimal"
    includes = [EXAMPLE.parent / "common", ROOT / "templates" / "host" / "include", bundle]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    flags = [f"-I{path}" for path in includes]
    command = ["g++", "-std=c++17", *WARNINGS, *sanitizers, *flags, EXAMPLE / "main.cpp"]
    program = directory / "minimal"
    subprocess.run([*command, bundle / "minimal.embedded.o", "-ldl", "-o", program], check=True)
    driver = directory / "driver"
    driver.mkdir()
    stub = Path(__file__).parent / "stub_cuda.c"
    library = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", stub]
    subprocess.run([*library, "-o", driver / "libcuda.so.1"], check=True)
    return Example(program, load_library(bundle), driver)


def recorded(record: Path, number: int = 0) -> tuple[list[int], str, list[int]]:
    """Grid, block and shared bytes of a launch, its kernel, its parameters."""
    numbers, name, *parameters = (record / f"launch-{number}").read_text().splitlines()
    return [int(word) for word in numbers.split()], name, [int(word) for word in parameters]


def inputs_of(example: Example, record: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What the launch's parameters point to, by their names."""
    found = {}
    for number, argument in enumerate(example.arguments):
        path = record / f"launch-0-parameter-{number}"
        if path.exists():
            found[argument.name] = np.frombuffer(path.read_bytes(), np.uint8).copy()
    return found


def test_what_the_library_computes_is_right(example: Example, tmp_path: Path, cache_directory: Path) -> None:
    """The program makes its inputs, the emulator the result, and the program finds it right; and another one wrong."""
    done = example.run(tmp_path / "first")
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
    assert done.stdout == "h200: 0 of 256 rows are right\n"  # nothing was computed
    inputs = inputs_of(example, tmp_path / "first")
    typed = {
        "codes": inputs["codes"].view(np.uint32),
        "books": inputs["books"],
        "scales": inputs["scales"].view(np.float32),
        "x": inputs["x"].view(np.float16),
    }
    (kernel,) = example.library.builds["h200"].kernels
    y = np.full(256, np.nan, np.float16)
    runner = EmulatorBackend(cache_directory / "emulator").load(example.library, "h200")
    scalars = {"m": 1, "x_stride": 0, "y_stride": 0}
    runner.run(kernel, typed, {OUTPUT: y}, scalars, np.zeros(0, np.uint8))
    for wrong, status in ((0, 0), (1, 1), (256, 1)):
        y[:wrong] += np.float16(64)
        (tmp_path / "result").write_bytes(y.tobytes())
        done = example.run(tmp_path / "second", STUB_RESULT=str(tmp_path / "result"))
        assert done.stdout == f"h200: {256 - wrong} of 256 rows are right\n"
        assert (done.returncode, done.stderr) == (status, "")


@dataclass
class FakeDevice:
    """Writes down what the Python harness launches."""

    launches: list[tuple[list[int], str, list[int]]] = field(default_factory=list)

    def load(self, cubin: bytes) -> FakeDevice:
        return self

    def function(self, name: str, shared_bytes: int, carveout_percent: int) -> str:
        return name

    def launch(self, function: str, arguments: list[Any], grid: int, threads: int, shared_bytes: int) -> None:
        numbers = [grid, 1, 1, threads, 1, 1, shared_bytes]
        self.launches.append((numbers, function, [int(value) for value in arguments]))


@dataclass(frozen=True)
class Held:
    address: int


@pytest.mark.parametrize("gpu", list(DEVICES))
def test_the_launch_is_that_of_the_python_harness(gpu: str, example: Example, tmp_path: Path) -> None:
    done = example.run(tmp_path / "record", STUB_DEVICE=DEVICES[gpu])
    assert done.stdout == f"{gpu}: 0 of 256 rows are right\n"
    own = recorded(tmp_path / "record")
    (kernel,) = example.library.builds[gpu].kernels
    values = dict(zip((each.name for each in kernel.arguments), own[2], strict=True))
    device = FakeDevice()
    runner = CudaRunner(device, example.library, gpu, b"")  # type: ignore[arg-type]
    arrays: Any = {name: Held(value) for name, value in values.items() if value > 1 << 32}
    runner.enqueue(kernel, arrays, {name: values[name] for name in ("m", "x_stride", "y_stride")})
    assert device.launches == [own]
    assert set(arrays) == {"codes", "books", "scales", "x", "y"}


def holds_nothing(record: Path) -> bool:
    """Whether the program, which was initialized, gave all back to the driver."""
    return (record / "held").read_text() == "0 0 0 0\n"


def test_everything_is_given_back(example: Example, tmp_path: Path) -> None:
    example.run(tmp_path / "record")
    assert holds_nothing(tmp_path / "record")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"STUB_DEVICE": "8 0 108"}, "the library was not compiled for this GPU, but for h200"),
        ({"STUB_FAIL": "cuInit"}, "cuInit failed: CUDA error 100"),
        ({"STUB_FAIL": "cuMemAlloc_v2"}, "cuMemAlloc_v2 failed: CUDA error 2"),
        ({"STUB_FAIL": "cuModuleLoadData"}, "the driver refused the cubin"),
        (
            {"STUB_FAIL": "cuModuleLoadData", "STUB_ERROR": "2"},
            "the driver has not the memory to load or launch",
        ),
        ({"STUB_FAIL": "cuModuleGetFunction"}, "the cubin is not this library's"),
        ({"STUB_FAIL": "cuFuncSetAttribute"}, "the driver refused the kernel's shared memory"),
        ({"STUB_FAIL": "cuLaunchKernel"}, "the driver refused the launch"),
        ({"STUB_FAIL": "cuCtxSynchronize"}, "cuCtxSynchronize failed: CUDA error 719"),
        ({"LD_LIBRARY_PATH": "/nowhere"}, "there is no libcuda.so.1"),
    ],
)
def test_what_goes_wrong_is_said(
    settings: dict[str, str], text: str, example: Example, tmp_path: Path
) -> None:
    done = example.run(tmp_path / "record", **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("minimal: ")
    assert text in done.stderr
    # Without a driver, or one that is not initialized, there is nothing to hold.
    if not {"LD_LIBRARY_PATH": "/nowhere", "STUB_FAIL": "cuInit"}.items() & settings.items():
        assert holds_nothing(tmp_path / "record")


def test_cmake_builds_it(example: Example, cache_directory: Path, tmp_path: Path) -> None:
    """By the package and the example's own file, to a program that launches the same."""
    package = ROOT / "templates" / "host" / "cmake"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_directory / "cmake")}
    build = tmp_path / "build"
    for command in (
        [CMAKE, "-S", EXAMPLE, "-B", build, "-G", "Unix Makefiles", f"-Dvqcc_DIR={package}"],
        [CMAKE, "--build", build],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    example.run(tmp_path / "plain")
    done = Example(build / "minimal", example.library, example.driver).run(tmp_path / "cmake")
    assert (done.returncode, done.stdout, done.stderr) == (1, "h200: 0 of 256 rows are right\n", "")
    assert recorded(tmp_path / "cmake")[:2] == recorded(tmp_path / "plain")[:2]


def test_every_compiler_takes_it(example: Example, tmp_path: Path) -> None:
    bundle = example.program.parent / "out" / "minimal"
    includes = [EXAMPLE.parent / "common", ROOT / "templates" / "host" / "include", bundle]
    check_sources([EXAMPLE / "main.cpp"], includes, tmp_path)


def test_it_is_short() -> None:
    assert len((EXAMPLE / "main.cpp").read_text().splitlines()) < 100
