"""VQ tensors and plain weights in safetensors files.

A VQ tensor NAME is stored as NAME.codes, NAME.codebooks, NAME.codebook_scales and NAME.scales, as its
algorithm needs; the file's metadata `vqcc.algorithm` is a JSON object that gives each NAME its algorithm,
shape, original type and relative error. Keys or values of a KV cache are stored alike, their shape [kv_heads, tokens,
head_dim]. The same tensors give the same bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vqcc.algorithms.fields import MAX_INDEX
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError, did_you_mean
from vqcc.tensors.header import name_list, release_pages
from vqcc.tensors.output import write_atomically
from vqcc.tensors.shards import open_tensors
from vqcc.tensors.vq_tensor import PART_NAMES, VQTensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.tensors.header import TensorFile
    from vqcc.tensors.shards import ShardedFile

__all__ = [
    "METADATA_KEY",
    "PACKED_KEY",
    "WEIGHT_DTYPES",
    "in_file",
    "load",
    "load_all",
    "load_cache",
    "load_weights",
    "read_algorithm",
    "save",
    "write_atomically",
    "write_safetensors",
]

METADATA_KEY = "vqcc.algorithm"
#: What packed files have instead (vqcc.tensors.packed_file, vqcc.tensors.cache_packed_file).
PACKED_KEY = "vqcc.packed"
WEIGHT_DTYPES = ("float16", "bfloat16", "float32")


def save(path: Path, tensors: Sequence[VQTensor | CacheTensor]) -> None:
    """Write VQ tensors to `path`, which holds the old or the new file at every moment.

    Raises VqccError: VQ0527 if the file cannot be written, VQ0529 for two tensors of one name.
    """
    arrays: dict[str, NDArray[Any]] = {}
    described: dict[str, Any] = {}
    for tensor in tensors:
        if tensor.name in described:
            raise VqccError(Diagnostic("VQ0529", f"two VQ tensors are named '{tensor.name}'"))
        described[tensor.name] = {
            "algorithm": tensor.algorithm.mapping(),
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            "relative_error": tensor.relative_error,
        }
        arrays |= {f"{tensor.name}.{part}": array for part, array in tensor.arrays()}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    write_safetensors(path, arrays, {METADATA_KEY: text})


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays atomically (beside `path`, flushed to disk, then renamed). Raises VqccError VQ0527.

    The bytes are a function of the arguments only if `metadata` has at most one key: the library orders
    tensors by type and name, but not metadata.
    """
    import numpy as np
    from safetensors.numpy import save as to_bytes

    contiguous = {name: np.require(arrays[name], requirements="C") for name in sorted(arrays)}
    write_atomically(path, to_bytes(contiguous, metadata=dict(metadata)))


def load(path: Path, name: str | None = None) -> VQTensor:
    """Load one VQ tensor, checked in full; its arrays are read-only views of the mapped file.

    `path` names a safetensors file, the index of a sharded one, or a directory with one index. `name` may be
    left out where the file holds one. Raises VqccError: VQ05xx for the file, its header, its metadata, or the
    tensor; VQ0514 for an unknown name, VQ0515 where a name is needed.
    """
    with open_tensors(path) as file:
        described = _read_metadata(file)
        if name is None:
            if len(described) > 1:
                raise VqccError(_choose(path, described))
            name = next(iter(described))
        elif name not in described:
            raise VqccError(_unknown_name(path, name, described, "VQ tensors"))
        return _load_tensor(file, name, described[name])


def load_all(path: Path, names: Iterable[str] = (), *, check_codes: bool = True) -> tuple[VQTensor, ...]:
    """Load every VQ tensor of a file, or those named, sorted by name.

    Without `check_codes` whoever uses the codes must check them: a pass over a large file is spared. Raises
    VqccError as `load`, for all that is wrong.
    """
    found = DiagnosticList()
    tensors = []
    with open_tensors(path) as file:
        described = _read_metadata(file)
        for name in sorted(set(names) or described):
            try:
                if name not in described:
                    raise VqccError(_unknown_name(path, name, described, "VQ tensors"))
                tensors.append(_load_tensor(file, name, described[name], check_codes=check_codes))
            except VqccError as error:
                found.extend(error.diagnostics)
    found.raise_if_errors()
    return tuple(tensors)


def load_cache(path: Path, name: str) -> CacheTensor:
    """Load quantized keys or values of a KV cache, checked in full, as read-only views of the mapped file.

    Raises VqccError: VQ05xx for the file, its metadata or the tensor, VQ0514 for an unknown name.
    """
    from vqcc.tensors.cache_tensor import CacheTensor

    with open_tensors(path) as file:
        described = _read_metadata(file)
        if name not in described:
            raise VqccError(_unknown_name(path, name, described, "VQ tensors"))
        algorithm, shape, dtype, error = _read_description(path, name, described[name], 3)
        arrays = {
            part: file.array(f"{name}.{part}") for part in _CACHE_PARTS if f"{name}.{part}" in file.entries
        }
        missing = [f"{name}.{part}" for part in _CACHE_PARTS if part not in arrays]
        if missing:
            message = f"{path} has no {' and '.join(missing)}, though its metadata describes '{name}'"
            raise VqccError(Diagnostic("VQ0517", message, help=_codes_help(file, name)))
        heads, tokens, head_dim = shape
        tensor = CacheTensor(
            name, algorithm, (heads, tokens, head_dim), dtype, **arrays, relative_error=error
        )
        try:
            tensor.validate()
        except VqccError as wrong:
            raise in_file(path, wrong) from None
        return tensor


