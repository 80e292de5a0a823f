"""From code addresses to lines of the kernel's source."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from vqcc.emulator.errors import Location

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Places", "resolve"]

_TIMEOUT_SECONDS = 60
_OWN_HEADERS = "/emulator/host/include/"


class Places:
    """Source lines of code addresses, or functions and offsets where debug information cannot be read."""

    def __init__(
        self, module: Path, symbol: Callable[[int], tuple[str, int] | None], sites: set[int]
    ) -> None:
        self._symbol = symbol
        self._frames = resolve(module, tuple(sorted(site for site in sites if site)))

    def frames(self, site: int) -> tuple[Location, ...]:
        """The place and the calls it was inlined into, innermost first; empty for no place."""
        if not site:
            return ()
        if site in self._frames:
            return self._frames[site]
        found = self._symbol(site)
        return () if found is None else (Location(f"{found[0]}+{found[1]:#x}", "", 0),)

    def text(self, site: int) -> str:
        """The innermost place, then the outer calls, each line once."""
        return ", called from ".join(dict.fromkeys(str(frame) for frame in self.frames(site)))


def resolve(module: Path, sites: tuple[int, ...]) -> dict[int, tuple[Location, ...]]:
    """The inlined calls at each offset into the module, innermost first; empty without binutils' addr2line."""
    tool = shutil.which("addr2line")
    if tool is None or not sites:
        return {}
    addresses = [hex(site) for site in sites]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list of numbers and the cache's own file
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
            if _OWN_HEADERS in place.group(1):
                continue  # the emulator's stand-in for an intrinsic: its caller is the place
            frames.append(Location(_short(line), place.group(1).rpartition("/")[2], int(place.group(2))))
    return {site: tuple(found_frames) for site, found_frames in found.items() if found_frames}


def _short(function: str) -> str:
    """A function's name without its template arguments and parameters."""
    name = re.sub(r"\(.*", "", function)
    while (shorter := re.sub(r"<[^<>]*>", "", name)) != name:
        name = shorter
    return name.split(" ")[-1] or function
