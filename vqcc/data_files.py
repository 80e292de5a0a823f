"""Where templates and ready specs are: inside an installed package, or beside it in a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["specs_directory", "templates_directory"]


@cache
def _find(name: str) -> Path:
    package = Path(__file__).parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name


def templates_directory() -> Path:
    """The folder of device headers and kernel templates."""
    return _find("templates")


def specs_directory() -> Path:
    """The folder of ready specs."""
    return _find("specs")
