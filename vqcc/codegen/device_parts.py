"""The device headers an emitted source needs, each once, in the order their includes ask for."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from vqcc.codegen.text import Fragment, literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["inline_headers", "is_portable", "target_of"]

_LOCAL_INCLUDE = re.compile(r'#include "([^"]+)"')
_WIDTH = 112
#: The header of instructions that no later architecture has (PTX ISA, target sm_90a). Others of them include it.
_SPECIFIC = "arch_warpgroup.cuh"


def inline_headers(directory: Path, names: Iterable[str]) -> tuple[Fragment, ...]:
    """The text of `names` (relative to `directory`) and of all they include, dependencies first.

    Local includes and include guards are dropped, and a banner names each part, so that the emitted source
    stands alone and still says where every line comes from.
    """
    order: list[Path] = []

    def visit(path: Path) -> None:
        if path in order:
            return
        for included in _included(path):
            visit(included)
        order.append(path)

    root = directory.resolve()
    for name in names:
        visit(root / name)
    return tuple(literal(_part(root, path)) for path in order)


def is_portable(source: str) -> bool:
    """Whether an emitted source has no instructions of one architecture alone: its PTX runs on later ones too."""
    return f"// ==== {_SPECIFIC} " not in source


def target_of(source: str, target: str) -> str:
    """The target that an emitted source is compiled for: with the instructions of `target` alone if it has any."""
    return target if is_portable(source) else f"{target}a"


@lru_cache(maxsize=256)
def _included(path: Path) -> tuple[Path, ...]:
    """The headers that a header includes, in order."""
    found = _LOCAL_INCLUDE.findall(path.read_text(encoding="utf-8"))
    return tuple((path.parent / name).resolve() for name in found)


@lru_cache(maxsize=256)
def _part(root: Path, path: Path) -> str:
    title = f"// ==== {path.relative_to(root).as_posix()} "
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if line != "#pragma once" and not _LOCAL_INCLUDE.match(line)
    ]
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    return f"{title:=<{_WIDTH}}\n{body}"