#: Arrays of quantized keys or values.
_CACHE_PARTS = ("codes", "codebooks")


def load_weights(path: Path, name: str, axes: int = 2) -> NDArray[Any]:
    """Load a plain weight [n, k], float16, bfloat16 or float32, as a read-only view of the mapped file.

    With three `axes`, activations [kv_heads, tokens, head_dim]. Raises VqccError: VQ0514 unknown name, VQ0524 wrong
    type, VQ0525 other axes or no elements, and as `read_header`.
    """
    with open_tensors(path) as file:
        entries = file.entries
        if name not in entries:
            raise VqccError(_unknown_name(path, name, entries, "tensors"))
        entry = entries[name]
        if entry.dtype not in WEIGHT_DTYPES:
            message = f"{path}: tensor '{name}' is {entry.dtype}"
            raise VqccError(Diagnostic("VQ0524", message, help=f"weights are {', '.join(WEIGHT_DTYPES)}"))
        if len(entry.shape) != axes or 0 in entry.shape:
            message = f"{path}: tensor '{name}' has shape {list(entry.shape)}"
            raise VqccError(Diagnostic("VQ0525", message, help=_EXPECTED_AXES[axes]))
        return file.array(name)


def _load_tensor(
    file: TensorFile | ShardedFile, name: str, description: object, *, check_codes: bool = True
) -> VQTensor:
    algorithm, (n, k), dtype, error = _read_description(file.path, name, description, 2)
    arrays: dict[str, Any] = {
        part: file.array(f"{name}.{part}") for part in PART_NAMES if f"{name}.{part}" in file.entries
    }
    codes = arrays.pop("codes", None)
    if codes is None:
        message = f"{file.path} has no {name}.codes, though its metadata describes a VQ tensor '{name}'"
        raise VqccError(Diagnostic("VQ0517", message, help=_codes_help(file, name)))
    tensor = VQTensor(name, algorithm, (n, k), dtype, codes, relative_error=error, **arrays)
    try:
        tensor.validate(check_codes=check_codes)
    except VqccError as error:
        raise in_file(file.path, error) from None
    for _, array in tensor.arrays():
        release_pages(array)
    return tensor


def _codes_help(file: TensorFile | ShardedFile, name: str) -> str:
    """What to do about parts of `name` that are not in the file: it may have them under another name."""
    there = [entry.removesuffix(".codes") for entry in file.entries if entry.endswith(".codes")]
    if not there or name in there:
        return "store what is missing under these names, or quantize again"
    near = did_you_mean(name, there)
    held = f"the file has the codes of {name_list(there)}: its metadata must name them so"
    return " ".join(filter(None, (near, held)))


def in_file(path: Path, error: VqccError) -> VqccError:
    """Return `error`, found in the tensors of a file, with the file's path before each message."""
    return VqccError(
        *(Diagnostic(item.code, f"{path}: {item.message}", help=item.help) for item in error.diagnostics)
    )


def _read_metadata(file: TensorFile | ShardedFile) -> dict[str, Any]:
    """Return what the metadata says of each VQ tensor, by name; at least one.

    Of a sharded file, what its index and shards say together; they may repeat but not contradict one another.
    """
    texts = file.metadata(METADATA_KEY)
    if not texts:
        raise VqccError(_no_vq_tensors(file))
    described: dict[str, Any] = {}
    found = DiagnosticList()
    for path, text in texts:
        try:
            own = _parse_metadata(path, text)
        except VqccError as error:
            found.extend(error.diagnostics)
            continue
        for name in own.keys() & described.keys():
            if own[name] != described[name]:
                found.error(
                    "VQ0512",
                    f"{path}: metadata describes '{name}' otherwise than another shard",
                    help="describe it in one of them, or alike in all",
                )
        described |= own
    found.raise_if_errors()
    return described


def _no_vq_tensors(file: TensorFile | ShardedFile) -> Diagnostic:
    """Say of a file without VQ tensors what it holds instead, as far as its metadata tells."""
    if file.metadata(PACKED_KEY):
        return Diagnostic(
            "VQ0511",
            f"{file.path} is packed already: it holds no VQ tensors, but what a library's kernels read",
            help="packed files are for `vqcc validate --packed`, the C readers (vqcc/weights.h, vqcc/books.h) and "
            "vqcc.torch; here give the file that was packed, as `vqcc quantize` wrote it",
        )
    return Diagnostic(
        "VQ0511",
        f"{file.path} has no metadata '{METADATA_KEY}'",
        help="plain weights become VQ tensors by `vqcc quantize`",
    )


