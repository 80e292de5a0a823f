"""Where templates and ready specs are: inside an installed package, or beside it in a checkout."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

__all__ = ["specs_directory", "templates_directory", "templates_identity"]


@cache
def _find(name: str) -> Path:
    package = Path(__file__).parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name


def templates_directory() -> Path:
    """The folder of device headers and kernel templates."""
    return _find("templates")


@cache
def templates_identity() -> str:
    """12 hex digits that name the text of all templates: the code that kernels are made of."""
    root, digest = templates_directory(), hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in {".cu", ".cuh", ".j2"}:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def specs_directory() -> Path:
    """The folder of ready specs."""
    return _find("specs")
