"""Where files are: templates and ready specs, installed or in a checkout, and the lock file of a spec."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from hashlib import _Hash as Hash

__all__ = [
    "add_files",
    "cmake_directory",
    "files_below",
    "has_lock",
    "include_directory",
    "lock_path",
    "specs_directory",
    "templates_directory",
    "templates_identity",
]


@cache
def _find(name: str) -> Path:
    package = Path(__file__).parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name


def templates_directory() -> Path:
    """The folder of device headers and kernel templates."""
    return _find("templates")


def cmake_directory() -> Path:
    """The folder of the CMake package, for `-Dvqcc_DIR`."""
    return templates_directory() / "host" / "cmake"


def include_directory() -> Path:
    """The folder of headers for host programs: `#include "vqcc/..."`."""
    return templates_directory() / "host" / "include"


#: The most bytes of a lock file: all candidates of a few specs, or of a whole model, on a few GPUs.
MAX_LOCK_BYTES = 10_000_000


def lock_path(spec: Path) -> Path:
    """The lock file of a spec: NAME.lock.yaml beside NAME.yaml."""
    return spec.with_name(f"{spec.stem}.lock.yaml")


def has_lock(lock: Path) -> bool:
    """Whether there is such a lock file, a link that leads nowhere included: it was meant to be one."""
    return lock.exists() or lock.is_symlink()


def files_below(root: Path, suffixes: Collection[str], without: Path | None = None) -> Iterator[Path]:
    """The files below `root` that end so, in order, less those below `without`."""
    for path in sorted(root.rglob("*")):
        if path.suffix in suffixes and without not in path.parents:
            yield path


def add_files(digest: Hash, root: Path, suffixes: Collection[str], without: Path | None = None) -> None:
    """Add the names and contents of the files below `root` that end so to a hash, less those below `without`."""
    for path in files_below(root, suffixes, without):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())


@cache
def templates_identity() -> str:
    """12 hex digits that name the code that kernels are made of: less headers for hosts and what calibrates a GPU."""
    digest = hashlib.sha256()
    for part in ("device", "kernels"):
        add_files(digest, templates_directory() / part, (".cuh", ".j2"))
    return digest.hexdigest()[:12]


def specs_directory() -> Path:
    """The folder of ready specs."""
    return _find("specs")
