"""`vqcc cmake-dir`: where the CMake package is."""

from __future__ import annotations

import click

from vqcc.cli.support import json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("cmake-dir")
@json_option
@reports_errors
def command(as_json: bool) -> None:
    """Print the folder of the CMake package: `cmake -B build -Dvqcc_DIR="$(vqcc cmake-dir)"`."""
    from vqcc.data_files import cmake_directory

    directory = str(cmake_directory())
    print_json({"directory": directory}) if as_json else click.echo(directory)
