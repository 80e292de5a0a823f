"""`vqcc compile`: specs to kernel libraries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.decisions import show_plans
from vqcc.cli.depfile import Depended, Depfile, depfile_options
from vqcc.cli.emission import check_machine, chosen_kinds, machine_option, out_dir_option
from vqcc.cli.model_progress import Timed, model_progress, show_timed
from vqcc.cli.support import (
    ANY_PATH,
    Failures,
    WordChoice,
    cache_options,
    default_cache_directory,
    finish,
    json_option,
    open_cache,
    reports_errors,
    usable_cpus,
)
from vqcc.levels import LEVELS
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vqcc.claims import Claim
    from vqcc.codegen.embedding import Machine
    from vqcc.codegen.toolchain import Toolchain
    from vqcc.diagnostics import Diagnostic

__all__ = [
    "EMIT_DEFAULT",
    "command",
    "emitted_kinds",
    "find_toolchain",
    "override_options",
    "toolchain_options",
]

_MOST_JOBS = 256
EMIT_DEFAULT = "cu,cubin,header,plan"


def toolchain_options(function: Any) -> Any:
    """Options that choose the CUDA compiler."""
    for option in (
        click.option(
            "--toolchain",
            type=WordChoice(["nvrtc", "nvcc"]),
            default="nvrtc",
            show_default=True,
            help="NVRTC comes with vqcc; nvcc is the one of an installed CUDA toolkit.",
        ),
        click.option(
            "--nvcc",
            "nvcc_path",
            type=ANY_PATH,
            help="The nvcc that --toolchain nvcc runs; by default the one on PATH.",
        ),
    ):
        function = option(function)
    return function


def override_options(function: Any) -> Any:
    """Options that stand above what a spec says."""
    for option in (
        click.option(
            "--gpu", "gpus", multiple=True, metavar="NAME", help="Override the spec's GPUs; may be repeated."
        ),
        click.option("--level", type=WordChoice(LEVELS), help="Override the spec's level."),
    ):
        function = option(function)
    return function


def find_toolchain(name: str, nvcc_path: Path | None) -> Toolchain:
    """The toolchain the options ask for. Raises VQ0601 if it is not installed, a usage error for an nvcc not used."""
    from vqcc.codegen.toolchain import find

    if nvcc_path is not None and name != "nvcc":
        raise click.UsageError("--nvcc says which nvcc to run: give --toolchain nvcc with it")
    if name == "nvcc" and nvcc_path is None:
        found = shutil.which("nvcc")
        nvcc_path = Path(found) if found else None
    keep = default_cache_directory() / "failed"
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
    return find(
        name,
        nvcc_path=nvcc_path,
        host_compiler=Path(compiler) if compiler else None,
        keep_failed=keep,
    )


@click.command("compile")
@click.argument("specs", nargs=-1, required=True, type=ANY_PATH)
@out_dir_option("Each spec's bundle becomes OUT/<spec name>/.")
@override_options
@click.option(
    "--emit",
    default=EMIT_DEFAULT,
    show_default=True,
    help="What to write: cu, ptx, cubin, header, plan, object, array.",
)
@machine_option
@click.option(
    "--explain", is_flag=True, help="Print the decisions behind the kernels, as `vqcc explain` does."
)
@click.option("--dry-run", is_flag=True, help="Compile, list what would be written, write nothing.")
@depfile_options
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, _MOST_JOBS),
    default=lambda: min(usable_cpus(), _MOST_JOBS),
    show_default="the CPUs this process may use",
    help="GPUs of a spec, or libraries of a model, compiled at a time; files do not depend on it.",
)
@toolchain_options
@cache_options
@json_option
@reports_errors
def command(
    specs: tuple[Path, ...],
    out_dir: Path,
    level: str | None,
    gpus: tuple[str, ...],
    emit: str,
    machine: Machine | None,
    explain: bool,
    dry_run: bool,
    depfile: Path | None,
    depfile_target: str | None,
    jobs: int,
    toolchain: str,
    nvcc_path: Path | None,
    cache_dir: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Compile each SPEC to a kernel library, or a whole model, in OUT/<spec name>/.

    A spec that is wrong, or that one of its GPUs must refuse, is reported whole and writes nothing; the
    others are still compiled. A dependency file is written if all were.
    """
    from dataclasses import replace

    from vqcc.compiling import Options, compile_file
    from vqcc.data_files import lock_path

    emitted = emitted_kinds(emit)
    check_machine(emitted, machine)
    options = Options(out_dir, level, gpus, emitted, dry_run, jobs, explain, machine)
    locks = [lock_path(spec) for spec in specs if spec.name]
    wanted = Depfile.wanted(depfile, depfile_target, [*specs, *locks])
    tools = find_toolchain(toolchain, nvcc_path)
    cache = open_cache(cache_dir, disabled=no_cache)
    failures = Failures()
    results = []
    taken: dict[str, Claim] = {}
    for path in specs:
        with failures.noted():
            timed = Timed.begin(cache)
            with model_progress() as progress:
                made = compile_file(path, replace(options, progress=progress), tools, cache, taken)
            if "layers" in made:
                made = {**made, "took": timed.summary(made)}
            results.append(made)
            if not as_json:
                _show(made)
    if wanted is not None and not dry_run and not failures.exit_code:
        with failures.noted():
            wanted.write([_depended(result, emitted) for result in results], tools)
    finish(
        {"libraries": results},
        tuple(failures.diagnostics),
        failures.exit_code,
        as_json=as_json,
        warnings=(
            *_lock_warnings(results),
            *_serialized_warnings(results),
            *(() if cache is None else cache.warnings),
        ),
    )


