"""`vqcc pack`: VQ tensors to what a library's kernels read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vqcc.cli.support import ANY_PATH, json_option, print_json, reports_errors

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]


@click.command("pack")
@click.argument("tensors", type=ANY_PATH)
@click.option(
    "--library",
    "library_path",
    required=True,
    type=ANY_PATH,
    help="The compiled library, OUT/<name>.",
)
@click.option(
    "--gpu", metavar="NAME", help="Check that the library has this GPU; one packed file serves all of them."
)
@click.option("--tensor", "names", multiple=True, metavar="NAME", help="Only these tensors of the file.")
@click.option("--keys", metavar="NAME", help="For a library over a KV cache: the tensor of keys.")
@click.option("--values", metavar="NAME", help="The tensor of values of the same layer.")
@click.option(
    "--as", "packed_name", metavar="NAME", help="What to call packed books; as the keys by default."
)
@click.option("--other-codes", is_flag=True, help="Pack codes too that the library's profile did not count.")
@click.option("-o", "--output", required=True, type=ANY_PATH)
@json_option
@reports_errors
def command(
    tensors: Path,
    library_path: Path,
    gpu: str | None,
    names: tuple[str, ...],
    keys: str | None,
    values: str | None,
    packed_name: str | None,
    other_codes: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Pack the VQ tensors of TENSORS for a library: codes permuted and bit-packed as its kernels read them.

    For a library over a KV cache the codebooks of --keys and --values are packed: its codes are made as tokens come.

    TENSORS is a safetensors file, the index of a sharded one, or a directory with one index. For a library that was
    built from a profile, entries are renamed by frequency too; it refuses codes that its profile did not count.
    """
    from vqcc.api import pack

    if keys is not None or values is not None or packed_name is not None:
        if keys is None or values is None:
            raise click.UsageError("a KV cache has keys and values: give --keys NAME and --values NAME")
        if names or other_codes:
            raise click.UsageError("--tensor and --other-codes are for weights: leave them out with --keys")
        _pack_books(tensors, (keys, values), library_path, output, gpu, packed_name, as_json=as_json)
        return
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


def _pack_books(
    tensors: Path,
    sides: tuple[str, str],
    library: Path,
    output: Path,
    gpu: str | None,
    name: str | None,
    *,
    as_json: bool,
) -> None:
    from vqcc.api import pack_books

    arrays = pack_books(tensors, *sides, library, output, gpu=gpu, name=name).arrays()
    own = name or sides[0]
    sizes = {part: array.nbytes for part, array in arrays.items()}
    if as_json:
        print_json({"output": str(output), "books": {own: sizes}})
        return
    listed = ", ".join(f"{part} {size:,}" for part, size in sizes.items())
    click.echo(f"{output}: {own}, codebooks of a KV cache in {sum(sizes.values()):,} bytes ({listed})")
