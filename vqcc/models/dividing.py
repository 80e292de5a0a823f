"""Tensor parallelism: a layer as the file has it -> the equal part of it that each rank has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, DiagnosticList
from vqcc.ops import OPS
from vqcc.spec.load import LAYERS
from vqcc.spec.wording import choose, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vqcc.diagnostics import Span
    from vqcc.ops.fields import Division
    from vqcc.spec.source import Source

__all__ = ["Share", "divided"]


@dataclass(frozen=True)
class Share:
    """A rank's part of a layer.

    `data` is its mapping, with a rank's numbers; `division` how ranks share it, None where each has all of it. `wholes`
    are the numbers of the file that were divided, at their places.
    """

    data: dict[str, Any]
    division: Division | None = None
    wholes: Mapping[Span, tuple[int, int]] = field(default_factory=dict)
    wrong: DiagnosticList = field(default_factory=DiagnosticList)

    def explained(self, diagnostics: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
        """Diagnostics of a rank's numbers, with what they are of the numbers in the file."""
        for item in diagnostics:
            whole = None if item.span is None else self.wholes.get(item.span)
            if whole is None:
                yield item
                continue
            number, ranks = whole
            message = f"{item.message} (of each of {ranks} ranks: {number} / {ranks})"
            yield replace(
                item, message=message, help=f"of a rank, {ranks} times as much in the file: {item.help}"
            )


def divided(source: Source, name: str, data: Mapping[str, Any], parallel: object, ranks: int) -> Share:
    """The part that a rank has of the layer `name`.

    Whatever is no integer stays, for the op's own checks, as does the whole layer where it is `wrong`: VQ0216 for a way
    that the op does not have, VQ0217 for a field that is no multiple of the ranks.
    """
    op = data.get("op")
    kind = OPS.get(str(op.get("kind"))) if isinstance(op, dict) else None
    if parallel is None or kind is None or not isinstance(op, dict):
        return Share(dict(data))
    wrong = DiagnosticList()
    division = kind.divisions.get(parallel) if isinstance(parallel, str) else None
    if division is None:
        wrong.error(
            "VQ0216",
            f"ranks cannot share {name}, a layer of {op['kind']}, by {describe(parallel)}",
            span=source.span((LAYERS, name, "parallel")),
            help=f"{choose(parallel, kind.divisions)}, or leave it out: every rank then has the whole layer",
        )
        return Share(dict(data), wrong=wrong)
    own, wholes = dict(op), {}
    for part in division.fields:
        value, span = own.get(part), source.span((LAYERS, name, "op", part))
        if type(value) is not int:
            continue
        if value % ranks:
            wrong.error(
                "VQ0217",
                f"{ranks} ranks cannot share {part} = {value} of {name} evenly",
                span=span,
                help=f"with tensor_parallel: {ranks}, {part} must be a multiple of {ranks}",
            )
        own[part] = value // ranks
        wholes[span] = value, ranks
    if wrong.has_errors:
        return Share(dict(data), wrong=wrong)
    return Share({**data, "op": own}, division, wholes if ranks > 1 else {})
