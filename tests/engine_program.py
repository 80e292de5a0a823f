"""examples/engine for tests: built by plain g++, run over the stand-in for libcuda; the emulator runs its kernels."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from emulated_gpu import EmulatedGpu, EmulatedKernel

from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.codegen.written_source import read_source
from vqcc.compiling import Options, compile_file
from vqcc.cubins import CubinOptions, compile_source
from vqcc.emulator import build
from vqcc.library import load_cache_library, load_weight_library
from vqcc.tensors.cache_packed_file import save_packed_books
from vqcc.tensors.cache_random import random_cache_tensor
from vqcc.tensors.packed_file import save_packed

if TYPE_CHECKING:
    from vqcc.cache_library import CacheLibrary
    from vqcc.emulator import Emulated
    from vqcc.library import Library

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "examples" / "engine"
STUB = Path(__file__).parent / "examples" / "stub_cuda.c"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
GPU = "h200"
LINEAR = ("qkv", "o", "gate_up", "down")

_POINTER = "void*"
#: Parameters of the kernels of kernels.cu; a tuple is a structure.
OWN_KERNELS: dict[str, list[Any]] = {
    "add_rms_norm": [*[_POINTER] * 5, "int32_t", "float"],
    "rotate_heads": [*[_POINTER] * 4, "int64_t", *["int32_t"] * 4],
    "gated_silu": [_POINTER, _POINTER, "int32_t"],
    **{
        f"causal_attention_{width}": [(*[_POINTER] * 3, "int64_t", *["int32_t"] * 3, "float")]
        for width in (64, 128, 256)
    },
}


@dataclass(frozen=True)
class Launch:
    """A launch that was written down: grid, block and shared bytes, whether it overlaps and is captured, parameters."""

    kernel: str
    shape: tuple[int, ...]
    overlaps: bool
    captured: bool
    words: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """The program, its model's directory with the libraries, and the stand-in's folder."""

    program: Path
    model: Path
    driver: Path
    emulators: Path

    @property
    def linears(self) -> dict[str, Library]:
        return {name: load_weight_library(self._library(name)) for name in LINEAR}

    @property
    def attention(self) -> CacheLibrary:
        return load_cache_library(self._library("attention"))

    def _library(self, name: str) -> Path:
        return self.model / name

    def kernels(self, *, emulated: bool = True) -> dict[str, EmulatedKernel]:
        """Every kernel of the program; without `emulated` they cannot run, and only their parameters are known."""
        own: Any = own_kernels(self.emulators) if emulated else None
        found = {name: EmulatedKernel(own, types) for name, types in OWN_KERNELS.items()}
        for library in (*self.linears.values(), self.attention):
            text = library.source(GPU)
            assert text is not None
            module: Any = build(text, cache_directory=self.emulators) if emulated else None
            for kernel in library.builds[GPU].in_cubin:
                found[kernel.name] = EmulatedKernel(module, [each.c_type for each in kernel.arguments])
        return found

    def run(
        self, record: Path, *options: str | Path | int, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it; launches are written down, and nothing is computed."""
        record.mkdir(parents=True, exist_ok=True)
        sizes = record / "kernels"
        kernels = self.kernels(emulated=False)
        sizes.write_text(
            "".join(f"{name} {' '.join(map(str, each.sizes))}\n" for name, each in kernels.items())
        )
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.driver),
            "STUB_RECORD": str(record),
            "STUB_KERNELS": str(sizes),
            **settings,
        }
        command = [self.program, *map(str, options)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def compute(self, record: Path, *options: str | Path | int) -> subprocess.CompletedProcess[str]:
        """Run it on a GPU that is emulated."""
        with EmulatedGpu(record / "emulator", self.kernels()) as gpu:
            done = self.run(record, *options, STUB_EMULATOR=str(gpu.directory))
        assert gpu.errors == []
        return done


def own_kernels(cache_directory: Path) -> Emulated:
    """The engine's own kernels, for the emulator."""
    source = read_source(ENGINE / "kernels.cu")
    return build(source.text, headers=source.headers, cache_directory=cache_directory)


def launches(record: Path) -> list[Launch]:
    found = []
    for line in (record / "launches").read_text().splitlines():
        name, *words = line.split()
        numbers = tuple(map(int, words))
        found.append(Launch(name, numbers[:7], bool(numbers[7]), bool(numbers[8]), numbers[9:]))
    return found


def build_engine(directory: Path, cache: Path) -> Engine:
    """The program over specs/tiny.yaml, for one GPU, with sanitizers."""
    compiled = CompileCache(cache / "compiled", 1 << 30)
    emit: Any = ("cu", "cubin", "header", "plan", "object")
    options = Options(directory, gpus=(GPU,), emit=emit, machine="x86_64")
    made = compile_file(ENGINE / "specs" / "tiny.yaml", options, find("nvrtc"), compiled, {})
    model = Path(made["directory"])
    own = CubinOptions((GPU,), directory, ("object",), "x86_64")
    compile_source(ENGINE / "kernels.cu", own, find("nvrtc"), compiled)
    includes = [
        ENGINE.parent / "common",
        ROOT / "templates" / "host" / "include",
        model,
        directory / "kernels",
    ]
    command = ["g++", "-std=c++17", "-O0", *WARNINGS, *SANITIZERS, *(f"-I{path}" for path in includes)]
    objects = [*sorted(model.glob("*/*.embedded.o")), directory / "kernels" / "kernels.embedded.o"]
    sources = sorted(ENGINE.glob("*.cpp"))
    subprocess.run([*command, *sources, *objects, "-ldl", "-o", directory / "engine"], check=True)
    driver = directory / "driver"
    driver.mkdir()
    library = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", STUB]
    subprocess.run([*library, "-o", driver / "libcuda.so.1"], check=True)
    return Engine(directory / "engine", model, driver, cache / "emulator")


def write_weights(engine: Engine, directory: Path, count: int) -> None:
    """Packed weights of `count` decoder layers, of which rows have sums of order 1."""
    rng = np.random.default_rng(3)
    directory.mkdir()
    for name, library in engine.linears.items():
        packed = []
        for layer in range(count):
            n, k = library.op.weight_shape
            tensor = library.algorithm.random_tensor(rng, f"layers.{layer}.{name}", n, k)
            assert tensor.codebooks is not None
            tensor = replace(tensor, codebooks=(tensor.codebooks * k**-0.5).astype(np.float16))
            packed.append((tensor, library.pack(tensor)))
        save_packed(directory / f"{name}.safetensors", library, packed)
    own, op = engine.attention, engine.attention.op
    sides = [
        random_cache_tensor(rng, side, algorithm, op.kv_heads, op.head_dim)
        for side, algorithm in (("keys", own.keys), ("values", own.values))
    ]
    path = directory / "attention.safetensors"
    save_packed_books(path, own, "attention", sides[0], sides[1], own.pack(sides[0], sides[1]))
