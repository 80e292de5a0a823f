"""Tensor parallelism: a layer as the file has it -> the equal part of it that each rank has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.ops import OPS
from vqcc.spec.load import LAYERS
from vqcc.spec.wording import choose, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.ops.fields import Division
    from vqcc.spec.source import Source

__all__ = ["divided"]


def divided(
    source: Source, name: str, data: Mapping[str, Any], parallel: object, ranks: int
) -> tuple[Division | None, dict[str, Any]]:
    """How ranks share the layer `name`, None where each has all of it, and a rank's part of its mapping.

    Whatever is no integer stays, for the op's own checks. Raises VqccError: VQ0216 for a way that the op does not have,
    VQ0217 for a field that is no multiple of the ranks.
    """
    op = data.get("op")
    kind = OPS.get(str(op.get("kind"))) if isinstance(op, dict) else None
    if parallel is None or kind is None or not isinstance(op, dict):
        return None, dict(data)
    found = DiagnosticList()
    division = kind.divisions.get(parallel) if isinstance(parallel, str) else None
    if division is None:
        found.error(
            "VQ0216",
            f"ranks cannot share {name}, a layer of {op['kind']}, by {describe(parallel)}",
            span=source.span((LAYERS, name, "parallel")),
            help=f"{choose(parallel, kind.divisions)}, or leave it out: every rank then has the whole layer",
        )
        raise VqccError(*found.in_file_order())
    own = dict(op)
    for field in division.fields:
        value = own.get(field)
        if type(value) is not int:
            continue
        if value % ranks:
            found.error(
                "VQ0217",
                f"{ranks} ranks cannot share {field} = {value} of {name} evenly",
                span=source.span((LAYERS, name, "op", field)),
                help=f"with tensor_parallel: {ranks}, {field} must be a multiple of {ranks}",
            )
        own[field] = value // ranks
    if found.has_errors:
        raise VqccError(*found.in_file_order())
    return division, {**data, "op": own}
