"""Plain YAML scalars as YAML 1.2's core schema reads them (YAML 1.2.2, section 10.3.2)."""

from __future__ import annotations

import re

_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float("inf") for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **{"-" + word: float("-inf") for word in (".inf", ".Inf", ".INF")},
}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS = 400


def resolve(text: str) -> str | int | float | bool | None:
    """Value of a plain scalar. Raises ValueError for a number too long to be meant."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    # Most plain scalars are words; their first letter settles it.
    if not text[0].isascii() or text[0].isalpha():
        return text
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise ValueError(f"a number of {len(text)} characters")
            return int(text.replace("0o", ""), base) if base == 8 else int(text, base)
    return float(text) if _FLOAT.fullmatch(text) else text
