"""The profile file: JSON with the raw counts of each tensor (docs/profile.md describes it to the byte).

Counts stand as base64 of the narrowest unsigned little-endian type that holds them: a table of 65,536 entries, or
thousands of tables of 256, stay a line that any language decodes in two calls, and no compressor's version decides
the bytes. The same codes give the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any

from vqcc.algorithms.fields import MAX_INDEX
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.hotness.model import Profile, TensorProfile
from vqcc.tensors.container import read_algorithm, write_atomically
from vqcc.tensors.header import unique_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm

__all__ = ["FORMAT", "encode", "load_profile", "save_profile"]

FORMAT = 1
MAX_BYTES = 1 << 30

_VERSION_KEY = "vqcc_profile"
_TYPES = ("uint8", "uint16", "uint32", "uint64")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = ("name", "algorithm", "shape", "codes_sha256", "counts")
_MAKE = "make profiles by `vqcc profile VQ.safetensors -o hotness.json`"


def save_profile(path: Path, tensors: Iterable[TensorProfile]) -> str:
    """Write tensors to a profile, one at a time, and return the SHA-256 (hex) of the file's bytes.

    `path` holds the old or the new file at every moment. Raises VqccError: VQ0527 if it cannot be written, VQ0529
    for two tensors of one name, and what making a tensor raises.
    """
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for piece in encode(tensors):
            digest.update(piece)
            yield piece

    write_atomically(path, pieces())
    return digest.hexdigest()


def encode(tensors: Iterable[TensorProfile]) -> Iterator[bytes]:
    """Yield the bytes of a profile, piece by piece. Raises VqccError VQ0529 for two tensors of one name."""
    names: set[str] = set()
    yield f'{{"{_VERSION_KEY}": {FORMAT},\n "tensors": ['.encode()
    for tensor in tensors:
        if tensor.name in names:
            raise VqccError(Diagnostic("VQ0529", f"two VQ tensors are named '{tensor.name}'"))
        yield (",\n" if names else "\n").encode() + _encode_tensor(tensor)
        names.add(tensor.name)
    yield b"\n ]}\n"


def _encode_tensor(tensor: TensorProfile) -> bytes:
    import numpy as np

    name = np.min_scalar_type(int(tensor.counts.max())).name
    data = tensor.counts.astype(np.dtype(name).newbyteorder("<")).tobytes()
    return (
        f'  {{"name": {json.dumps(tensor.name)},\n'
        f'   "algorithm": {json.dumps(tensor.algorithm.mapping(), sort_keys=True)},\n'
        f'   "shape": {json.dumps(list(tensor.shape))},\n'
        f'   "codes_sha256": "{tensor.codes_sha256}",\n'
        f'   "counts": {{"shape": {json.dumps(list(tensor.counts.shape))}, "type": "{name}",\n'
        f'    "base64": "{base64.b64encode(data).decode()}"}}}}'
    ).encode()


def load_profile(path: Path) -> Profile:
    """Read a profile, checked in full.

    Raises VqccError: VQ0536 if the file cannot be read or is over 1 GiB, VQ0537 if it is no profile, VQ0538 for
    another format, VQ0539 with all that is wrong in its tensors.
    """
    data = _read(path)
    try:
        document = json.loads(data, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise _refuse("VQ0537", f"{path} is not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict) or _VERSION_KEY not in document:
        raise _refuse("VQ0537", f"{path} is no profile: it is no object with '{_VERSION_KEY}'")
    version = document[_VERSION_KEY]
    if type(version) is not int or version != FORMAT:
        shown = str(version)[:40]
        raise _refuse("VQ0538", f"{path} has format {shown}; this vqcc reads {FORMAT}")
    tensors = document.get("tensors")
    if not isinstance(tensors, list) or not tensors or document.keys() != {_VERSION_KEY, "tensors"}:
        raise _refuse(
            "VQ0539", f"{path}: a profile has '{_VERSION_KEY}' and 'tensors', a list of at least one"
        )
    found = DiagnosticList()
    read = {}
    for index, value in enumerate(tensors):
        try:
            tensor = _read_tensor(f"{path}: tensors[{index}]", value)
            if tensor.name in read:
                raise _refuse("VQ0539", f"{path}: two tensors are named '{tensor.name}'")
            read[tensor.name] = tensor
        except VqccError as error:
            found.extend(error.diagnostics)
    found.raise_if_errors()
    return Profile(tuple(read.values()), hashlib.sha256(data).hexdigest())


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            # Neither a directory nor a pipe, which would be waited for.
            raise _refuse("VQ0536", f"{path} is no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _refuse("VQ0536", f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise _refuse("VQ0536", f"{path} has more than {MAX_BYTES} bytes")
    return data


def _read_tensor(where: str, value: object) -> TensorProfile:
    if not isinstance(value, dict) or value.keys() != set(_KEYS):
        raise _refuse("VQ0539", f"{where} must be an object with {', '.join(_KEYS)}")
    name, shape, sha256 = (value[key] for key in ("name", "shape", "codes_sha256"))
    found = DiagnosticList()
    if not isinstance(name, str):
        found.error("VQ0539", f"{where}: name must be text", help=_MAKE)
    if not (_is_shape(shape, 2) and max(shape) <= MAX_INDEX):
        found.error("VQ0539", f"{where}: shape must be two positive integers [n, k]", help=_MAKE)
    if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        found.error("VQ0539", f"{where}: codes_sha256 must be 64 hexadecimal digits", help=_MAKE)
    if not isinstance(value["algorithm"], dict):
        found.error("VQ0539", f"{where}: algorithm must be a mapping", help=_MAKE)
    found.raise_if_errors()
    n, k = shape
    algorithm = read_algorithm(where, value["algorithm"], "VQ0539")
    for finding in (*algorithm.check_fields(), *algorithm.check(n, k)):
        found.error("VQ0539", f"{where}: {finding.message}", help=finding.help)
    found.raise_if_errors()
    counts = _read_counts(where, value["counts"], algorithm, (n, k))
    return TensorProfile(name, algorithm, (n, k), sha256, counts)


def _read_counts(
    where: str, value: object, algorithm: Algorithm, shape: tuple[int, int]
) -> NDArray[np.int64]:
    import numpy as np

    fields = value if isinstance(value, dict) else {}
    counted, name, text = (fields.get(key) for key in ("shape", "type", "base64"))
    expected = [algorithm.scope.books(*shape), algorithm.table_count, algorithm.table_entries]
    if len(fields) != 3 or name not in _TYPES or not isinstance(text, str):
        raise _refuse("VQ0539", f"{where}: counts must have shape, type ({', '.join(_TYPES)}) and base64")
    if not _is_shape(counted, 3) or counted != expected:
        raise _refuse(
            "VQ0539", f"{where}: counts have shape {str(counted)[:80]}, {algorithm.label} has {expected}"
        )
    dtype = np.dtype(name).newbyteorder("<")
    size = math.prod(expected) * dtype.itemsize
    try:
        # The length first: no more is decoded than the counts take.
        data = base64.b64decode(text, validate=True) if len(text) == -(-size // 3) * 4 else b""
    except (ValueError, binascii.Error):
        data = b""
    if len(data) != size:
        raise _refuse("VQ0539", f"{where}: counts are not base64 of {size} bytes")
    counts = np.frombuffer(data, dtype).reshape(expected)
    wrong = _wrong_sum(counts, algorithm, shape)
    if wrong is not None:
        raise _refuse("VQ0539", f"{where}: {wrong}")
    return counts.astype(np.int64)


def _wrong_sum(counts: NDArray[Any], algorithm: Algorithm, shape: tuple[int, int]) -> str | None:
    """Return what is wrong with counts that are not as many as the codes of each table; None if all are."""
    import numpy as np

    stages = algorithm.residuals // algorithm.table_count
    looked_up = [
        (rows.stop - rows.start) * ((columns.stop - columns.start) // algorithm.vector_size) * stages
        for rows, columns in algorithm.scope.slices(*shape)
    ]
    # Below this no sum of possible counts overflows, and no weight that exists is larger.
    if max(looked_up) * algorithm.table_entries >= 1 << 63:
        return f"a weight {list(shape)} is too large"
    expected = np.array(looked_up, np.uint64)[:, None]
    sums = np.where((counts <= expected[:, :, None]).all(axis=-1), counts.sum(axis=-1, dtype=np.uint64), 0)
    book, table = (int(index[0]) if len(index) else -1 for index in np.nonzero(sums != expected))
    if book < 0:
        return None
    found = sum(map(int, counts[book, table]))
    return f"counts of book {book}, table {table} add up to {found}, but it has {looked_up[book]} codes"


def _is_shape(value: object, axes: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == axes
        and all(type(item) is int and item > 0 for item in value)
    )


def _refuse(code: str, message: str) -> VqccError:
    return VqccError(Diagnostic(code, message, help=_MAKE))
