"""Lines of Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


def table_head(heads: Sequence[object]) -> Iterator[str]:
    """The line of heads, and the one under it that makes a table of the lines that follow."""
    yield from (table_line(heads), f"|{'---|' * len(heads)}")


def table_line(cells: Iterable[object]) -> str:
    """A line of these cells."""
    return f"| {' | '.join(map(str, cells))} |"


def time_of(row: Mapping[str, Any] | None) -> str:
    """The cell of a result's microseconds, or of none."""
    return "-" if row is None else f"{row['us']:.1f}"
