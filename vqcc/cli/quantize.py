"""`vqcc quantize`: plain weights, or keys and values of a KV cache, to VQ tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.support import ANY_PATH, console, finish, json_option, print_json, reports_errors
from vqcc.diagnostics import Diagnostic, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["command"]


@click.command("quantize")
@click.argument("weights", type=ANY_PATH)
@click.option(
    "--tensor",
    "names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="A tensor of WEIGHTS to quantize: [n, k], or keys or values [kv_heads, tokens, head_dim]; may be repeated.",
)
@click.option(
    "--algorithm",
    required=True,
    metavar="PRESET|SPEC.yaml",
    help="A preset, or a spec whose algorithm is used.",
)
@click.option(
    "--fisher",
    "gradients",
    multiple=True,
    metavar="NAME",
    help="Squared gradients of keys or values, of their shape: vectors weigh as much in the clustering. One for each "
    "--tensor, in their order.",
)
@click.option(
    "--fuse",
    "fused",
    metavar="NAME",
    help="Quantize the rows of all --tensor, in their order, as one weight of this name: a fused layer's.",
)
@click.option("-o", "--output", required=True, type=ANY_PATH)
@click.option(
    "--seed", default=0, show_default=True, help="Of the clustering: the same seed gives the same file."
)
@json_option
@reports_errors
def command(
    weights: Path,
    names: tuple[str, ...],
    algorithm: str,
    gradients: tuple[str, ...],
    fused: str | None,
    output: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Quantize tensors of WEIGHTS and write codes, codebooks and scales.

    WEIGHTS is a safetensors file, the index of a sharded one, or a directory with one index. By a preset of KV
    caches, such as cq-2, they are keys or values of a layer.
    """
    from rich.markup import escape
    from rich.progress import Progress

    from vqcc.api import quantize_all

    if len(set(names)) < len(names):
        raise click.UsageError("--tensor has a name twice")
    if gradients and len(gradients) != len(names):
        raise click.UsageError(f"--fisher is given {len(gradients)} times for {len(names)} of --tensor")
    with Progress(console=console(error=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        shown = names if fused is None else (fused,)
        tasks = {name: progress.add_task(escape(f"quantizing {name}"), total=None) for name in shown}
        tensors = quantize_all(
            weights,
            dict(zip(names, gradients or [None] * len(names), strict=True)),
            algorithm,
            output,
            seed=seed,
            fused=fused,
            progress=lambda name, done, total: progress.update(tasks[name], completed=done, total=total),
        )
    told = [_told(output, tensor) for tensor in tensors]
    if as_json:
        print_json(told[0] if len(told) == 1 else told)
        return
    warnings = [warning for tensor in tensors for warning in _warnings(output, tensor)]
    for tensor in tensors:
        per = _unit(tensor)
        click.echo(
            f"{output}: {tensor.name} {list(tensor.shape)} as {tensor.algorithm.label}, {tensor.stored_bits:.2f} bits "
            f"per {per}, relative error {tensor.relative_error:.4f}"
        )
    finish({}, (), ExitCode.OK, as_json=False, warnings=warnings)


#: Bits of an element that is not quantized, as engines keep it.
_PLAIN_BITS = 16


def _warnings(output: Path, tensor: VQTensor | CacheTensor) -> list[Diagnostic]:
    """VQ0549 for a tensor that has become no smaller."""
    if tensor.stored_bits < _PLAIN_BITS:
        return []
    message = (
        f"{output}: {tensor.name} takes {tensor.stored_bits:.2f} bits per {_unit(tensor)}, no less than float16, as "
        f"{tensor.algorithm.label} of {list(tensor.shape)}"
    )
    help_text = "use fewer entries, larger vectors or a wider scope, or leave a tensor so small as it is"
    return [Diagnostic("VQ0549", message, help=help_text, severity="warning")]


def _unit(tensor: VQTensor | CacheTensor) -> str:
    return "weight" if len(tensor.shape) == 2 else "activation"


def _told(output: Path, tensor: VQTensor | CacheTensor) -> dict[str, Any]:
    return {
        "output": str(output),
        "tensor": tensor.name,
        "shape": list(tensor.shape),
        "algorithm": tensor.algorithm.mapping(),
        f"bits_per_{_unit(tensor)}": tensor.stored_bits,
        "relative_error": tensor.relative_error,
        "diagnostics": [warning.to_json() for warning in _warnings(output, tensor)],
    }
