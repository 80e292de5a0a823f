"""`vqcc cubin`: hand-written CUDA source to cubins, by vqcc's own toolchain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.compile import find_toolchain, toolchain_options
from vqcc.cli.depfile import Depended, Depfile, depfile_options
from vqcc.cli.emission import check_machine, chosen_kinds, machine_option, out_dir_option
from vqcc.cli.support import ANY_PATH, cache_options, finish, json_option, open_cache, reports_errors
from vqcc.diagnostics import ExitCode
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.codegen.embedding import Machine

__all__ = ["command"]


@click.command("cubin")
@click.argument("source", type=ANY_PATH)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A GPU to compile for; may be repeated.",
)
@out_dir_option("The files become OUT/<name of the source>/.")
@click.option(
    "--emit",
    default="cubin",
    show_default=True,
    help="What to write: cubin, and object or array with a header that finds the device's.",
)
@machine_option
@depfile_options
@toolchain_options
@cache_options
@json_option
@reports_errors
def command(
    source: Path,
    gpus: tuple[str, ...],
    out_dir: Path,
    emit: str,
    machine: Machine | None,
    depfile: Path | None,
    depfile_target: str | None,
    toolchain: str,
    nvcc_path: Path | None,
    cache_dir: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Compile hand-written kernels, SOURCE, to a cubin for each architecture among the GPUs.

    What SOURCE includes by `#include "..."` is compiled with it. Nothing is written if anything is wrong.
    """
    from vqcc.cubins import KINDS, CubinOptions, compile_source, output_names
    from vqcc.dependencies import absolute

    kinds = chosen_kinds(emit, KINDS)
    check_machine(kinds, machine)
    wanted = Depfile.wanted(depfile, depfile_target, [source])
    tools = find_toolchain(toolchain, nvcc_path)
    cache = open_cache(cache_dir, disabled=no_cache)
    made = compile_source(source, CubinOptions(gpus, out_dir, kinds, machine), tools, cache)
    if wanted is not None:
        main = output_names(made["name"], made["targets"], kinds)[0]
        inputs = [absolute(Path(each)) for each in made["sources"]]
        wanted.write([Depended(Path(made["directory"]), main, inputs)], tools)
    if not as_json:
        _show(made)
    warnings = () if cache is None else cache.warnings
    finish(made, (), ExitCode.OK, as_json=as_json, warnings=warnings)


def _show(made: dict[str, Any]) -> None:
    size = counted(sum(made["files"].values()), "byte", grouped=True)
    click.echo(f"{made['directory']}: {made['state']}, {size}")
    for name, size in made["files"].items():
        click.echo(f"  {name}  {size:,}")
    for target, kernels in made["kernels"].items():
        for kernel, used in kernels.items():
            spills = used["spill_store_bytes"] + used["spill_load_bytes"]
            click.echo(
                f"  {target}: {kernel}: {counted(used['registers'], 'register')}, "
                f"{counted(used['static_shared_bytes'], 'byte', grouped=True)} of static shared memory"
                + (f", {spills:,} bytes of spills" if spills else "")
            )
