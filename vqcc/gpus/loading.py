"""Gpu from a mapping in a file: a data file of ours, or a mapping inside a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import DiagnosticList
from vqcc.gpus.consistency import contradictions
from vqcc.gpus.model import Gpu
from vqcc.spec.violations import validate

if TYPE_CHECKING:
    from vqcc.spec.events import FieldPath
    from vqcc.spec.source import Source


def gpu_at(source: Source, data: object, where: FieldPath = ()) -> Gpu | DiagnosticList:
    """Build the Gpu that the mapping `data` at path `where` of the source describes, or all that is wrong."""
    gpu = validate(Gpu, data, source, where)
    if isinstance(gpu, DiagnosticList):
        return gpu
    found = DiagnosticList()
    for item in contradictions(gpu):
        span = source.span((*where, item.field))
        found.error("VQ0402", f"{item.field}: {item.message}", span=span, help=item.help)
    return found if found.has_errors else gpu