def _depended(result: dict[str, Any], emitted: tuple[Any, ...]) -> Depended:
    """What a dependency file says of a library or a model."""
    from vqcc.dependencies import spec_files
    from vqcc.outputs import main_file, model_files

    named = (result["profile"], *result.get("profiles", ()))  # by the spec, by those of layers
    main = (
        model_files(result["name"], result["libraries"], result["gpus"], emitted)[0]
        if "layers" in result
        else main_file(result["name"], result["gpus"], emitted)
    )
    inputs = spec_files(Path(result["spec"]), [name for name in named if name is not None])
    return Depended(Path(result["directory"]), main, inputs)


def _lock_warnings(results: list[dict[str, Any]]) -> list[Diagnostic]:
    """What the lock files of the libraries could not be used for."""
    told = [(result["lock"], result["spec"]) for result in results if result["lock"] is not None]
    if not any(lock["complaints"] for lock, _ in told):
        return []
    from vqcc.tuning.use import lock_warnings

    return [item for lock, spec in told for item in lock_warnings(lock["file"], spec, lock["complaints"])]


def _serialized_warnings(results: list[dict[str, Any]]) -> list[Diagnostic]:
    """Kernels that were taken although the assembler serializes their multiplies."""
    from vqcc.diagnostics import Diagnostic

    return [
        Diagnostic(
            "VQ0608",
            f"{result['name']}, {gpu}: the assembler serializes the multiplies of {kernel['kernel']}, "
            f"due to {kernel['serialized']}",
            help="every other tile spills, or is serialized too; another level or GPU may have a faster kernel",
            severity="warning",
        )
        for result in results
        for gpu, kernels in result["gpus"].items()
        for kernel in kernels
        if "serialized" in kernel
    ]


def _lock_lines(lock: dict[str, Any], gpus: Iterable[str]) -> Iterator[str]:
    """Which kernels are as a lock file has measured them; of a whole model a line for each library."""
    name = Path(lock["file"]).name
    kernels: dict[str, Any] = lock["libraries"] if "libraries" in lock else {"": lock["kernels"]}
    unused = [folder for folder, of_gpus in kernels.items() if not of_gpus]
    for folder, of_gpus in kernels.items():
        whose = f"{folder}: " if folder else ""
        if of_gpus:
            listed = "; ".join(f"{gpu}: {', '.join(names)}" for gpu, names in of_gpus.items())
            yield f"as measured in {name}: {whose}{listed}"
    if len(unused) == len(kernels):
        yield f"{name}: not used" if lock["complaints"] else f"{name}: no times of {', '.join(gpus)}"
    elif unused:
        yield f"{name}: not used for {', '.join(unused)}"


def emitted_kinds(text: str) -> tuple[Any, ...]:
    """What `--emit` asks for, in order. A usage error for a word that is none, and for none."""
    from vqcc.compiling import EMITTABLE

    kinds = chosen_kinds(text, EMITTABLE)
    # What embeds includes the header.
    embeds = bool({"object", "array"} & set(kinds))
    return tuple(kind for kind in EMITTABLE if kind in kinds or (embeds and kind == "header"))


def _show(result: dict[str, Any]) -> None:
    size = counted(sum(result["files"].values()), "byte", grouped=True)
    click.echo(f"{result['directory']}: {result['state']}, {size}")
    for name, size in result["files"].items():
        click.echo(f"  {name}  {size:,}")
    if result["lock"] is not None:
        for line in _lock_lines(result["lock"], result["gpus"]):
            click.echo(f"  {line}")
    for gpu, kernels in result["gpus"].items():
        for kernel in kernels:
            click.echo(
                f"  {gpu}: {kernel['kernel']}: {counted(kernel['registers'], 'register')}, "
                f"{counted(kernel['shared_bytes'], 'byte', grouped=True)} of shared memory, "
                f"{counted(kernel['blocks_per_sm'], 'block')} per SM, {kernel['grid']} x {kernel['threads']} threads"
                + (f", {kernel['workspace_bytes']:,} bytes of workspace" if kernel["workspace_bytes"] else "")
            )
    if "took" in result:
        click.echo(show_timed(result["took"]))
    if "plans" in result:
        show_plans(result["plans"])
