"""The files that a bundle depends on, for dependency files: an edit of one of them makes another bundle, or may."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.codegen.wheels import installed
from vqcc.data_files import has_lock, lock_path
from vqcc.unchanged import PACKAGES, source_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vqcc.codegen.toolchain import Toolchain
    from vqcc.codegen.wheels import Wheel

__all__ = ["absolute", "compiler_files", "spec_files"]


def spec_files(spec: Path, profiles: Iterable[str]) -> tuple[Path, ...]:
    """A spec, the profiles that it names, and the lock file beside it if there is one; all absolute.

    A lock file that is not there yet cannot be named: what waits for it would be made anew each time.
    """
    lock = lock_path(spec)
    named = [
        spec,
        *(spec.parent / profile for profile in profiles),
        *([lock] if has_lock(lock) else []),
    ]
    return tuple(absolute(path) for path in named)


def compiler_files(toolchain: Toolchain) -> tuple[Path, ...]:
    """Sources, GPU data and templates of vqcc, and the metadata of the installed packages that shape what it emits.

    Of these the path has the version, so that another one is noticed, however old an installer makes its files.
    """
    names = ["vqcc", *PACKAGES]
    compiler: list[Path] = []
    if toolchain.name == "nvcc":
        from vqcc.codegen.nvcc import Nvcc

        compiler += [toolchain.path] if isinstance(toolchain, Nvcc) else []
    else:
        from vqcc.codegen.nvrtc import COMPILER_WHEEL, HEADER_WHEEL, LIBRARY_HEADER_WHEEL

        names += [COMPILER_WHEEL, HEADER_WHEEL, LIBRARY_HEADER_WHEEL]
    wheels = [_metadata(wheel) for _, wheel in sorted(installed(names).items())]
    return tuple(absolute(path) for path in (*compiler, *wheels, *source_files()) if path is not None)


def _metadata(wheel: Wheel) -> Path | None:
    """What the folder of an installed package says of it; None if it was taken away just now."""
    for path in wheel.root.glob(f"*-{wheel.version}.dist-info/METADATA"):
        name = path.parent.name.removesuffix(f"-{wheel.version}.dist-info")
        if re.sub("[-_.]+", "-", name).lower() == wheel.name:
            return path
    return None


def absolute(path: Path) -> Path:
    """The path from the root; `..` goes where the file system leads, where tools only look at the text."""
    rooted = path.absolute()
    return Path(os.path.realpath(rooted)) if ".." in rooted.parts else rooted
