"""`vqcc quantize`: a plain weight to a VQ tensor."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vqcc.cli.support import console, json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("quantize")
@click.argument("weights", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--tensor", "name", required=True, metavar="NAME", help="The tensor of WEIGHTS to quantize, [n, k]."
)
@click.option(
    "--algorithm",
    required=True,
    metavar="PRESET|SPEC.yaml",
    help="A preset, or a spec whose algorithm is used.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--seed", default=0, show_default=True, help="Of the clustering: the same seed gives the same file."
)
@json_option
@reports_errors
def command(weights: Path, name: str, algorithm: str, output: Path, seed: int, as_json: bool) -> None:
    """Quantize one weight of the safetensors file WEIGHTS and write codes, codebooks and scales."""
    from rich.markup import escape
    from rich.progress import Progress

    from vqcc.api import quantize

    with Progress(console=console(error=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(escape(f"quantizing {name}"), total=None)
        tensor = quantize(
            weights,
            name,
            algorithm,
            output,
            seed=seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    n, k = tensor.shape
    bits = tensor.algorithm.bits_per_weight(n, k)
    if as_json:
        print_json(
            {
                "output": str(output),
                "tensor": name,
                "shape": [n, k],
                "algorithm": tensor.algorithm.mapping(),
                "bits_per_weight": bits,
                "relative_error": tensor.relative_error,
            }
        )
        return
    click.echo(
        f"{output}: {name} [{n}, {k}] as {tensor.algorithm.label}, {bits:.2f} bits per weight, "
        f"relative error {tensor.relative_error:.4f}"
    )
