"""Hand-written CUDA source as compilers here take it: one text, in which every line says where it comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, Span, VqccError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WrittenSource", "read_source"]

_LOCAL_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')
_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")
#: Of a file: more than any that people write.
_MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class WrittenSource:
    """The text of a source with all that it includes by `#include "..."`, and the files that it is made of.

    Files are named in it as `shown` has them, by their names alone: the text, and so the cubin, is the same in every
    directory.
    """

    text: str
    files: tuple[Path, ...]
    shown: dict[str, Path]


def read_source(path: Path) -> WrittenSource:
    """Read `path` and what it includes, each file once, where it is first included.

    Names are relative to the file that includes them. VqccError: VQ0701 for a source that cannot be read, VQ0610 at
    the place of an include that leads nowhere.
    """
    reader = _Reader(path)
    text = "\n".join(reader.lines_of(path, None)) + "\n"
    return WrittenSource(text, tuple(reader.files), reader.shown)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._root = path.parent
        self.files: list[Path] = []
        self.shown: dict[str, Path] = {}
        self._seen: set[Path] = set()

    def lines_of(self, path: Path, included_at: Span | None) -> list[str]:
        """The file's lines, those of other files where it includes them."""
        self._seen.add(path.resolve())
        self.files.append(path)
        text = _read(path, included_at)
        name = self._name_of(path)
        lines = [f'#line 1 "{name}"']
        for number, line in enumerate(text.splitlines(), 1):
            match = _LOCAL_INCLUDE.match(line)
            if match is None:
                # Each file is here once, so the text has no use for the pragma, and compilers warn of it.
                lines.append("" if _ONCE.match(line) else line)
                continue
            other = path.parent / match[1]
            if other.resolve() not in self._seen:
                place = Span(str(path), number, match.start(1) + 1, match.end(1) + 1)
                lines += self.lines_of(other, place)
            lines.append(f'#line {number + 1} "{name}"')
        return lines

    def _name_of(self, path: Path) -> str:
        """What compilers call the file; a number tells files of equal names apart."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.name)
        taken = sum(other == name or other.startswith(f"{name}.") for other in self.shown)
        name = f"{name}.{taken + 1}" if taken else name
        self.shown[name] = path
        return name


def _read(path: Path, included_at: Span | None) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if included_at is not None:
            help_text = f"{path}: {reason}; names are relative to the file that includes them"
            raise VqccError(
                Diagnostic("VQ0610", "an include leads nowhere", included_at, help=help_text)
            ) from error
        raise VqccError(
            Diagnostic("VQ0701", f"cannot read {path}: {reason}", help="give the path of a CUDA source")
        ) from error
    if len(data) > _MAX_BYTES:
        raise VqccError(Diagnostic("VQ0701", f"{path} has more than {_MAX_BYTES:,} bytes"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VqccError(Diagnostic("VQ0701", f"{path} is not UTF-8 text", help="save it as UTF-8")) from error
