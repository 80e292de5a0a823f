"""`vqcc cubin`: hand-written CUDA source to cubins, by vqcc's own toolchain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.compile import MACHINES, find_toolchain, own_machine, toolchain_options
from vqcc.cli.support import WordChoice, cache_options, finish, json_option, open_cache, reports_errors
from vqcc.diagnostics import ExitCode
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.codegen.embedding import Machine
    from vqcc.cubins import Kind

__all__ = ["command"]


@click.command("cubin")
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A GPU to compile for; may be repeated.",
)
@click.option(
    "-o",
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out"),
    show_default=True,
    help="The files become OUT/<name of the source>/.",
)
@click.option(
    "--emit",
    default="cubin",
    show_default=True,
    help="What to write: cubin, and object or array with a header that finds the device's.",
)
@click.option(
    "--machine",
    type=WordChoice(MACHINES),
    default=own_machine,
    show_default="this one's",
    help="Hosts that an emitted object is linked for.",
)
@click.option(
    "--depfile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what the files depend on, for make and ninja (as gcc -MD -MP -MF FILE).",
)
@click.option(
    "--depfile-target", metavar="NAME", help="What that file calls the output. [default: the first file]"
)
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
    from vqcc.cubins import CubinOptions, compile_source

    kinds = _kinds(emit)
    if "object" in kinds and machine is None:
        raise click.UsageError(
            f"objects are for {' or '.join(MACHINES)}: say which with --machine, or emit array"
        )
    if depfile is None and depfile_target is not None:
        raise click.UsageError("--depfile-target names an output in a --depfile: give that too")
    tools = find_toolchain(toolchain, nvcc_path)
    cache = open_cache(cache_dir, disabled=no_cache)
    if depfile is not None:
        from vqcc.tensors.output import check_outputs

        check_outputs([depfile], [source])
    made = compile_source(source, CubinOptions(gpus, out_dir, kinds, machine), tools, cache)
    if depfile is not None:
        from vqcc.dependencies import compiler_files

        _write_depfile(depfile, depfile_target, made, kinds, compiler_files(tools))
    if not as_json:
        _show(made)
    warnings = () if cache is None else cache.warnings
    finish(made, (), ExitCode.OK, as_json=as_json, warnings=warnings)


def _kinds(text: str) -> tuple[Kind, ...]:
    """What `--emit` asks for, in order. A usage error for a word that is none, and for none."""
    from vqcc.cubins import KINDS
    from vqcc.diagnostics import did_you_mean

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in KINDS:
            near = did_you_mean(word, KINDS)
            raise click.BadParameter(
                f"'{word}' is none of {', '.join(KINDS)}" + (f"; {near}" if near else ""), param_hint="--emit"
            )
    if not words:
        raise click.BadParameter(f"name at least one of {', '.join(KINDS)}", param_hint="--emit")
    return tuple(kind for kind in KINDS if kind in words)


def _write_depfile(
    path: Path, target: str | None, made: dict[str, Any], kinds: tuple[Kind, ...], compiler: tuple[Path, ...]
) -> None:
    from vqcc.cubins import output_names
    from vqcc.depfile import Rule, UnnamableError, render
    from vqcc.diagnostics import Diagnostic, VqccError
    from vqcc.tensors.output import write_atomically

    first = Path(made["directory"]) / output_names(made["name"], made["targets"], kinds)[0]
    sources = [Path(source).resolve() for source in made["sources"]]
    try:
        data = render([Rule(target or str(first), (*sources, *compiler))])
    except UnnamableError as error:
        help_text = "the kernels are written; rename what make or ninja would misread"
        raise VqccError(Diagnostic("VQ0701", f"cannot write {path}: {error}", help=help_text)) from None
    write_atomically(path, data, code="VQ0701")


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
