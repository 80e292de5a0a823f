"""GPUs vqcc knows: one data file each, `NAME.yaml` beside this file.

A new GPU is a new file. Every number in it carries its source and how far to trust it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError, did_you_mean

if TYPE_CHECKING:
    from vqcc.gpus.model import Gpu

__all__ = ["data_file_text", "load", "names"]

_DIRECTORY = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Names of all GPUs with a data file, sorted."""
    return tuple(sorted(file.stem for file in _DIRECTORY.glob("*.yaml")))


@cache
def load(name: str) -> Gpu:
    """Read one GPU. Raises VqccError (VQ0401) for a name without a data file."""
    if name not in names():
        known = f"known GPUs are {', '.join(names())}; a spec may also describe its own"
        help_text = " ".join(filter(None, (did_you_mean(name, names()), known)))
        raise VqccError(Diagnostic("VQ0401", f"unknown GPU {name[:60]!r}", help=help_text))
    # Imported here: `vqcc list` and shell completion need the names alone.
    from vqcc.gpus.loading import gpu_at
    from vqcc.spec.source import read_source

    source = read_source(_DIRECTORY / f"{name}.yaml")
    gpu = gpu_at(source, source.data)
    if isinstance(gpu, DiagnosticList):
        raise VqccError(*gpu)
    return gpu


def data_file_text(name: str) -> str:
    """The data file of a GPU that has one, as it stands."""
    return (_DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8")
