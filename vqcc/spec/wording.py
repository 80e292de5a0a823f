"""How messages name fields and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vqcc.spec.events import FieldPath


def dotted(path: FieldPath, whole: str = "the spec") -> str:
    """Name of a field in messages: `op.m[0]`, counted from 0; of the file as a `whole` without a path."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or whole


def describe(value: object) -> str:
    """Name a value in a sentence: the text 'abc', a list."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    return shorten(str(value))


def quoted(text: str) -> str:
    """Return the text in quotes, escaped and cut to a readable length."""
    return shorten(repr(text))


def shorten(text: str, limit: int = 60) -> str:
    """Cut a text that is long."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def choose(word: object, legal: Iterable[str]) -> str:
    """Help for a word that is none of the legal ones: did you mean 'sc'? use gc or sc."""
    words = list(legal)
    near = did_you_mean(word, words) if isinstance(word, str) and len(words) > 1 else None
    return f"{near} use {either(words)}" if near else f"use {either(words)}"


def either(words: list[str], last: str = "or") -> str:
    """Join words: a, b or c."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def flow(value: object) -> str:
    """Write a value as a spec would, on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {flow(item)}' for key, item in value.items())}}}"
    return str(value)
