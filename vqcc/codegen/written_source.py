"""Hand-written CUDA source as compilers here take it: files under names of their own, whatever directory they are in.

Nothing is preprocessed: the compiler meets each file as it is, as often as it is included and where it is. Only the
names in `#include "..."` are replaced, by those under which the compiler is given the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["WrittenSource", "lines_of", "read_source"]

_BLANK = r"(?:[ \t\f\v]|\\\n|/\*[^\n]*?\*/)*"
#: Also in comments and where `#if` leaves it out: a file too many does no harm, the compiler sees which it includes.
_LOCAL_INCLUDE = re.compile(
    rf'(?P<before>(?:(?:^|\*/){_BLANK}(?:#|%:){_BLANK}include|\b__has_include{_BLANK}\(){_BLANK}")(?P<name>[^"\n]+)(?=")',
    re.MULTILINE,
)
#: Of a file: more than any that people write.
_MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class WrittenSource:
    """A source with all that it may include by `#include "..."`.

    `text` includes the source, `headers` are it and the other files by the names that their includes have by now.
    Messages and `__FILE__` name a file as `shown` has it, by its name alone: what is compiled is the same in every
    directory.
    """

    text: str
    headers: Mapping[str, str]
    files: tuple[Path, ...]
    shown: Mapping[str, Path]


def read_source(path: Path) -> WrittenSource:
    """Read `path` and what it may include: files that are there, names being relative to the file that includes them.

    An include of any other name is left to the compiler. Raises VqccError VQ0701 for a source that cannot be read; a
    file that it includes is an error of the line `#error` in its place, which matters only if it really is included.
    """
    reader = _Reader()
    first = reader.name_of(path)
    while reader.waiting:
        each = reader.waiting.pop(0)
        reader.add(each, _read(each) if each == path else _read_included(each))
    return WrittenSource(f'#include "{first}"\n', reader.headers, tuple(reader.files), reader.shown)


def lines_of(text: str) -> list[str]:
    """The lines as compilers count them: other separators, such as a form feed, are blanks to them."""
    return text.replace("\r\n", "\n").split("\n")


class _Reader:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.files: list[Path] = []
        self.shown: dict[str, Path] = {}
        self.waiting: list[Path] = []
        self._names: dict[Path, str] = {}

    def name_of(self, path: Path) -> str:
        """The name by which the file is included.

        Each has a folder of its own, in which a compiler that looks beside the including file finds no other one.
        """
        place = path.resolve()
        if place not in self._names:
            self._names[place] = f"written/{len(self._names)}/{_plain(path)}"
            self.waiting.append(path)
        return self._names[place]

    def add(self, path: Path, text: str) -> None:
        """Take the text of a file that has a name; what it may include is `waiting` from then on."""

        def replaced(match: re.Match[str]) -> str:
            other = path.parent / match["name"]
            return match["before"] + (self.name_of(other) if _is_file(other) else match["name"])

        self.files.append(path)
        self.headers[self.name_of(path)] = (
            f'#line 1 "{self._shown_name(path)}"\n{_LOCAL_INCLUDE.sub(replaced, text)}'
        )

    def _shown_name(self, path: Path) -> str:
        """What compilers call the file; a number tells files of equal names apart."""
        name = plain = _plain(path)
        number = 1
        while name in self.shown:
            number += 1
            name = f"{plain}.{number}"
        self.shown[name] = path
        return name


def _plain(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _read_included(path: Path) -> str:
    try:
        return _read(path)
    except VqccError as error:
        return f"#error {error.diagnostics[0].message.replace(str(path), _plain(path))}\n"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise VqccError(
            Diagnostic("VQ0701", f"cannot read {path}: {reason}", help="give the path of a CUDA source")
        ) from error
    if len(data) > _MAX_BYTES:
        raise VqccError(Diagnostic("VQ0701", f"{path} has more than {_MAX_BYTES:,} bytes"))
    try:
        # A mark of the byte order would stand in the middle, after the line that names the file.
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise VqccError(Diagnostic("VQ0701", f"{path} is not UTF-8 text", help="save it as UTF-8")) from error
