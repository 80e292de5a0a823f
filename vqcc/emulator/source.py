"""Finding the kernels of a CUDA source, to register them with the emulator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["kernel_names", "with_registration"]

_COMMENT_OR_LITERAL = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)
_KERNEL = re.compile(r'extern\s*"C"\s*(?=[^;{}]*\b__global__\b)')
_TOKEN = re.compile(r"[A-Za-z_]\w*|\S")
# Words and attributes that may stand between `extern "C"` and the kernel's name; the latter take arguments.
_QUALIFIERS = frozenset({"__global__", "void", "static", "inline", "__device__", "__host__"})
_ATTRIBUTES = frozenset({"__launch_bounds__", "__cluster_dims__", "__maxnreg__", "__attribute__"})


def _without_comments(source: str) -> str:
    """The source with comments blanked and literals but `"C"` emptied; positions may shift."""

    def replace(match: re.Match[str]) -> str:
        text = match.group()
        return " " if text.startswith("/") else text if text == '"C"' else '""'

    return _COMMENT_OR_LITERAL.sub(replace, source)


def _after_parentheses(text: str, position: int) -> int:
    """The position after the group that opens at or after `position`."""
    depth = 0
    for i in range(position, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0 and text[i] == ")":
            return i + 1
    return len(text)


def _kernel_after(text: str, position: int) -> tuple[str, str] | None:
    """The name of the function declared at `position` if it has a body, and the dimensions of its clusters."""
    cluster = ""
    while match := _TOKEN.search(text, position):
        word = match.group()
        if word in _ATTRIBUTES:
            position = _after_parentheses(text, match.end())
            if word == "__cluster_dims__":
                cluster = text[match.end() : position].strip()[1:-1]
        elif word in _QUALIFIERS:
            position = match.end()
        elif not word.isidentifier():
            return None
        else:
            body = _TOKEN.search(text, _after_parentheses(text, match.end()))
            return (word, cluster) if body is not None and body.group() == "{" else None
    return None


def _kernels(source: str) -> dict[str, str]:
    """Names of the `extern "C" __global__` functions with a body, in order, and their clusters' dimensions."""
    text = _without_comments(source)
    found = (_kernel_after(text, match.end()) for match in _KERNEL.finditer(text))
    return dict(kernel for kernel in found if kernel is not None)


def kernel_names(source: str) -> tuple[str, ...]:
    """Names of the `extern "C" __global__` functions with a body, in order."""
    return tuple(_kernels(source))


def with_registration(source: str, file_name: str, headers: Iterable[str] = ()) -> str:
    """The source as the emulator compiles it: its own lines first, then the table of its and its headers' kernels."""
    kernels = {name: cluster for text in (source, *headers) for name, cluster in _kernels(text).items()}
    lines = "\n".join(
        f"VQCC_EMULATOR_KERNEL({', '.join(filter(None, kernel))})" for kernel in kernels.items()
    )
    return (
        f'#line 1 "{file_name}"\n{source}\n#line 1 "emulator registration"\n'
        f"VQCC_EMULATOR_KERNELS_BEGIN\n{lines}\nVQCC_EMULATOR_KERNELS_END\n"
    )
