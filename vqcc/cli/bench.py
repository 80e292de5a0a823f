"""`vqcc bench`: times on this machine's GPU."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from vqcc.cli.support import finish, json_option, reports_errors
from vqcc.diagnostics import Diagnostic, ExitCode

__all__ = ["command"]


@click.command("bench")
@click.argument("libraries", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows to a JSON file."
)
@click.option("--seed", default=0, show_default=True, help="Of random weights and inputs.")
@json_option
@reports_errors
def command(libraries: tuple[Path, ...], output: Path | None, seed: int, as_json: bool) -> None:
    """Time every kernel of LIBRARIES on this machine's GPU.

    Medians of CUDA-graph replays over inputs that rotate past the L2; cuBLAS in the same run if PyTorch is
    installed. Each result is checked against float64 before it is timed.
    """
    from vqcc.library import load_library
    from vqcc.runtime.bench import Baselines, bench_library, describe_run
    from vqcc.runtime.device import open_device
    from vqcc.tensors.output import check_outputs, write_atomically

    if output is not None:
        check_outputs([output], libraries)
    loaded = [load_library(path) for path in libraries]
    rows: list[dict[str, Any]] = []
    with open_device() as device:
        baselines = Baselines(device.l2_bytes)
        for library in loaded:
            for row in bench_library(library, device, baselines, seed=seed):
                rows.append(row)
                if not as_json:
                    _show(row)
        toolchain = loaded[0].toolchain
        meta = describe_run(device, toolchain, shlex.join(["vqcc", *sys.argv[1:]]), _commit())
    results = {"meta": meta, "rows": rows}
    if output is not None:
        write_atomically(output, (json.dumps(results, indent=1) + "\n").encode())
    outside = [_outside(row) for row in rows if not row["within_bound"]]
    finish(results, outside, ExitCode.MISMATCH, as_json=as_json)


def _outside(row: dict[str, Any]) -> Diagnostic:
    return Diagnostic(
        "VQ0801",
        f"{row['algorithm']} {row['level']} {row['dtype']} {row['n']}x{row['k']} m={row['m']} is outside its bound "
        f"of float64, at a relative error of {row['error']:.2e}",
        help="`vqcc validate --backend cuda` shows where; please report the spec and `vqcc doctor`",
    )


def _show(row: dict[str, Any]) -> None:
    ratio = (
        f", {row['baseline_us'] / row['us']:.2f} x {row['baseline']} ({row['baseline_us']:.1f} us)"
        if "baseline_us" in row
        else ""
    )
    verdict = "" if row["within_bound"] else "  OUTSIDE ITS BOUND"
    click.echo(
        f"{row['algorithm']} {row['level']} {row['dtype']} {row['n']}x{row['k']} m={row['m']}: {row['us']:.1f} us "
        f"({row['us_min']:.1f} to {row['us_max']:.1f}){ratio}, floor {row['floor_us']:.1f} us{verdict}"
    )


def _commit() -> str | None:
    """The commit of the working directory, if it is a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or None
