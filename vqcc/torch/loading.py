"""Loads a bundle, or those of a whole model, as what a PyTorch user calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.library import CacheLibrary, ModelBundleError, layer_folders, load_library
from vqcc.torch.attention_launch import AttentionLaunches
from vqcc.torch.attention_library import AttentionLibrary
from vqcc.torch.attention_runtime import AttentionRuntime
from vqcc.torch.errors import reported
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
    bundle, or a whole model's.
    """
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
        runtime = AttentionRuntime(library, AttentionLaunches, overlap=overlap, emulator_cache=cache)
        return AttentionLibrary(register(runtime), rows)
    return LinearLibrary(
        register(LinearRuntime(library, LinearLaunches, overlap=overlap, emulator_cache=cache)), rows
    )


def load_model(
    directory: str | os.PathLike[str],
    *,
    rows: int | None = None,
    overlap: bool = False,
    emulator_cache: str | os.PathLike[str] | None = None,
) -> dict[str, LinearLibrary | AttentionLibrary]:
    """Load the libraries of a whole model, by its layers' names in the spec's order; fused layers by their own names.

    Layers whose kernels are the same have one library object, and so share its workspace. Options are those of `load`,
    for every library. Raises ValueError for a directory that is no sound model.
    """
    path = Path(directory)
    with reported():
        folders = layer_folders(path)
    libraries = {
        folder: load(path / folder, rows=rows, overlap=overlap, emulator_cache=emulator_cache)
        for folder in dict.fromkeys(folders.values())
    }
    return {layer: libraries[folder] for layer, folder in folders.items()}
