"""`vqcc outputs`: the files that a compilation would write, for build systems that must know them first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vqcc.cli.compile import EMIT_DEFAULT, emitted_kinds, override_options
from vqcc.cli.support import json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("outputs")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out"),
    show_default=True,
    help="As of compile: the bundle becomes OUT/<spec name>/.",
)
@override_options
@click.option("--emit", default=EMIT_DEFAULT, show_default=True, help="As of compile.")
@json_option
@reports_errors
def command(
    spec: Path, out_dir: Path, level: str | None, gpus: tuple[str, ...], emit: str, as_json: bool
) -> None:
    """List the files that `vqcc compile SPEC` with the same options writes, one a line.

    The spec is read and checked, and nothing is compiled: it takes a third of a second. A spec that only a GPU's limits
    refuse is found by compiling it.
    """
    from vqcc.data_files import lock_path
    from vqcc.outputs import bundle_files, gpu_file
    from vqcc.spec.load import load_spec

    kinds = emitted_kinds(emit)
    read = load_spec(spec, gpu_override=gpus, level_override=level)
    names = [gpu.name for gpu in read.gpu]
    directory = out_dir / read.name
    files = bundle_files(read.name, names, kinds)
    if not as_json:
        click.echo("\n".join(str(directory / file) for file in files))
        return

    def path(file: str) -> str:
        return str(directory / file)

    profile = None if read.profile is None else str(spec.parent / read.profile.file)
    document: dict[str, Any] = {
        "name": read.name,
        "identifier": read.identifier,
        "directory": str(directory),
        "files": [path(file) for file in files],
        "header": path(f"{read.name}.h") if "header" in kinds else None,
        "cubins": {gpu: path(gpu_file(read.name, gpu, "cubin")) for gpu in names if "cubin" in kinds},
        "spec": str(spec),
        "profile": profile,
        "lock": str(lock_path(spec)),
    }
    print_json(document)
