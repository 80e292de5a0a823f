"""`vqcc include-dir`: where headers for host programs are."""

from __future__ import annotations

import click

from vqcc.cli.support import json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("include-dir")
@json_option
@reports_errors
def command(as_json: bool) -> None:
    """Print the folder of headers for host programs: `c++ -I"$(vqcc include-dir)" ...`."""
    from vqcc.data_files import include_directory

    directory = str(include_directory())
    print_json({"directory": directory}) if as_json else click.echo(directory)
