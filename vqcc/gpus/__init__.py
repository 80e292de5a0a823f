"""GPUs vqcc knows: one data file each, `NAME.yaml` beside this file.

A new GPU is a new file. Every number in it carries its source and how far to trust it.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vqcc.gpus.model import Gpu

__all__ = ["data_file_text", "load", "meant", "names"]

_DIRECTORY = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Names of all GPUs with a data file, sorted."""
    return tuple(sorted(file.stem for file in _DIRECTORY.glob("*.yaml")))


@cache
def load(name: str) -> Gpu:
    """Read one GPU. Raises VqccError (VQ0401) for a name without a data file."""
    if name not in names():
        raise VqccError(Diagnostic("VQ0401", f"unknown GPU {name[:60]!r}", help=_help(name)))
    # Imported here: `vqcc list` and shell completion need the names alone.
    from vqcc.gpus.loading import gpu_at
    from vqcc.spec.source import read_source

    source = read_source(_DIRECTORY / f"{name}.yaml")
    gpu = gpu_at(source, source.data)
    if isinstance(gpu, DiagnosticList):
        raise VqccError(*gpu)
    return gpu


def _help(name: str) -> str:
    """What to write instead of a name that is none; several in one are told apart."""
    several = [each for each in re.split(r"[,;\s]+", name[:200]) if each]
    if len(several) > 1 and set(several) <= set(names()):
        options = " ".join(f"--gpu {each}" for each in several)
        return f"name each GPU by itself: [{', '.join(several)}] in a spec, {options} on the command line"
    known = f"known GPUs are {', '.join(names())}; a spec may also describe its own"
    return " ".join(filter(None, (meant(name, names()), known)))


def meant(name: str, known: Iterable[str]) -> str | None:
    """`did you mean 'h200'?` for the nearest of `known` GPUs, None if none is near.

    Characters too many, too few or in another's place are a slip; others are another GPU, which was meant.
    """
    return did_you_mean(name, [each for each in known if _has_characters(name, each)])


def _has_characters(name: str, other: str) -> bool:
    """Whether the letters and digits of one of two names are all among those of the other."""
    one, two = (Counter(filter(str.isalnum, each.casefold())) for each in (name, other))
    return one <= two or two <= one


def data_file_text(name: str) -> str:
    """The data file of a GPU that has one, as it stands."""
    return (_DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8")
