"""Loads a bundle as what a PyTorch user calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.library import CacheLibrary, load_library
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

__all__ = ["load"]


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
    `emulator_cache`, the user's cache folder if left out. Raises ValueError for a directory that is no sound bundle.
    """
    path = Path(directory)
    cache = None if emulator_cache is None else Path(emulator_cache)
    with reported():
        library = load_library(path)
    if isinstance(library, CacheLibrary):
        runtime = AttentionRuntime(library, AttentionLaunches, overlap=overlap, emulator_cache=cache)
        return AttentionLibrary(register(runtime), rows)
    return LinearLibrary(
        register(LinearRuntime(library, LinearLaunches, overlap=overlap, emulator_cache=cache)), rows
    )
