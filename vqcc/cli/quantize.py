"""`vqcc quantize`: a plain weight, or keys or values of a KV cache, to a VQ tensor."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vqcc.cli.support import console, json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("quantize")
@click.argument("weights", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--tensor",
    "name",
    required=True,
    metavar="NAME",
    help="The tensor of WEIGHTS to quantize: [n, k], or keys or values [kv_heads, tokens, head_dim].",
)
@click.option(
    "--algorithm",
    required=True,
    metavar="PRESET|SPEC.yaml",
    help="A preset, or a spec whose algorithm is used.",
)
@click.option(
    "--fisher",
    metavar="NAME",
    help="Squared gradients of keys or values, of their shape: vectors weigh as much in the clustering.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--seed", default=0, show_default=True, help="Of the clustering: the same seed gives the same file."
)
@json_option
@reports_errors
def command(
    weights: Path, name: str, algorithm: str, fisher: str | None, output: Path, seed: int, as_json: bool
) -> None:
    """Quantize one tensor of the safetensors file WEIGHTS and write codes, codebooks and scales.

    By a preset of KV caches, such as cq-2, the tensor is keys or values of a layer.
    """
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
            fisher=fisher,
            seed=seed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    bits = tensor.stored_bits
    per = "weight" if len(tensor.shape) == 2 else "activation"
    if as_json:
        print_json(
            {
                "output": str(output),
                "tensor": name,
                "shape": list(tensor.shape),
                "algorithm": tensor.algorithm.mapping(),
                f"bits_per_{per}": bits,
                "relative_error": tensor.relative_error,
            }
        )
        return
    click.echo(
        f"{output}: {name} {list(tensor.shape)} as {tensor.algorithm.label}, {bits:.2f} bits per {per}, "
        f"relative error {tensor.relative_error:.4f}"
    )
