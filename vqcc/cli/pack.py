"""`vqcc pack`: VQ tensors to what a library's kernels read."""

from __future__ import annotations

from pathlib import Path

import click

from vqcc.cli.support import json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("pack")
@click.argument("tensors", type=click.Path(path_type=Path))
@click.option(
    "--library",
    "library_path",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The compiled library, OUT/<name>.",
)
@click.option(
    "--gpu", metavar="NAME", help="Check that the library has this GPU; one packed file serves all of them."
)
@click.option("--tensor", "names", multiple=True, metavar="NAME", help="Only these tensors of the file.")
@click.option("--other-codes", is_flag=True, help="Pack codes too that the library's profile did not count.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@reports_errors
def command(
    tensors: Path,
    library_path: Path,
    gpu: str | None,
    names: tuple[str, ...],
    other_codes: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Pack the VQ tensors of TENSORS for a library: codes permuted and bit-packed as its kernels read them.

    TENSORS is a safetensors file, the index of a sharded one, or a directory with one index. For a library that was
    built from a profile, entries are renamed by frequency too; it refuses codes that its profile did not count.
    """
    from vqcc.api import pack

    packed = pack(tensors, library_path, output, gpu=gpu, names=names, other_codes=other_codes)
    summary = {
        "output": str(output),
        "tensors": {
            tensor.name: {part: array.nbytes for part, array in parts.arrays().items()}
            for tensor, parts in packed
        },
    }
    if as_json:
        print_json(summary)
        return
    for tensor, parts in packed:
        sizes = parts.arrays()
        total = sum(array.nbytes for array in sizes.values())
        n, k = tensor.shape
        click.echo(
            f"{output}: {tensor.name} [{n}, {k}] in {total:,} bytes, {8 * total / (n * k):.2f} bits per weight ("
            + ", ".join(f"{part} {array.nbytes:,}" for part, array in sizes.items())
            + ")"
        )
