"""Names of the files that a compilation writes, before anything is compiled: what a build system asks for first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from vqcc.compiling import Emit

__all__ = ["bundle_files", "embedded_files", "gpu_file", "main_file", "model_files"]

#: What files that embed cubins end in, and those of each GPU, by what is emitted.
_EMBEDDED: dict[str, str] = {"object": ".embedded.o", "array": ".embedded.c"}
_GPU: dict[Emit, str] = {"cu": ".cu", "ptx": ".ptx", "cubin": ".cubin", "plan": ".plan.json"}


def bundle_files(name: str, gpus: Iterable[str], emit: Collection[Emit]) -> tuple[str, ...]:
    """Names of all files of the bundle of the library `name`, the most useful first, its manifest last."""
    from vqcc.codegen import manifest

    header = [f"{name}.h"] if "header" in emit else []
    files = [gpu_file(name, gpu, kind) for gpu in gpus for kind in _GPU if kind in emit]
    return (*header, *embedded_files(name, emit), *files, manifest.NAME)


def embedded_files(name: str, emit: Collection[str]) -> tuple[str, ...]:
    """Names of the files that embed the cubins of `name`: a header, and each form that is emitted."""
    forms = [f"{name}{end}" for kind, end in _EMBEDDED.items() if kind in emit]
    return (f"{name}.embedded.h", *forms) if forms else ()


def model_files(
    name: str, libraries: Mapping[str, str], gpus: Iterable[str], emit: Collection[Emit]
) -> tuple[str, ...]:
    """The same for the directory of a whole model; `libraries` are names of libraries by their folders."""
    from vqcc.codegen import manifest

    names = list(gpus)
    headers = [f"{name}.h"] if "header" in emit else []
    headers += embedded_files(name, emit)[:1]
    inner = [
        f"{folder}/{file}"
        for folder, library in libraries.items()
        for file in bundle_files(library, names, emit)
    ]
    return (*headers, *inner, manifest.NAME)


def gpu_file(name: str, gpu: str, kind: Emit) -> str:
    """Name of the file of a GPU that holds what is emitted as `kind`."""
    return f"{name}.{gpu}{_GPU[kind]}"


def main_file(name: str, gpus: Iterable[str], emit: Collection[Emit]) -> str:
    """The file of a bundle that stands for all of it: the header, if it has one."""
    return bundle_files(name, gpus, emit)[0]
