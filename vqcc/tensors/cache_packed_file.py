"""Packed codebooks of a KV cache on disk: what an engine loads beside a library's cubin.

A safetensors file with NAME.key_books, NAME.value_books and so on (vqcc.tensors.cache_packing) as kernels read them,
and metadata `vqcc.packed`: JSON that gives each NAME its library's layout id, all that the id stands for, and the
tensors it was made of. Codes are not in it: a cache is filled by the kernels that append.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vqcc.book_shapes import book_shapes
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.tensors.container import write_safetensors
from vqcc.tensors.header import TensorFile, unique_keys
from vqcc.tensors.packed_file import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.cache_library import CacheLibrary
    from vqcc.tensors.cache_packing import PackedBooks
    from vqcc.tensors.cache_tensor import CacheTensor

__all__ = ["expected_parts", "load_packed_books", "save_packed_books"]


def save_packed_books(
    path: Path, library: CacheLibrary, name: str, keys: CacheTensor, values: CacheTensor, packed: PackedBooks
) -> None:
    """Write the books of one layer, packed for `library`, to `path`, atomically. Raises VqccError VQ0527."""
    own = _agreed(library) | {"keys": keys.name, "values": values.name, "layout_id": library.layout_id}
    arrays = {f"{name}.{part}": array for part, array in packed.arrays().items()}
    text = json.dumps({name: own}, sort_keys=True, separators=(",", ":"))
    write_safetensors(path, arrays, {METADATA_KEY: text})


def load_packed_books(path: Path, library: CacheLibrary) -> dict[str, dict[str, NDArray[Any]]]:
    """Read a packed file for `library`: the arrays of each layer by kernel argument, read-only.

    Raises VqccError: VQ05xx for the file, VQ0530 if it is no packed file or its parts are not what the library's
    kernels read, VQ0531 if it was packed for another layout.
    """
    with TensorFile(path) as file:
        described = _described(path, file)
        found = DiagnosticList()
        for name, own in described.items():
            if own["layout_id"] != library.layout_id:
                found.error(
                    "VQ0531",
                    f"{path}: '{name}' has layout {own['layout_id']!r}, "
                    f"library {library.name} reads {library.layout_id}",
                    help="pack the books for this library",
                )
            else:
                found.extend(_contradictions(path, name, own, library))
                found.extend(_wrong_parts(path, file, name, library))
        found.raise_if_errors()
        return {
            name: {part: file.array(f"{name}.{part}") for part in expected_parts(library)}
            for name in described
        }


def _agreed(library: CacheLibrary) -> dict[str, Any]:
    """What a library's layout id stands for, as a file has it."""
    return {
        "algorithm": {"key": library.keys.mapping(), "value": library.values.mapping()},
        "kv_heads": library.op.kv_heads,
        "head_dim": library.op.head_dim,
        "layout": asdict(library.layout),
        "by_rows": library.by_rows,
        "rope": library.op.rotation,
    }


def _described(path: Path, file: TensorFile) -> dict[str, dict[str, Any]]:
    """What the file says of each layer. Raises VqccError VQ0530 if it is no packed file."""
    text = file.header.metadata.get(METADATA_KEY)
    try:
        entries = json.loads(text or "null", object_pairs_hook=unique_keys)
        return {name: {"layout_id": entry["layout_id"], **entry} for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise VqccError(
            Diagnostic("VQ0530", f"{path} holds no packed books", help="make it by `vqcc pack`")
        ) from None


def _contradictions(
    path: Path, name: str, own: Mapping[str, Any], library: CacheLibrary
) -> Iterator[Diagnostic]:
    """Where the file says otherwise of a layer than its layout's id, which the library has too."""
    for field, value in _agreed(library).items():
        # By their texts, of which the id is made: to Python 1.0 and true are 1.
        if json.dumps(own.get(field), sort_keys=True) != json.dumps(value, sort_keys=True):
            yield Diagnostic(
                "VQ0530",
                f"{path}: '{name}' has another {field} than its layout_id stands for",
                help="the file was changed by hand, is damaged or of an older vqcc: pack the books again",
            )


def expected_parts(library: CacheLibrary) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each array."""
    return book_shapes(library.keys, library.values, library.op, by_rows=library.by_rows)


def _wrong_parts(path: Path, file: TensorFile, name: str, library: CacheLibrary) -> Iterator[Diagnostic]:
    for part, (dtype, shape) in expected_parts(library).items():
        entry = file.entries.get(f"{name}.{part}")
        if entry is None:
            yield Diagnostic("VQ0530", f"{path} has no {name}.{part}", help="pack the books again")
        elif (entry.dtype, entry.shape) != (dtype, shape):
            yield Diagnostic(
                "VQ0530",
                f"{path}: {name}.{part} is {entry.dtype} {list(entry.shape)}, not {dtype} {list(shape)}",
                help="pack the books again",
            )
