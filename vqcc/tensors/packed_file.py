"""Packed weights on disk: what an engine loads beside a library's cubin.

A safetensors file with NAME.codes, NAME.books, NAME.stage_scales and NAME.scales as the kernels read them,
and metadata `vqcc.packed`: JSON that gives each NAME its layout, its layout's id, its algorithm, and how the
entries of its tables are numbered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.code_layouts import BucketLayout, layout_mapping
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.tensors.buckets import wrong_buckets
from vqcc.tensors.container import PACKED_KEY, write_safetensors
from vqcc.tensors.header import TensorFile, unique_keys
from vqcc.tensors.packing import pack_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.library import Library
    from vqcc.tensors.packing import PackedTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["METADATA_KEY", "check_contents", "check_order", "expected_parts", "load_packed", "save_packed"]

METADATA_KEY = PACKED_KEY
_ORDERS = ("identity", "frequency")


def save_packed(path: Path, library: Library, packed: Sequence[tuple[VQTensor, PackedTensor]]) -> None:
    """Write tensors packed for `library` to `path`, atomically. Raises VqccError VQ0527, VQ0529."""
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for tensor, parts in packed:
        if tensor.name in described:
            raise VqccError(Diagnostic("VQ0529", f"two VQ tensors are named '{tensor.name}'"))
        arrays |= {f"{tensor.name}.{part}": array for part, array in parts.arrays().items()}
        described[tensor.name] = {
            "algorithm": tensor.algorithm.mapping(),
            "layout": layout_mapping(library.layout),
            "layout_id": library.layout_id,
            # Codes and tables are permuted alike: kernels need not know, readers of the file may want to.
            "order": _order(library),
            "shape": list(tensor.shape),
        }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    write_safetensors(path, arrays, {METADATA_KEY: text})


def load_packed(path: Path, library: Library) -> dict[str, dict[str, NDArray[Any]]]:
    """Read a packed file for `library`: the arrays of each tensor by kernel argument, read-only.

    Raises VqccError: VQ05xx for the file, VQ0530 if it is no packed file or its parts are not what the
    library's kernels read, VQ0531 if it was packed for another layout.
    """
    with TensorFile(path) as file:
        described = _described(path, file)
        found = DiagnosticList()
        for name, own in described.items():
            if own.layout_id != library.layout_id:
                found.error(
                    "VQ0531",
                    f"{path}: '{name}' has layout {own.layout_id!r}, library {library.name} reads {library.layout_id}",
                    help="pack the VQ tensor for this library",
                )
            else:
                found.extend(_contradictions(path, name, own, library))
                found.extend(_wrong_parts(path, file, name, library))
        found.raise_if_errors()
        return {
            name: {part: file.array(f"{name}.{part}") for part in expected_parts(library)}
            for name in described
        }


def check_order(path: Path, library: Library) -> tuple[Diagnostic, ...]:
    """Warnings, VQ0544, for each tensor of a packed file whose entries are not where `library` looks for hot ones.

    Results are right in any order, times as planned only in the library's. A library without a profile has no hot
    entries, and none is in a wrong place. Raises VqccError as `load_packed`, but looks at no arrays.
    """
    wanted = _order(library)
    if wanted == "identity":
        return ()
    with TensorFile(path) as file:
        described = _described(path, file)
    return tuple(
        Diagnostic(
            "VQ0544",
            f"{path}: the entries of '{name}' are in the order '{own.order}'; library {library.name} was built from a "
            f"profile, and its kernels keep the first of the order '{wanted}' nearest",
            help="results are right, times are not as planned: pack the VQ tensor for this library",
            severity="warning",
        )
        for name, own in described.items()
        if own.order != wanted
    )


def check_contents(
    path: Path,
    library: Library,
    packed: Mapping[str, Mapping[str, NDArray[Any]]],
    tensors: Sequence[VQTensor],
) -> tuple[Diagnostic, ...]:
    """Errors, VQ0545, for each of `tensors` of which the file holds other bytes than packing gives.

    `packed` is what `load_packed` found in it. One wrong code of millions may hide in the rounding of a launch; here it
    cannot. Raises VqccError as `load_packed`.
    """
    with TensorFile(path) as file:
        described = _described(path, file)
    found = []
    for tensor in (tensor for tensor in tensors if tensor.name in packed):
        by_frequency = described[tensor.name].order == "frequency"
        wanted = pack_tensor(tensor, library.layout, by_frequency=by_frequency).arrays()
        for part, array in wanted.items():
            difference = _difference(packed[tensor.name][part], array)
            if difference is not None:
                found.append(
                    Diagnostic(
                        "VQ0545",
                        f"{path}: {tensor.name}.{part} is not what '{tensor.name}' packs to: {difference}",
                        help="the file was made of another tensor, or is damaged: pack the VQ tensor again",
                    )
                )
    return tuple(found)


def _difference(array: NDArray[Any], wanted: NDArray[Any]) -> str | None:
    """How an array differs from the one that is wanted; None if it does not. Bits count, so a NaN is itself."""
    if array.shape != wanted.shape:
        return f"its shape is {list(array.shape)}, not {list(wanted.shape)}"
    wrong = np.argwhere(_bits(array) != _bits(wanted))
    if not len(wrong):
        return None
    return f"{len(wrong)} of {wanted.size} elements differ, the first at {wrong[0].tolist()}"


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """The elements as unsigned integers of their width."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _order(library: Library) -> str:
    """How the entries of what is packed for `library` are numbered."""
    return "frequency" if library.profile_codes else "identity"


