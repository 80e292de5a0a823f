"""`vqcc bench`: times on this machine's GPU."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.support import ANY_PATH, finish, json_option, reports_errors
from vqcc.diagnostics import Diagnostic, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.report.bench_plots import BenchPlot, Roofs
    from vqcc.verify.backends import AnyLibrary

__all__ = ["command"]


@click.command("bench")
@click.argument("libraries", nargs=-1, required=True, type=ANY_PATH)
@click.option("-o", "--output", type=ANY_PATH, help="Write the rows to a JSON file.")
@click.option(
    "--plot",
    "plots",
    multiple=True,
    metavar="KIND=FILE",
    callback=lambda _context, _parameter, values: [_plot(value) for value in values],
    help="Draw a roofline, or levels against gc, to an .svg or .png file: roofline=FILE, levels=FILE. Repeatable.",
)
@click.option(
    "--context",
    "contexts",
    multiple=True,
    type=click.IntRange(1),
    metavar="TOKENS",
    help="Tokens of each sequence, for libraries over a KV cache; the spec's context by default. Repeatable.",
)
@click.option("--seed", default=0, show_default=True, help="Of random weights and inputs.")
@click.option(
    "--overlap", is_flag=True, help="Launches may start while those before them end (GPUs from 9.0 on)."
)
@json_option
@reports_errors
def command(
    libraries: tuple[Path, ...],
    output: Path | None,
    plots: list[tuple[BenchPlot, Path]],
    contexts: tuple[int, ...],
    seed: int,
    overlap: bool,
    as_json: bool,
) -> None:
    """Time every kernel of LIBRARIES on this machine's GPU.

    Medians of CUDA-graph replays over inputs that rotate past the L2; in the same run, if PyTorch is installed, cuBLAS,
    or for a KV cache cuDNN's and flash attention. Each result is checked against float64 before it is timed.
    Of a whole model, all libraries are timed.
    """
    from vqcc.library import CacheLibrary, load_libraries
    from vqcc.report.bench_plots import check_bench_plot, save_bench_plot
    from vqcc.runtime.bench import Baselines, bench_library, describe_run
    from vqcc.runtime.cache_bench import AttentionBaselines, bench_cache_library
    from vqcc.runtime.device import open_device
    from vqcc.tensors.output import check_outputs, write_atomically

    check_outputs([*([] if output is None else [output]), *(path for _, path in plots)], libraries)
    loaded = [library for path in libraries for library in load_libraries(path)]
    _check_contexts(loaded, contexts)
    if plots and any(isinstance(library, CacheLibrary) for library in loaded):
        raise click.UsageError("--plot draws libraries over weights")
    for kind, path in plots:
        check_bench_plot(kind, path, {library.level for library in loaded})
    rows: list[dict[str, Any]] = []
    with open_device() as device:
        baselines = Baselines(device.l2_bytes), AttentionBaselines(device.l2_bytes)
        for library in loaded:
            timed = (
                bench_cache_library(
                    library, device, baselines[1], contexts=contexts, seed=seed, overlap=overlap
                )
                if isinstance(library, CacheLibrary)
                else bench_library(library, device, baselines[0], seed=seed, overlap=overlap)
            )
            for row in timed:
                rows.append(row)
                if not as_json:
                    _show(row)
        toolchain = loaded[0].toolchain
        meta = describe_run(device, toolchain, shlex.join(["vqcc", *sys.argv[1:]]), _commit())
    results = {"meta": meta, "rows": rows}
    if output is not None:
        write_atomically(output, (json.dumps(results, indent=1) + "\n").encode())
    for kind, path in plots:
        save_bench_plot(kind, path, rows, _roofs(loaded[0]), f"{loaded[0].op.kind} on {meta['gpu']}")
    outside = [_outside(row) for row in rows if not row["within_bound"]]
    finish(results, outside, ExitCode.MISMATCH, as_json=as_json)


def _check_contexts(libraries: Sequence[AnyLibrary], contexts: Sequence[int]) -> None:
    """Raise a usage error for a context that no library has, or one longer than a library's."""
    from vqcc.library import CacheLibrary

    caches = [library for library in libraries if isinstance(library, CacheLibrary)]
    if contexts and not caches:
        raise click.UsageError("--context is for libraries over a KV cache")
    for library in caches:
        if contexts and max(contexts) > library.op.context:
            raise click.UsageError(f"{library.name} is for a context of {library.op.context} at most")


def _plot(value: str) -> tuple[BenchPlot, Path]:
    """A plot's kind and file, as `--plot` names them."""
    from vqcc.diagnostics import did_you_mean
    from vqcc.report.bench_plots import BENCH_PLOTS

    kind, equals, name = value.partition("=")
    known = next((each for each in BENCH_PLOTS if each == kind), None)
    if known is None or not name:
        near = did_you_mean(kind, BENCH_PLOTS) if equals and known is None else None
        legal = f"write {' or '.join(f'{each}=FILE' for each in BENCH_PLOTS)}"
        raise click.BadParameter(f"{value!r} is no KIND=FILE: {near or legal}")
    return known, Path(name)


def _roofs(library: AnyLibrary) -> Roofs:
    """What bounds kernels on the first GPU of a library that vqcc knows; on no known one, memory alone."""
    from vqcc import gpus

    for name, build in library.builds.items():
        if name in gpus.names():
            return build.dram_bytes_per_second, float(gpus.load(name).tensor_flops_fp16.value)
    return next(iter(library.builds.values())).dram_bytes_per_second, None


def _outside(row: dict[str, Any]) -> Diagnostic:
    return Diagnostic(
        "VQ0801",
        f"{_name(row)} is outside its bound of float64, at a relative error of {row['error']:.2e}",
        help="`vqcc validate --backend cuda` shows where; please report the spec and `vqcc doctor`",
    )


def _show(row: dict[str, Any]) -> None:
    ratio = (
        f", {row['baseline_us'] / row['us']:.2f} x {row['baseline']} ({row['baseline_us']:.1f} us)"
        if "baseline_us" in row
        else ""
    )
    floor = f", floor {row['floor_us']:.1f} us" if "floor_us" in row else ""
    verdict = "" if row["within_bound"] else "  OUTSIDE ITS BOUND"
    click.echo(
        f"{_name(row)}: {row['us']:.1f} us ({row['us_min']:.1f} to {row['us_max']:.1f}){ratio}{floor}{verdict}"
    )


def _name(row: dict[str, Any]) -> str:
    """Which kernel a row is of, and on what."""
    head = f"{row['algorithm']} {row['level']} {row['dtype']}"
    if "context" not in row:
        return f"{head} {row['n']}x{row['k']} m={row['m']}"
    heads = f"batch={row['batch']} heads={row['q_heads']}/{row['kv_heads']}"
    pages = f" page_tokens={row['page_tokens']}" if "page_tokens" in row else ""
    return f"{row['op']} {head} {heads} context={row['context']} rope={row['rope']}{pages}"


def _commit() -> str | None:
    """The commit of the working directory, if it is a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or None
