"""Guarded YAML: bytes -> plain data and the place of every value in the file.

Specs come from strangers. Whatever makes YAML surprising or expensive is refused by name (anchors, tags,
merge keys, duplicate keys, several documents, deep nesting, size), and plain scalars mean what the core
schema of YAML 1.2 says: `no` is text, `017` is seventeen, `12:30` is text, `1e-5` is a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, Span, VqccError
from vqcc.spec.events import MAX_NODES, NOT_PRINTABLE, FieldPath, TreeBuilder
from vqcc.spec.wording import dotted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES = 1_000_000

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


@dataclass(frozen=True)
class Limits:
    """How large a file may be, in bytes and in YAML values and keys."""

    bytes: int
    nodes: int


SPEC_LIMITS = Limits(MAX_BYTES, MAX_NODES)


@dataclass(frozen=True)
class Source:
    """Plain data (dict, list, str, int, float, bool, None) and the spans of its values and keys."""

    path: str
    data: Any
    values: Mapping[FieldPath, Span]
    keys: Mapping[FieldPath, Span]
    #: What messages call the file as a whole.
    whole: str = "the spec"

    def named(self, where: FieldPath) -> str:
        """Name of a field in messages, or of the file."""
        return dotted(where, self.whole)

    def span(self, where: FieldPath) -> Span:
        """Place of a value; of the nearest enclosing one if the file does not write this one out."""
        while where not in self.values and where:
            where = where[:-1]
        return self.values.get(where, Span(self.path, 1, 1))

    def key_span(self, where: FieldPath) -> Span:
        """Place of the key that holds a value, or of the value if it has no key."""
        return self.keys.get(where) or self.span(where)


def read_source(path: Path, limits: Limits = SPEC_LIMITS) -> Source:
    """Read a YAML file. Raises VqccError (VQ01xx) with all that the guard finds."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.bytes + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise VqccError(
            Diagnostic("VQ0101", f"cannot read '{path}': {reason}", help="give the path of a YAML file")
        ) from None
    return parse_source(data, str(path), limits)


def parse_source(data: bytes, path: str, limits: Limits = SPEC_LIMITS) -> Source:
    """Parse YAML held in memory; `path` is what spans show. Raises VqccError (VQ01xx)."""
    text = _decode(data, path, limits.bytes)
    builder = TreeBuilder(path, limits.nodes)
    builder.run(text)
    builder.diagnostics.raise_if_errors()
    if not builder.has_root or builder.root is None:
        raise VqccError(
            Diagnostic("VQ0113", "the file is empty", Span(path, 1, 1), help="a spec starts with `vqcc: 1`")
        )
    return Source(path, builder.root, builder.values, builder.keys)


def _is_safetensors(data: bytes) -> bool:
    """Whether bytes start as a safetensors file does: a length of 8 bytes, the last ones zero, then a JSON object."""
    return data[5:9] == b"\0\0\0{"


def _decode(data: bytes, path: str, most_bytes: int) -> str:
    if _is_safetensors(data):
        raise VqccError(
            Diagnostic(
                "VQ0103",
                f"'{path}' is a safetensors file, and a spec is YAML text",
                help="give the spec; `vqcc quantize`, `vqcc profile`, `vqcc pack` and `vqcc validate` take tensors",
            )
        )
    if len(data) > most_bytes:
        raise VqccError(
            Diagnostic(
                "VQ0102",
                f"the file has more than {most_bytes} bytes",
                Span(path, 1, 1),
                help="a spec is a few lines of YAML: is this the right file?",
            )
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        span = _text_place(path, data[: error.start].decode("utf-8", errors="replace"))
        message = f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8"
        raise VqccError(Diagnostic("VQ0103", message, span, help="save the file as UTF-8")) from None
    text = text.removeprefix("\ufeff")
    bad = NOT_PRINTABLE.search(text)
    if bad:
        span = _text_place(path, text[: bad.start()])
        message = f"character U+{ord(bad[0]):04X} is not allowed in YAML"
        raise VqccError(Diagnostic("VQ0104", message, span, help="remove the character"))
    return text


def _text_place(path: str, before: str) -> Span:
    lines = _BREAK.split(before)
    return Span(path, len(lines), len(lines[-1]) + 1)
