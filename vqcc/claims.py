"""C names that the specs of one command claim: no two may make one directory, or headers that define one symbol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from vqcc.codegen.symbols import may_share, shared_symbol
from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vqcc.codegen.symbols import Headers

__all__ = ["Claim", "claim"]


@dataclass(frozen=True)
class Claim:
    """A spec, and the headers of all that it makes: asked for only where a name is another's and a word more."""

    spec: Path
    headers: Callable[[], Sequence[Headers]]

    def under(self, identifier: str) -> Headers:
        """Its headers of this C name, which must be one of those that it makes."""
        return next(each for each in self.headers() if each.identifier == identifier)


def claim(
    identifiers: Sequence[str], headers: Callable[[], Sequence[Headers]], spec: Path, taken: dict[str, Claim]
) -> None:
    """Add the C names of what `spec` makes, and its `headers`, to what is `taken`.

    Raises VQ0709 if another spec has one of the names, or for each whose headers would define a symbol of another's.
    """
    for identifier in identifiers:
        if identifier in taken:
            raise VqccError(_same_name(identifier, spec, taken[identifier].spec))
    own = dict.fromkeys(identifiers, Claim(spec, cache(headers)))
    found = list(_same_symbols(own, taken))
    if found:
        raise VqccError(*found)
    taken |= own


def _same_name(identifier: str, spec: Path, other: Path) -> Diagnostic:
    if spec == other:
        return Diagnostic("VQ0709", f"{spec} is given twice", help="leave one out")
    return Diagnostic(
        "VQ0709",
        f"{spec} and {other} both make a library {identifier}",
        help="a library's directory and C symbols bear its name, in which - and _ are one: rename one",
    )


def _same_symbols(own: Mapping[str, Claim], taken: Mapping[str, Claim]) -> Iterator[Diagnostic]:
    for identifier, mine in own.items():
        for other, theirs in taken.items():
            if not may_share(identifier, other):
                continue
            symbol = shared_symbol(mine.under(identifier), theirs.under(other))
            if symbol is not None:
                yield Diagnostic(
                    "VQ0709",
                    f"{mine.spec} and {theirs.spec} make {identifier} and {other}, whose headers would both define "
                    f"{symbol}",
                    help="rename one: a library's symbols begin with its name",
                )
