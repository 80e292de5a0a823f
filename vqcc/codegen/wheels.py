"""Finds installed wheels by directory listings: importlib.metadata takes tens of milliseconds."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DIST_INFO = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.+!]+)\.dist-info")


@dataclass(frozen=True)
class Wheel:
    """An installed distribution: `root` is the directory on sys.path that its files lie under."""

    name: str
    version: str
    root: Path


def installed(names: Iterable[str], path: Sequence[str] | None = None) -> dict[str, Wheel]:
    """Find those of `names` ("nvidia-cuda-nvrtc") that are installed, first on `path` (sys.path) first."""
    wanted = {_normal(name): name for name in names}
    found: dict[str, Wheel] = {}
    for entry in sys.path if path is None else path:
        for wheel in _in_directory(entry or ".", wanted):
            found.setdefault(wheel.name, wheel)
    return found


def _in_directory(directory: str, wanted: dict[str, str]) -> list[Wheel]:
    try:
        listed = os.listdir(directory)  # noqa: PTH208  (names are all that is needed, and it is the fastest)
    except OSError:
        return []
    wheels = [
        Wheel(wanted[_normal(match["name"])], match["version"], Path(directory))
        for name in listed
        if name.endswith(".dist-info")
        and (match := _DIST_INFO.fullmatch(name))
        and _normal(match["name"]) in wanted
    ]
    # An interrupted upgrade may leave two of one name; the newer files are the ones that lie there.
    return sorted(wheels, key=lambda wheel: version_key(wheel.version), reverse=True)


def version_key(version: str) -> tuple[int, ...]:
    """Order versions by their numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
