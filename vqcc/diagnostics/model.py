"""Diagnostic, its place in a file, the exception that carries several, and the process exit codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from vqcc.diagnostics.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ExitCode(IntEnum):
    """What the process returns; stable, so that scripts may test it."""

    OK = 0
    INPUT = 1
    USAGE = 2
    TOOLCHAIN = 3
    MISMATCH = 4
    NO_DEVICE = 5
    INTERNAL = 70


@dataclass(frozen=True)
class Span:
    """A place in a file: 1-based line, columns counted in characters, `end_column` exclusive.

    `text` is the line where the file counts lines otherwise than YAML does; else whoever shows it reads the file.
    """

    path: str
    line: int
    column: int
    end_column: int | None = None
    text: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One thing that is wrong, where it is wrong, and what would be right.

    `label` is the text beside the caret, `help` says what would be legal.
    """

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    label: str | None = None
    severity: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"diagnostic code {self.code!r} is not in vqcc.diagnostics.CODES")

    @property
    def title(self) -> str:
        """The short title of the code."""
        return CODES[self.code]

    def to_json(self) -> dict[str, str | int | None]:
        """Flat mapping with every key always present, so that readers need no `get`."""
        return {
            "code": self.code,
            "title": self.title,
            "severity": self.severity,
            "message": self.message,
            "label": self.label,
            "help": self.help,
            "path": self.span.path if self.span else None,
            "line": self.span.line if self.span else None,
            "column": self.span.column if self.span else None,
            "end_column": self.span.end_column if self.span else None,
        }


class VqccError(Exception):
    """Everything that is wrong with one input. Carries at least one diagnostic."""

    def __init__(self, *diagnostics: Diagnostic, exit_code: ExitCode = ExitCode.INPUT) -> None:
        if not diagnostics:
            raise ValueError("VqccError needs at least one diagnostic")
        super().__init__(*diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics
        self.exit_code = exit_code

    def __str__(self) -> str:
        return "\n".join(
            f"{f'{item.span}: ' if item.span else ''}{item.severity}[{item.code}]: {item.message}"
            for item in self.diagnostics
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process boundaries when several specs are compiled at once.
        return _rebuild, (self.diagnostics, self.exit_code)


def _rebuild(diagnostics: tuple[Diagnostic, ...], exit_code: ExitCode) -> VqccError:
    return VqccError(*diagnostics, exit_code=exit_code)


class DiagnosticList:
    """Collects diagnostics, so that all of one input are reported together."""

    def __init__(self, diagnostics: Iterable[Diagnostic] = ()) -> None:
        self._items: list[Diagnostic] = list(diagnostics)

    def add(self, diagnostic: Diagnostic) -> None:
        """Append one, dropping an exact repetition."""
        if diagnostic not in self._items:
            self._items.append(diagnostic)

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Append several."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def error(
        self,
        code: str,
        message: str,
        *,
        span: Span | None = None,
        help: str | None = None,  # noqa: A002  (the word the output uses)
        label: str | None = None,
    ) -> None:
        """Append an error."""
        self.add(Diagnostic(code, message, span=span, help=help, label=label))

    @property
    def has_errors(self) -> bool:
        """Whether anything collected is more than a warning."""
        return any(item.severity == "error" for item in self._items)

    def in_file_order(self) -> tuple[Diagnostic, ...]:
        """Sort by place in the file; those without a place come last, in the order they were added."""
        return tuple(sorted(self._items, key=_place))

    def raise_if_errors(self, exit_code: ExitCode = ExitCode.INPUT) -> None:
        """Raise VqccError with everything collected, warnings included, if any of it is an error."""
        if self.has_errors:
            raise VqccError(*self._items, exit_code=exit_code)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)


def _place(diagnostic: Diagnostic) -> tuple[bool, str, int, int]:
    span = diagnostic.span
    return (True, "", 0, 0) if span is None else (False, span.path, span.line, span.column)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `word` is most like, None if it is like none."""
    from difflib import get_close_matches

    folded = {candidate.casefold(): candidate for candidate in sorted(candidates, reverse=True)}
    # Bounded: difflib is quadratic, and nobody mistypes a name into a hundred characters.
    near = get_close_matches(word[:100].casefold(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """`did you mean 'aqlm-3'?` for the nearest candidate, None if none is near."""
    near = nearest(word, candidates)
    return f"did you mean '{near}'?" if near else None


def field_error(code: str, message: str, help: str | None = None) -> ValueError:  # noqa: A002
    """Make the exception that a pydantic validator raises to report `code` at its field.

    The spec loader turns it into a Diagnostic at the field's place in the file:
    `raise field_error("VQ0205", "entries must be a power of two, got 300", "use 256 or 512")`.
    """
    from pydantic_core import PydanticCustomError

    if code not in CODES:
        raise ValueError(f"diagnostic code {code!r} is not in vqcc.diagnostics.CODES")
    return PydanticCustomError(code, "{text}", {"text": message, "help": help})
