"""What is wrong with a spec whose parts are each well formed: the parts may not fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, DiagnosticList
from vqcc.passes.placement import check_placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vqcc.algorithms import Algorithm
    from vqcc.diagnostics import Finding
    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Op
    from vqcc.plan import Level
    from vqcc.spec.source import Source


def check_parts(
    algorithm: Algorithm | None,
    op: Op | None,
    gpus: Sequence[Gpu],
    source: Source,
    level: Level | None = None,
) -> DiagnosticList:
    """Check every pair of parts of which both are there, and place what is found in the file.

    A problem of a field that the file does not write out is shown at what stands for it: the preset's name,
    or the key of the enclosing mapping.
    """
    found = DiagnosticList()
    if algorithm is not None:
        found.extend(placed(algorithm.check_fields(), source))
    if algorithm is not None and op is not None:
        found.extend(placed(algorithm.check(*op.weight_shape), source))
        for gpu in gpus:
            found.extend(placed(op.check(algorithm, gpu), source))
    if algorithm is not None and level is not None:
        # Where the file leaves the level to its default, the GPU is what does not fit.
        path = ("level",) if source.data.get("level") == level else ("gpu",)
        for gpu in gpus:
            found.extend(placed(check_placement(algorithm, gpu, level, path), source))
    return found


def placed(findings: Iterable[Finding], source: Source) -> list[Diagnostic]:
    """Give findings their places in the file."""
    return [Diagnostic(item.code, item.message, source.span(item.path), help=item.help) for item in findings]
