"""From code addresses to lines of the kernel's source."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from vqcc.emulator.errors import Location

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["resolve"]

_TIMEOUT_SECONDS = 60


def resolve(module: Path, sites: tuple[int, ...]) -> dict[int, tuple[Location, ...]]:
    """The inlined calls at each offset into the module, innermost first; empty without binutils' addr2line."""
    tool = shutil.which("addr2line")
    if tool is None or not sites:
        return {}
    addresses = [hex(site) for site in sites]
    try:
        done = subprocess.run(  # noqa: S603: an argument list of numbers and the cache's own file
            [tool, "-a", "-f", "-i", "-C", "-e", str(module), *addresses],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return _parse(done.stdout)


def _parse(output: str) -> dict[int, tuple[Location, ...]]:
    found: dict[int, list[Location]] = {}
    frames: list[Location] = []
    lines = iter(output.splitlines())
    for line in lines:
        if re.fullmatch(r"0x[0-9a-f]+", line):
            frames = found.setdefault(int(line, 16), [])
            continue
        place = re.match(r"(.*):(\d+|\?)", next(lines, ""))
        if place is not None and place.group(2) not in ("?", "0"):
            frames.append(Location(_short(line), place.group(1).rpartition("/")[2], int(place.group(2))))
    return {site: tuple(found_frames) for site, found_frames in found.items() if found_frames}


def _short(function: str) -> str:
    """A function's name without its template arguments and parameters."""
    name = re.sub(r"\(.*", "", function)
    while (shorter := re.sub(r"<[^<>]*>", "", name)) != name:
        name = shorter
    return name.split(" ")[-1] or function
