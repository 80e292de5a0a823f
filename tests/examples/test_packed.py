"""examples/packed: reads a packed weight in C++, and launches with the bytes that Python packed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_tools import CMAKE, WARNINGS, check_sources

from vqcc.api import pack, quantize
from vqcc.building import build_library, write_library
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.data_files import cmake_directory, include_directory
from vqcc.library import load_weight_library
from vqcc.spec.load import load_spec
from vqcc.tensors.packed_file import load_packed

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "packed"
WEIGHT = "encoder.layer.3.intermediate.dense.weight"
SIZES = {"int": 4, "float": 4}


@dataclass(frozen=True)
class Example:
    """The program, the packed file and the bundle, and the folder of the stand-in for libcuda."""

    program: Path
    packed: Path
    bundle: Path
    driver: Path

    def run(self, record: Path, *words: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        record.mkdir(exist_ok=True)
        arguments = load_weight_library(self.bundle).builds["h200"].kernels[0].arguments
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.driver),
            "STUB_DEVICE": "9 0 132",
            "STUB_RECORD": str(record),
            "STUB_SIZES": "".join(str(SIZES.get(each.c_type, 8)) for each in arguments),
            "STUB_OUTPUT": str([each.name for each in arguments].index("y")),
            **settings,
        }
        command = [self.program, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, cache_directory: Path) -> Example:
    directory = tmp_path_factory.mktemp("packed")
    cache = CompileCache(cache_directory / "compiled", 1 << 30)
    emit: Any = ("cu", "cubin", "header", "plan", "object")
    built = build_library(
        load_spec(EXAMPLE / "gate.yaml"), toolchain=find("nvrtc"), cache=cache, emit=emit, machine="x86_64"
    )
    bundle = directory / "gate"
    write_library(built, bundle)
    vq_tensors, packed = directory / "quantized.safetensors", directory / "packed.safetensors"
    weights = ROOT / "tests" / "data" / "minilm-ffn.safetensors"
    quantize(weights, WEIGHT, str(EXAMPLE / "gate.yaml"), vq_tensors)
    pack(vq_tensors, bundle, packed)
    flags = [f"-I{path}" for path in (EXAMPLE.parent / "common", include_directory(), bundle)]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    command = ["g++", "-std=c++17", *WARNINGS, *sanitizers, *flags, EXAMPLE / "main.cpp"]
    program = directory / "packed"
    subprocess.run([*command, bundle / "gate.embedded.o", "-ldl", "-o", program], check=True)
    driver = directory / "driver"
    driver.mkdir()
    stub = Path(__file__).parent / "stub_cuda.c"
    subprocess.run(["gcc", "-shared", "-fPIC", stub, "-o", driver / "libcuda.so.1"], check=True)
    return Example(program, packed, bundle, driver)


def test_it_launches_with_what_was_packed(example: Example, tmp_path: Path) -> None:
    y = np.arange(1536, dtype=np.float16)
    (tmp_path / "y").write_bytes(y.tobytes())
    done = example.run(tmp_path / "record", example.packed, WEIGHT, STUB_RESULT=str(tmp_path / "y"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "y[0] = 0\ny[1] = 1\ny[2] = 2\ny[3] = 3\n"
    library = load_weight_library(example.bundle)
    arrays = load_packed(example.packed, library)[WEIGHT]
    names = [each.name for each in library.builds["h200"].kernels[0].arguments]
    assert set(arrays) == {"codes", "books", "scales"}
    for name, array in arrays.items():
        found = (tmp_path / "record" / f"launch-0-parameter-{names.index(name)}").read_bytes()
        assert found[: array.nbytes] == array.tobytes()
    assert (tmp_path / "record" / "held").read_text().split()[:3] == ["0", "0", "0"]


@pytest.mark.parametrize(
    ("file", "name", "text"),
    [
        ("packed", "other", "the file has no such tensor (other)"),
        ("quantized", WEIGHT, "the file holds no packed weights (at byte 24)"),
        ("missing", WEIGHT, "the file cannot be read (No such file or directory)"),
        ("folder", WEIGHT, "the file cannot be read (Is a directory)"),
    ],
)
def test_what_it_refuses(file: str, name: str, text: str, example: Example, tmp_path: Path) -> None:
    path = example.packed.with_name(f"{file}.safetensors")
    if file == "folder":
        path.mkdir(exist_ok=True)
    done = example.run(tmp_path, path, name)
    assert (done.returncode, done.stderr) == (2, f"packed: {path}: {text}\n")


@pytest.mark.full
def test_cmake_builds_it(example: Example, cache_directory: Path, tmp_path: Path) -> None:
    """By the package and the example's own file, to a program that reads and launches the same."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_directory / "cmake")}
    build, package = tmp_path / "build", f"-Dvqcc_DIR={cmake_directory()}"
    for command in (
        [CMAKE, "-S", EXAMPLE, "-B", build, "-G", "Unix Makefiles", package],
        [CMAKE, "--build", build],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "y").write_bytes(np.arange(1536, dtype=np.float16).tobytes())
    printed, launched = set(), set()
    for name, program in (("plain", example.program), ("cmake", build / "packed")):
        own = replace(example, program=program)
        done = own.run(tmp_path / name, own.packed, WEIGHT, STUB_RESULT=str(tmp_path / "y"))
        assert (done.returncode, done.stderr) == (0, "")
        printed.add(done.stdout)
        launched.add(tuple((tmp_path / name / "launch-0").read_text().splitlines()[:2]))
    assert len(printed) == len(launched) == 1


def test_every_compiler_takes_it(example: Example, tmp_path: Path) -> None:
    check_sources(
        [EXAMPLE / "main.cpp"], [EXAMPLE.parent / "common", include_directory(), example.bundle], tmp_path
    )
