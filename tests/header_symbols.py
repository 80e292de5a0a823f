"""What a C header defines, read as a C programmer would: independent of vqcc.codegen.symbols."""

from __future__ import annotations

import re

__all__ = ["defined_symbols"]

_DEFINITIONS = (
    r"^#define (\w+)",
    r"^typedef (?:enum|struct) (\w+)",
    r"^\} (\w+);",
    r"^typedef \w+ (\w+);",
    r"\btypedef char (\w+)\[",
    r"^static inline [^(]*?(\w+)\(",
    r"^extern const unsigned char (\w+)\[",
)


def defined_symbols(header: str) -> frozenset[str]:
    """Macros, types, enumerators, functions and arrays that a header defines or declares, but for vqcc's own."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    found = {name for pattern in _DEFINITIONS for name in re.findall(pattern, text, re.MULTILINE)}
    for enumerators in re.findall(r"^typedef enum \w+ \{(.*?)\}", text, re.MULTILINE | re.DOTALL):
        found |= set(re.findall(r"(\w+) =", enumerators))
    return frozenset(name for name in found if not name.lower().startswith("vqcc"))
