"""`vqcc outputs`: the files that a compilation would write, for build systems that must know them first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vqcc.cli.compile import EMIT_DEFAULT, emitted_kinds, override_options
from vqcc.cli.support import ANY_PATH, json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("outputs")
@click.argument("spec", type=ANY_PATH)
@click.option(
    "-o",
    "--out-dir",
    type=ANY_PATH,
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
    from vqcc.models import Model, load_any
    from vqcc.outputs import bundle_files, model_files

    kinds = emitted_kinds(emit)
    read = load_any(spec, gpu_override=gpus, level_override=level)
    names = [gpu.name for gpu in read.gpu]
    directory = out_dir / read.name
    specs = [layer.spec for layer in read.libraries] if isinstance(read, Model) else [read]
    if isinstance(read, Model):
        libraries = {layer.name: layer.spec.name for layer in read.libraries}
        files = model_files(read.name, libraries, names, kinds)
    else:
        files = bundle_files(read.name, names, kinds)
    if not as_json:
        click.echo("\n".join(str(directory / file) for file in files))
        return

    def path(file: str) -> str:
        return str(directory / file)

    profiles = dict.fromkeys(str(spec.parent / each.profile.file) for each in specs if each.profile)
    document: dict[str, Any] = {
        "name": read.name,
        "identifier": read.identifier,
        "directory": str(directory),
        "files": [path(file) for file in files],
        "header": path(f"{read.name}.h") if "header" in kinds else None,
        "cubins": [path(file) for file in files if file.endswith(".cubin")],
        "embedded": [path(file) for file in files if file.endswith((".embedded.o", ".embedded.c"))],
        "spec": str(spec),
        "profile": next(iter(profiles), None),
        "profiles": list(profiles),
        "lock": str(lock_path(spec)),
    }
    print_json(document)
