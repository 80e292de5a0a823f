"""Diagnostics as text for people (in the manner of rustc) and as JSON for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vqcc.diagnostics.model import Diagnostic, Span

_TAB = 4
_WINDOW = 120
_LEAD = 30
_MAX_SOURCE_BYTES = 4 << 20
_BOLD, _RED, _YELLOW, _BLUE, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[0m"


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """`{"diagnostics": [...]}`; keys of each: see Diagnostic.to_json. Ends without a line break."""
    import json

    return json.dumps({"diagnostics": [item.to_json() for item in diagnostics]}, indent=2)


def render_text(diagnostics: Iterable[Diagnostic], *, color: bool) -> str:
    """Message, place, source line with a caret, and help of each; ends with a line break if not empty.

    The source line is read from the span's file; where that has vanished or changed, it is left out.
    """
    sources: dict[str, list[str] | None] = {}
    return "\n".join(_render_one(item, sources, _Paint(color)) for item in diagnostics)


class _Paint:
    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if self._color and text else text


def _render_one(item: Diagnostic, sources: dict[str, list[str] | None], paint: _Paint) -> str:
    accent = _RED if item.severity == "error" else _YELLOW
    lines = [f"{paint(accent, f'{item.severity}[{item.code}]')}{paint(_BOLD, f': {_clean(item.message)}')}"]
    gutter = " "
    if item.span is not None:
        source = _source_line(item.span, sources)
        gutter = " " * len(str(item.span.line)) + " "
        lines.append(f"{gutter[:-1]}{paint(_BLUE, '-->')} {_clean(str(item.span))}")
        if source is not None:
            shown, caret = _excerpt(source, item.span)
            label = f" {_clean(item.label)}" if item.label else ""
            lines.append(paint(_BLUE, f"{gutter}|"))
            lines.append(f"{paint(_BLUE, f'{item.span.line} |')} {shown}".rstrip())
            lines.append(
                f"{paint(_BLUE, f'{gutter}|')} {_caret_pad(caret)}{paint(accent, caret.lstrip() + label)}"
            )
    if item.help:
        first, *rest = _clean(item.help, keep_lines=True).split("\n")
        lines.append(f"{gutter}{paint(_BLUE, '=')} {paint(_BOLD, 'help')}: {first}")
        lines += [f"{gutter}        {more}" for more in rest]
    return "\n".join(lines) + "\n"


def _caret_pad(caret: str) -> str:
    return " " * (len(caret) - len(caret.lstrip()))


def _source_line(span: Span, sources: dict[str, list[str] | None]) -> str | None:
    if span.text is not None:
        return span.text
    if span.path not in sources:
        sources[span.path] = _read_lines(span.path)
    lines = sources[span.path]
    if lines is None or not 1 <= span.line <= len(lines):
        return None
    return lines[span.line - 1]


def _read_lines(path: str) -> list[str] | None:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_SOURCE_BYTES)
    except (OSError, ValueError):
        return None
    # The line breaks YAML counts, and no others: str.splitlines would also break at form feeds.
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff")
    for other in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
        text = text.replace(other, "\n")
    return text.split("\n")


def _excerpt(source: str, span: Span) -> tuple[str, str]:
    """Return the printable source line, windowed around the span, and the caret line below it."""
    start = min(span.column - 1, len(source))
    end = min(max(span.end_column - 1 if span.end_column else start + 1, start + 1), len(source) + 1)
    left = max(0, min(start - _LEAD, len(source) - _WINDOW))
    right = min(len(source), left + _WINDOW)
    head = "..." if left else ""
    before = head + _expand(source[left:start])
    inside = _expand(source[start : min(end, right)])
    after = _expand(source[min(end, right) : right]) + ("..." if right < len(source) else "")
    return before + inside + after, " " * _width(before) + "^" * max(1, _width(inside))


def _expand(text: str) -> str:
    return _clean(text.replace("\t", " " * _TAB))


def _width(text: str) -> int:
    """Terminal cells: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1
        for mark in text
    )


def _clean(text: str, *, keep_lines: bool = False) -> str:
    """Make control characters visible: a spec must not be able to drive the terminal."""
    kept = "\n" if keep_lines else ""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() or mark in kept else f"\\x{ord(mark):02x}" for mark in text)
