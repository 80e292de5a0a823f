"""Finding: a diagnostic of a spec before its place in a file is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.diagnostics.model import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Finding:
    """One thing an algorithm or an op finds wrong; `path` leads from the root of the spec to the field at fault."""

    path: tuple[str | int, ...]
    code: str
    message: str
    help: str | None = None

    def diagnostic(self) -> Diagnostic:
        """Return the same without a place in a file, for callers that have no spec."""
        return Diagnostic(self.code, self.message, help=self.help)


def raise_findings(findings: Iterable[Finding]) -> None:
    """Raise VqccError with one diagnostic per finding, if there is any."""
    found = [finding.diagnostic() for finding in findings]
    if found:
        raise VqccError(*found)