@dataclass(frozen=True)
class _Described:
    """What the file says of a tensor: its layout's id, its order of entries, and all of it."""

    layout_id: str
    order: str
    fields: Mapping[str, Any]


def _described(path: Path, file: TensorFile) -> dict[str, _Described]:
    """What the file says of each tensor. Raises VqccError VQ0530 if it is no packed file."""
    text = file.header.metadata.get(METADATA_KEY)
    try:
        entries = json.loads(text or "null", object_pairs_hook=unique_keys)
        described = {
            name: _Described(entry["layout_id"], entry["order"], entry) for name, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise VqccError(
            Diagnostic("VQ0530", f"{path} holds no packed weights", help="make it by `vqcc pack`")
        ) from None
    for name, own in described.items():
        if own.order not in _ORDERS:
            raise VqccError(
                Diagnostic(
                    "VQ0530",
                    f"{path}: the entries of '{name}' are in an order {own.order!r}",
                    help=f"orders are {' and '.join(_ORDERS)}: pack the VQ tensor again",
                )
            )
    return described


def _contradictions(path: Path, name: str, own: _Described, library: Library) -> Iterator[Diagnostic]:
    """Where the file says otherwise of a tensor than its layout's id, which the library has too."""
    wanted = {
        "algorithm": library.algorithm.mapping(),
        "layout": layout_mapping(library.layout),
        "shape": list(library.op.weight_shape),
    }
    for field, value in wanted.items():
        if own.fields.get(field) != value:
            yield Diagnostic(
                "VQ0530",
                f"{path}: '{name}' has another {field} than its layout_id stands for",
                help="the file was changed by hand, or is damaged: pack the VQ tensor again",
            )


def expected_parts(library: Library) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Type and shape of each array that the kernels read of a weight; no shape: one dimension, of any length."""
    algorithm = library.algorithm
    n, k = library.op.weight_shape
    books = algorithm.scope.books(n, k)
    parts: dict[str, tuple[str, tuple[int, ...] | None]] = {
        "codes": ("uint32", library.layout.code_shape(n)),
        "books": ("uint8", (books, algorithm.table_bytes)),
    }
    if algorithm.has_codebook_scales:
        parts["stage_scales"] = ("float32", (books, algorithm.residuals))
    shape = algorithm.scales.shape(n, k)
    if shape is not None:
        parts["scales"] = (algorithm.scales.dtype, shape)
    return parts


def _wrong_parts(path: Path, file: TensorFile, name: str, library: Library) -> Iterator[Diagnostic]:
    for part, (dtype, shape) in expected_parts(library).items():
        entry = file.entries.get(f"{name}.{part}")
        if entry is None:
            yield Diagnostic("VQ0530", f"{path} has no {name}.{part}", help="pack the VQ tensor again")
        elif entry.dtype != dtype or (len(entry.shape) != 1 if shape is None else entry.shape != shape):
            wanted = "of one dimension" if shape is None else list(shape)
            yield Diagnostic(
                "VQ0530",
                f"{path}: {name}.{part} is {entry.dtype} {list(entry.shape)}, not {dtype} {wanted}",
                help="pack the VQ tensor again",
            )
        elif part == "codes" and isinstance(library.layout, BucketLayout):
            # Kernels follow what stands in them: wrong ones would lead past their end.
            reason = wrong_buckets(file.array(f"{name}.{part}"), library.layout, library.op.weight_shape[0])
            if reason is not None:
                yield Diagnostic(
                    "VQ0530", f"{path}: {name}.{part}: {reason}", help="pack the VQ tensor again"
                )
