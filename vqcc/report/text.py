"""Text of files that is safe to show."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return `text` with control characters escaped: a tensor's name may be anything."""
    return "".join(mark if mark.isprintable() else f"\\x{ord(mark):02x}" for mark in text)
