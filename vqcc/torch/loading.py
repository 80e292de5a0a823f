"""Loads a bundle, or those of a whole model, as what a PyTorch user calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.library import CacheLibrary, ModelBundleError, layer_folders, load_library
from vqcc.torch.attention_launch import AttentionLaunches
from vqcc.torch.attention_library import AttentionLibrary
from vqcc.torch.attention_runtime import AttentionRuntime
from vqcc.torch.errors import reported
from vqcc.torch.kinds import type_name
from vqcc.torch.linear_launch import LinearLaunches
from vqcc.torch.linear_library import LinearLibrary
from vqcc.torch.linear_runtime import LinearRuntime
from vqcc.torch.runtime import register

if TYPE_CHECKING:
    import os

__all__ = ["load", "load_model"]


def load(
    directory: str | os.PathLike[str],
    *,
    rows: int | None = None,
    overlap: bool = False,
    emulator_cache: str | os.PathLike[str] | None = None,
) -> LinearLibrary | AttentionLibrary:
    """Load the bundle of one library, which `vqcc compile` wrote. Nothing goes to a GPU yet.

    `rows` is the most rows of x that launches of a linear library will have: it bounds the workspace, which is made for
    the most that the library serves without it. With `overlap` a launch may start while the kernel before it in the
    stream ends (docs/header.md). Tensors on the CPU are run by the emulator, which keeps what it compiles in
    `emulator_cache`, if left out in a temporary directory of this process.

    Kernels of one build and `overlap` are loaded once in a process, however often they are asked for. They have one
    `emulator_cache`, the first that is given: ValueError for another. ValueError also for a directory that is no sound
    bundle, or a whole model's, and for rows that no launch of the library has.
    """
    runtime = _runtime_of(directory, overlap=overlap, emulator_cache=emulator_cache)
    if rows is not None:
        _check_rows(rows, _most_rows(runtime), f"library {runtime.library.name}")
    return _library_of(runtime, Path(directory), rows)


def _runtime_of(
    directory: str | os.PathLike[str], *, overlap: bool, emulator_cache: str | os.PathLike[str] | None
) -> LinearRuntime | AttentionRuntime:
    """The runtime of a bundle's library, known to the operators."""
    path = Path(directory)
    # Whole, so that it is the same wherever the process goes.
    cache = None if emulator_cache is None else Path(emulator_cache).resolve()
    with reported():
        try:
            library = load_library(path)
        except ModelBundleError as error:
            (item,) = error.diagnostics
            raise ValueError(
                f"[{item.code}] {item.message}. Help: load all with vqcc.torch.load_model(), or {item.help}"
            ) from error
    if isinstance(library, CacheLibrary):
        return register(AttentionRuntime(library, AttentionLaunches, overlap=overlap, emulator_cache=cache))
    return register(LinearRuntime(library, LinearLaunches, overlap=overlap, emulator_cache=cache))


def _library_of(
    runtime: LinearRuntime | AttentionRuntime, directory: Path, rows: int | None
) -> LinearLibrary | AttentionLibrary:
    """What a user calls. A library of attention has no rows, and one with fewer rows than these has its own."""
    if isinstance(runtime, AttentionRuntime):
        return AttentionLibrary(runtime, directory)
    return LinearLibrary(runtime, directory, None if rows is None else min(rows, _most_rows(runtime)))


def _most_rows(runtime: LinearRuntime | AttentionRuntime) -> int:
    """The most rows of x that a launch has; 0: no launch has any."""
    return runtime.any_launches.max_m if isinstance(runtime, LinearRuntime) else 0


def _check_rows(rows: int, most: int, served: str) -> None:
    """Raise TypeError or ValueError for a bound on the rows of x that none of `served` has."""
    if not isinstance(rows, int) or isinstance(rows, bool):
        raise TypeError(f"rows is {type_name(rows)}, not int")
    if not most:
        raise ValueError(
            f"launches of attention have no rows of x, and {served} has no others: leave rows out"
        )
    if not 1 <= rows <= most:
        raise ValueError(f"rows is {rows}; launches of {served} have 1 to {most} rows of x")


def load_model(
    directory: str | os.PathLike[str],
    *,
    rows: int | None = None,
    overlap: bool = False,
    emulator_cache: str | os.PathLike[str] | None = None,
) -> dict[str, LinearLibrary | AttentionLibrary]:
    """Load the libraries of a whole model, by its layers' names in the spec's order; fused layers by their own names.

    Layers whose kernels are the same have one library object, and so share its workspace. Options are those of `load`,
    for every library; where `rows` is more than a library serves, that has its own most. Raises ValueError
    for a directory that is no sound model, and for rows that no library of it serves.
    """
    path = Path(directory)
    with reported():
        folders = layer_folders(path)
    runtimes = {
        folder: _runtime_of(path / folder, overlap=overlap, emulator_cache=emulator_cache)
        for folder in dict.fromkeys(folders.values())
    }
    if rows is not None:
        _check_rows(rows, max(map(_most_rows, runtimes.values())), f"model {path.name}")
    libraries = {folder: _library_of(runtime, path / folder, rows) for folder, runtime in runtimes.items()}
    return {layer: libraries[folder] for layer, folder in folders.items()}
