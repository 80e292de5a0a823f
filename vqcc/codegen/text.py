"""What may reach a template: integers and vetted text, nothing else.

Emission is closed: no free text of a spec is ever printed into C or CUDA. A `Fragment` is text that one of
the functions here has checked; `finalize` lets only fragments and integers through.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Fragment",
    "c_identifier",
    "comment",
    "enumerator",
    "finalize",
    "hexadecimal",
    "integers",
    "literal",
    "string_text",
]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
_ENUMERATOR = re.compile(r"vqcc(::[A-Za-z][A-Za-z0-9]*)+")
_HEXADECIMAL = re.compile(r"[0-9a-f]{1,64}")
_COMMENT = re.compile(r"[ -\[\]-~]*")  # printable ASCII without the backslash, which would join lines


class Fragment(str):
    """Text that has been checked and may be printed as it is."""

    __slots__ = ()


def c_identifier(text: str) -> Fragment:
    """An identifier of C. Raises ValueError for anything else."""
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"not a C identifier: {text!r}")
    return Fragment(text)


def enumerator(text: str) -> Fragment:
    """A qualified name of the device headers. Raises ValueError for anything else."""
    if not _ENUMERATOR.fullmatch(text):
        raise ValueError(f"not a name of the device headers: {text!r}")
    return Fragment(text)


def hexadecimal(text: str) -> Fragment:
    """A string of hex digits. Raises ValueError for anything else."""
    if not _HEXADECIMAL.fullmatch(text):
        raise ValueError(f"not hexadecimal: {text!r}")
    return Fragment(text)


def comment(text: str) -> Fragment:
    """One line that cannot leave the comment it stands in. Raises ValueError for anything else."""
    if not _COMMENT.fullmatch(text) or "*/" in text or "/*" in text or "??/" in text:
        raise ValueError(f"not fit for a comment: {text!r}")
    return Fragment(text)


def string_text(text: str) -> Fragment:
    """What may stand between the quotes of a C string as it is. Raises ValueError for anything else."""
    if not _COMMENT.fullmatch(text) or '"' in text or "??" in text:
        raise ValueError(f"not fit for a string: {text!r}")
    return Fragment(text)


def literal(text: str) -> Fragment:
    """Text of our own source code: a C type, a part of a template. Never a value of a spec."""
    return Fragment(text)


def integers(values: Iterable[int]) -> Fragment:
    """Integers with commas between. Raises TypeError for anything else."""
    held = tuple(values)
    if any(type(value) is not int for value in held):
        raise TypeError(f"{held!r} are not integers")
    return Fragment(", ".join(map(str, held)))


def finalize(value: object) -> object:
    """Jinja's last step for every printed value. Raises TypeError for what is neither integer nor fragment."""
    if isinstance(value, Fragment) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise TypeError(f"a template tried to print {value!r}")
