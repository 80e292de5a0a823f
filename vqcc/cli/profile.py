"""`vqcc profile`: how often the entries of codebooks are looked up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vqcc.cli.support import ANY_PATH, console, json_option, print_json, reports_errors
from vqcc.report.text import counted

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]


@click.command("profile")
@click.argument("tensors", type=ANY_PATH)
@click.option(
    "-o",
    "--output",
    type=ANY_PATH,
    help="Write the profile, JSON for a spec's `profile:`.",
)
@click.option("--tensor", "names", multiple=True, metavar="NAME", help="Only these tensors of the file.")
@click.option(
    "--plot",
    type=ANY_PATH,
    metavar="FILE.svg|.png",
    help="Draw frequencies and parts (needs matplotlib).",
)
@click.option(
    "--part-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rows of a part of the tensor, what one thread block works on. [default: 2 to 32 parts a tile]",
)
@json_option
@reports_errors
def command(
    tensors: Path,
    output: Path | None,
    names: tuple[str, ...],
    plot: Path | None,
    part_rows: int | None,
    as_json: bool,
) -> None:
    """Count how often the codes of TENSORS look up each codebook entry.

    TENSORS is a safetensors file, the index of a sharded one, or a directory with one index. Prints, per tensor, mean
    and deviation, hot, medium and cold entries, what the hottest serve, and how consistent they are across parts.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from vqcc.api import profile

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=console(error=True), transient=True, disable=not sys.stderr.isatty()
    ) as shown:
        task = shown.add_task("", total=None)
        summaries, sha256 = profile(
            tensors,
            output,
            names=names,
            part_rows=part_rows,
            plot=plot,
            progress=lambda name, done, total: shown.update(
                task, description=escape(f"counting {name}"), completed=done, total=total
            ),
        )
    if as_json:
        written = {"output": None if output is None else str(output), "sha256": sha256}
        drawn = None if plot is None else str(plot)
        print_json({**written, "plot": drawn, "tensors": [summary.to_json() for summary in summaries]})
        return
    from vqcc.report.terminal import print_summary

    for summary in summaries:
        print_summary(console(), summary)
    for path in (output, plot):
        if path is not None:
            size = f", {counted(path.stat().st_size, 'byte', grouped=True)}" if path.is_file() else ""
            click.echo(f"{path}: written{size}")
