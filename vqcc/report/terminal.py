"""A profile in a terminal: coloured bars there, the same as plain text elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from vqcc.report.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from vqcc.hotness import Consistency, Summary

__all__ = ["print_summary"]

_BAR = 40


def print_summary(console: Console, summary: Summary) -> None:
    """Print what is told of one profiled tensor, about a dozen lines."""
    n, k = summary.shape
    tables = summary.books * summary.tables
    what = "table" if tables == 1 else f"{counted(tables, 'table', grouped=True)}, each"
    console.print(
        Text(printable(summary.name), style="bold"),
        Text(f"[{n}, {k}] {summary.algorithm.label}:"),
        Text(f"{counted(summary.codes, 'code', grouped=True)}, {what} of {summary.entries:,} entries"),
    )
    for line in (*_hotness(summary), *_coverage(summary, console), *_parts(summary)):
        console.print(line)


def _hotness(summary: Summary) -> Iterator[Text]:
    found = summary.statistics
    yield Text(f"  look-ups of an entry     mean {found.mean:,.1f}, sigma {found.sigma:,.1f}")
    varies = "" if found.hot_least == found.hot_most else f", {found.hot_least} to {found.hot_most} a table"
    for name, count, note in (
        (
            "hot",
            found.hot,
            f"above mean + 3 sigma{varies}; evenly drawn codes have {found.hot_by_chance:.1f}",
        ),
        ("medium", found.medium, "between"),
        ("cold", found.cold, "below the mean"),
    ):
        yield Text(f"  {name:6} entries  {count:>14,.1f}  {note}")


def _coverage(summary: Summary, console: Console) -> Iterator[Text]:
    yield Text("  look-ups served by the hottest entries")
    for label, share in summary.coverage:
        filled = round(_BAR * share)
        line = Text(f"  {label:>14}  {share:>7.1%}  ")
        if console.is_terminal:
            yield line + Text("━" * filled, style="green") + Text("━" * (_BAR - filled), style="bright_black")
        else:
            yield Text((line.plain + "#" * filled).rstrip())


def _parts(summary: Summary) -> Iterator[Text]:
    if summary.part_rows is None:
        return
    found = summary.consistency
    rows = counted(summary.part_rows, "row")
    if found is None:
        yield Text(f"  parts of {rows}: one per table, none to compare")
        return
    yield Text(f"  parts of {rows}: {found.parts} compared, each with the others of its table")
    yield Text(f"  {'':14}  {found.overlap:>7.1%}  of its hottest {_set(found)} are the others' hottest too")
    yield Text(f"  {'':14}  {found.kept:>7.1%}  of the look-ups that its own hottest serve, theirs serve")
    if found.correlation is not None:
        yield Text(f"  {'':14}  {found.correlation:>7.3f}  correlation of look-ups")


def _set(found: Consistency) -> str:
    return "entry" if found.hottest == 1 else f"{found.hottest:,} entries"
