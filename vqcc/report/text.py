"""Text as people read it: numbers with their words, and what of files is safe to show."""

from __future__ import annotations

__all__ = ["counted", "printable"]


def counted(count: int, one: str, several: str | None = None, *, grouped: bool = False) -> str:
    """Return `1 block`, `2 blocks`; `several` is the plural where that is not `one` and s.

    With `grouped`, thousands have commas.
    """
    number = f"{count:,}" if grouped else str(count)
    return f"{number} {one if count == 1 else several or f'{one}s'}"


def printable(text: str) -> str:
    """Return `text` with control characters escaped: a tensor's name may be anything."""
    return "".join(mark if mark.isprintable() else f"\\x{ord(mark):02x}" for mark in text)
