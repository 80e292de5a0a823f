"""`vqcc schema`: the JSON Schema of specs, for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vqcc.cli.support import ANY_PATH, json_option, reports_errors

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]


@click.command("schema")
@click.option("-o", "--output", type=ANY_PATH, help="Write to a file.")
@json_option
@reports_errors
def command(output: Path | None, as_json: bool) -> None:  # noqa: ARG001  (a schema is JSON either way)
    """Print the JSON Schema of specs.

    An editor with a YAML language server uses it through a spec's first line:
    `# yaml-language-server: $schema=vqcc.schema.json`.
    """
    import json

    from vqcc.spec.schema import json_schema
    from vqcc.tensors.output import write_atomically

    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, text.encode())