def _parse_metadata(path: Path, text: str) -> dict[str, Any]:
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{path}: metadata '{METADATA_KEY}' is not JSON: {str(error)[:200]}"
        raise VqccError(Diagnostic("VQ0512", message, help=_FORM)) from None
    if not isinstance(described, dict) or not described:
        message = f"{path}: metadata '{METADATA_KEY}' must be an object with an entry per VQ tensor"
        raise VqccError(Diagnostic("VQ0512", message, help=_FORM))
    return described


def _read_description(
    path: Path, name: str, value: object, axes: int
) -> tuple[Algorithm, list[int], str, float | None]:
    """Read what the metadata says of one tensor: algorithm, shape of `axes`, original type, relative error."""
    where = f"{path}: metadata of VQ tensor '{name}'"
    fields = value if isinstance(value, dict) else {}
    shape, dtype, error = (fields.get(key) for key in ("shape", "dtype", "relative_error"))
    found = DiagnosticList()
    if not isinstance(fields.get("algorithm"), dict):
        message, help_text = _no_mapping(fields.get("algorithm"))
        found.error("VQ0512", f"{where}{message}", help=help_text)
    if not (
        isinstance(shape, list)
        and len(shape) == axes
        and all(type(x) is int and 0 < x <= MAX_INDEX for x in shape)
    ):
        found.error(
            "VQ0512",
            f"{where}: shape must be {_SHAPES[axes]}",
            help="a weight's has two numbers, a KV cache's three: give a file of what the command is for",
        )
    if dtype not in WEIGHT_DTYPES:
        found.error("VQ0512", f"{where}: dtype must be {', '.join(WEIGHT_DTYPES)}", help=_dtype_help(dtype))
    if error is not None and not (type(error) in (int, float) and 0 <= error <= 1e300):
        found.error(
            "VQ0512", f"{where}: relative_error must be null or a number from 0", help="it may be left out"
        )
    found.raise_if_errors()
    assert isinstance(shape, list)
    algorithm = read_algorithm(where, fields["algorithm"], "VQ0513")
    return algorithm, shape, str(dtype), None if error is None else float(error)


def _no_mapping(algorithm: object) -> tuple[str, str]:
    """What to say of an algorithm that is no mapping, and how it is written."""
    from vqcc.algorithms import presets

    if not isinstance(algorithm, str):
        return " has no algorithm mapping", f"write it as a spec does: {_written_out('vq-4-8-1')}"
    message = f": the algorithm is {algorithm[:60]!r}, not a mapping"
    try:
        return message, f"a file has no presets, write it out: {_written_out(algorithm)}"
    except VqccError:
        near = did_you_mean(algorithm, presets.named())
        there = f"a file has no presets either, write the algorithm out: {_written_out('vq-4-8-1')}"
        return message, " ".join(filter(None, (near, there)))


def _written_out(preset: str) -> str:
    from vqcc.algorithms import presets

    return json.dumps({"algorithm": presets.resolve(preset).mapping()})


def _dtype_help(dtype: object) -> str:
    """How to name the type that a weight had."""
    near = did_you_mean(dtype, WEIGHT_DTYPES) if isinstance(dtype, str) else None
    return " ".join(filter(None, (near, "it is the type that the weight had before it was quantized")))


#: How the metadata is written.
_FORM = (
    'it is JSON text, an object with an entry per VQ tensor: {"NAME": {"algorithm": {...}, "shape": [n, k], '
    '"dtype": "float16"}}'
)
_SHAPES = {2: "two positive integers [n, k]", 3: "three positive integers [kv_heads, tokens, head_dim]"}
_EXPECTED_AXES = {
    2: "a weight is a matrix [out, in] with elements; keys and values of a KV cache take a preset such as cq-2",
    3: "keys or values are [kv_heads, tokens, head_dim], with elements; a weight takes a preset such as aqlm-2x8",
}


def read_algorithm(where: str, mapping: Mapping[str, Any], code: str) -> Algorithm:
    """Make the algorithm that a file describes. Raises VqccError `code`, `where` before each message."""
    from pydantic import ValidationError

    from vqcc.algorithms import from_mapping

    try:
        return from_mapping(mapping)
    except ValidationError as error:
        from vqcc.spec.parts import algorithm_in
        from vqcc.spec.source import Source

        found = algorithm_in(Source(where, {"algorithm": dict(mapping)}, {}, {}), ("algorithm",), error)
        raise VqccError(
            *(Diagnostic(code, f"{where}: {item.message}", help=item.help) for item in found)
        ) from None


def _choose(path: Path, names: Iterable[str]) -> Diagnostic:
    return Diagnostic("VQ0515", f"{path} holds several VQ tensors", help=f"name one: {name_list(names)}")


def _unknown_name(path: Path, name: str, names: Iterable[str], what: str) -> Diagnostic:
    near = did_you_mean(name, names)
    there = f"{what} of this file: {name_list(names)}"
    return Diagnostic("VQ0514", f"{path} has no '{name}'", help=" ".join(filter(None, (near, there))))
