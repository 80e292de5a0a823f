"""Diagnostics: coded errors with a place, help, and text or JSON rendering.

Everything that a user can cause is reported as one or more Diagnostic inside a VqccError; a traceback
means a bug in vqcc.
"""

from __future__ import annotations

from vqcc.diagnostics.codes import CODES
from vqcc.diagnostics.finding import Finding, raise_findings
from vqcc.diagnostics.model import (
    Diagnostic,
    DiagnosticList,
    ExitCode,
    Span,
    VqccError,
    did_you_mean,
    field_error,
    nearest,
)
from vqcc.diagnostics.render import render_json, render_text

__all__ = [
    "CODES",
    "Diagnostic",
    "DiagnosticList",
    "ExitCode",
    "Finding",
    "Span",
    "VqccError",
    "did_you_mean",
    "field_error",
    "nearest",
    "raise_findings",
    "render_json",
    "render_text",
]
