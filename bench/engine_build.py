"""Builds examples/engine over a model spec: the model's libraries, its own kernels, and the program."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqcc.codegen.toolchain import find
from vqcc.compiling import Emit, Options, compile_file
from vqcc.cubins import CubinOptions, compile_source
from vqcc.data_files import include_directory
from vqcc.library import load_cache_library
from vqcc.tensors.cache_packed_file import save_packed_books
from vqcc.tensors.cache_random import random_cache_tensor

if TYPE_CHECKING:
    from vqcc.codegen.cache import CompileCache
    from vqcc.library import CacheLibrary

__all__ = ["ENGINE", "BuiltEngine", "build_engine"]

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "examples" / "engine"
#: The emulator needs `cu`, engine_check.py the manifests, the program the header and the objects.
EMIT: tuple[Emit, ...] = ("cu", "cubin", "header", "plan", "object")


@dataclass(frozen=True)
class BuiltEngine:
    """The program, its model's directory, and random codebooks of its cache: it cannot draw them by rows."""

    name: str
    program: Path
    model: Path
    books: Path


def build_engine(name: str, gpu: str, directory: Path, cache: CompileCache | None) -> BuiltEngine:
    """The engine over specs/`name`.yaml in `directory`; what is there of the same sources is taken.

    A program that does not start, since it was built on another kind of machine, is built again.
    """
    own = directory / f"{name}-{gpu}-{_sources_hash(name)}"
    built = BuiltEngine(name, own / "engine", own / "decoder", own / "books.safetensors")
    if not built.model.is_dir():
        options = Options(own, gpus=(gpu,), emit=EMIT, machine="x86_64")
        compile_file(ENGINE / "specs" / f"{name}.yaml", options, find("nvrtc"), cache, {})
    if not built.books.is_file():
        _draw_books(load_cache_library(built.model / "attention"), built.books)
    if not _starts(built.program):
        wanted = CubinOptions((gpu,), own, ("object",), "x86_64")
        compile_source(ENGINE / "kernels.cu", wanted, find("nvrtc"), cache)
        _link(own, built)
    return built


def _draw_books(library: CacheLibrary, path: Path) -> None:
    rng, op = np.random.default_rng(0), library.op
    keys, values = (
        random_cache_tensor(rng, side, algorithm, op.kv_heads, op.head_dim)
        for side, algorithm in (("keys", library.keys), ("values", library.values))
    )
    save_packed_books(path, library, "attention", keys, values, library.pack(keys, values))


def _link(own: Path, built: BuiltEngine) -> None:
    includes = [ENGINE.parent / "common", include_directory(), built.model, own / "kernels"]
    objects = [*sorted(built.model.glob("*/*.embedded.o")), own / "kernels" / "kernels.embedded.o"]
    command = [
        "g++",
        "-std=c++17",
        "-O2",
        *(f"-I{path}" for path in includes),
        *sorted(ENGINE.glob("*.cpp")),
        *objects,
    ]
    # One that is built beforehand, elsewhere, may find an older C++ library.
    subprocess.run([*command, "-static-libstdc++", "-static-libgcc", "-ldl", "-o", built.program], check=True)


def _starts(program: Path) -> bool:
    try:
        return subprocess.run([program, "--help"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _sources_hash(name: str) -> str:
    """Of all that the program is made of beside the compiler."""
    digest = hashlib.sha256()
    sources = [path for path in sorted(ENGINE.iterdir()) if path.suffix in {".cpp", ".hpp", ".cu", ".cuh"}]
    common = sorted((ROOT / "examples" / "common").glob("*.hpp"))
    compiler = sorted(path for path in (ROOT / "vqcc").rglob("*") if path.suffix in {".py", ".yaml"})
    templates = sorted(path for path in (ROOT / "templates").rglob("*") if path.is_file())
    for path in (*sources, *common, *compiler, *templates, ENGINE / "specs" / f"{name}.yaml"):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
