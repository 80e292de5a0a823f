"""The header of a safetensors file, checked against the file before any byte of a tensor is used.

A file is 8 bytes of little-endian header length, a JSON header, and the tensors' bytes; the header gives
each tensor's type, shape and place among those bytes. The tensors must cover them exactly.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from mmap import ACCESS_READ, MADV_DONTNEED, PAGESIZE, mmap
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self, TypeGuard

from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

# The format's own limits.
_MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_MAX_AXES = 32
_MAX_SIZE = 2**63 - 1
_METADATA = "__metadata__"

# Element types of the format and the names of the project for those that are read here.
DTYPES: Mapping[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
}


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: `begin` and `end` are byte offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """All tensors of the file by name, and its free-form metadata."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


class TensorFile:
    """An open safetensors file whose header has been checked; arrays are read-only views of its mapping.

    A context manager: views stay valid after it is closed. They come from the file whose header was read,
    even if another takes its name meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises VqccError VQ0501 if it cannot be read, and as `read_header`."""
        self.path = path
        self._map: mmap | None = None
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise unreadable(path, error) from None
        try:
            self.header = read_header(path, self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All tensors by name."""
        return self.header.entries

    def metadata(self, key: str) -> list[tuple[Path, str]]:
        """The text that the file's metadata has under `key`, with the file's path; nothing if it has none."""
        text = self.header.metadata.get(key)
        return [] if text is None else [(self.path, text)]

    def array(self, name: str) -> NDArray[Any]:
        """Map a tensor that the header lists; nothing is read until it is used. Raises VqccError VQ0501."""
        import numpy as np

        from vqcc.tensors.vq_tensor import numpy_dtype

        entry = self.header.entries[name]
        dtype = numpy_dtype(entry.dtype)
        if entry.begin == entry.end:
            return np.zeros(entry.shape, dtype)
        if self._map is None:
            # One mapping per file, since each holds a file descriptor as long as its views live.
            try:
                self._map = mmap(self._file.fileno(), 0, access=ACCESS_READ)
            except OSError as error:
                raise unreadable(self.path, error) from None
        # Not every writer aligns tensors; NumPy reads unaligned views, slower.
        return np.ndarray(entry.shape, dtype, buffer=self._map, offset=entry.begin)


def release_pages(array: NDArray[Any]) -> None:
    """Take the pages behind a mapped array out of this process; they are read again where it is used again.

    Keeps a pass over a file larger than memory from growing the process. No-op for arrays that are not mapped.
    """
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    if owner is None or array.size == 0 or not hasattr(owner, "madvise"):
        return
    begin = _address(array) - _address(owner)
    first = begin // PAGESIZE * PAGESIZE
    owner.madvise(MADV_DONTNEED, first, begin + array.nbytes - first)


def _address(memory: Any) -> int:
    import numpy as np

    array = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
    address: int = array.__array_interface__["data"][0]
    return address


def name_list(names: Iterable[str], most: int = 20) -> str:
    """Names for a message, sorted, the first `most` of them."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return (", ".join(ordered[:most]) or "none") + more


def read_header(path: Path, file: BinaryIO) -> Header:
    """Read and check the header of an open file; `path` is for messages.

    Raises VqccError: VQ0501 if the file cannot be read, VQ0502 to VQ0510 and VQ0516 for what is wrong in
    it (every malformed entry is reported, then every misplaced one).
    """
    try:
        size = file.seek(0, 2)
        file.seek(0)
        text, start = _read_text(path, file, size)
    except OSError as error:
        raise unreadable(path, error) from None
    fields = _parse(path, text)
    metadata = _read_metadata(path, fields.pop(_METADATA, {}))
    found = DiagnosticList()
    entries = [_read_entry(path, name, value, start, found) for name, value in sorted(fields.items())]
    found.raise_if_errors()
    known = [entry for entry in entries if entry is not None]
    _check_places(path, known, start, size)
    return Header({entry.name: entry for entry in known}, metadata)


def _fail(code: str, message: str, help: str | None = None) -> NoReturn:  # noqa: A002
    raise VqccError(Diagnostic(code, message, help=help))


def unreadable(path: Path, error: OSError) -> VqccError:
    """Make the error VQ0501 for a tensor file that the system does not let be read."""
    help_text = "give the path of a safetensors file that is there and that you may read"
    return VqccError(Diagnostic("VQ0501", f"{path}: {error.strerror or error}", help=help_text))


def _read_text(path: Path, file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Return the header's bytes and where the tensors' bytes start."""
    if size < _LENGTH_BYTES:
        what = "is empty" if size == 0 else f"has {counted(size, 'byte')}"
        _fail(
            "VQ0502", f"{path} {what}", "a safetensors file starts with 8 bytes that give its header's length"
        )
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > size - _LENGTH_BYTES:
        there = size - _LENGTH_BYTES
        _fail(
            "VQ0503",
            f"{path}: the header has {counted(length, 'byte')} by the file's first 8 bytes, but {there} follow",
            "the file is truncated, or is not a safetensors file",
        )
    if length > _MAX_HEADER_BYTES:
        _fail("VQ0516", f"{path}: a header of {length} bytes; the format allows {_MAX_HEADER_BYTES}")
    return file.read(length), _LENGTH_BYTES + length


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        _fail("VQ0504", f"{path}: the header is not JSON: {str(error)[:200]}", "the file is damaged")
    if not isinstance(fields, dict):
        _fail("VQ0504", f"{path}: the header is JSON but not an object", "the file is damaged")
    return fields


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the object of a JSON file; ValueError for a key that stands twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"key {twice!r} stands twice")
    return fields


def _read_metadata(path: Path, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _fail("VQ0505", f"{path}: {_METADATA} must be an object of strings", "the file is damaged")
    return value


def _read_entry(path: Path, name: str, value: object, start: int, found: DiagnosticList) -> Entry | None:
    """Read one tensor's entry; report what is wrong with it to `found`."""
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (
        isinstance(dtype, str)
        and _is_naturals(shape)
        and _is_naturals(offsets)
        and len(offsets) == 2
        and len(shape) <= _MAX_AXES
    ):
        found.error(
            "VQ0505",
            f"{path}: malformed header entry of tensor '{name}'",
            help="an entry has dtype (text), shape (at most 32 axes) and data_offsets (two), integers from 0",
        )
        return None
    if dtype not in DTYPES:
        legal = f"known are {', '.join(DTYPES)}"
        found.error("VQ0506", f"{path}: tensor '{name}' has element type '{dtype[:40]}'", help=legal)
        return None
    numpy_name, width = DTYPES[dtype]
    begin, end = offsets
    needed = min(math.prod(shape) * width, _MAX_SIZE)
    if end - begin != needed:
        found.error(
            "VQ0510",
            f"{path}: tensor '{name}', {dtype} {shape}, needs {counted(needed, 'byte')}; "
            f"its offsets give {end - begin}",
            help="the file is damaged, or was written by a faulty program",
        )
        return None
    return Entry(name, numpy_name, tuple(shape), start + begin, start + end)


def _is_naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= _MAX_SIZE for item in value)


def _check_places(path: Path, entries: list[Entry], start: int, size: int) -> None:
    """Report tensors past the end, tensors that overlap, and bytes that no tensor owns."""
    found = DiagnosticList()
    for entry in entries:
        if entry.end > size:
            found.error(
                "VQ0507",
                f"{path}: tensor '{entry.name}' ends at byte {entry.end}, the file has {counted(size, 'byte')}",
                help="the file is truncated",
            )
    found.raise_if_errors()
    last = Entry("", "", (), start, start)
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin < last.end:
            message = (
                f"{path}: tensors '{last.name}' and '{entry.name}' share bytes {entry.begin} to {last.end}"
            )
            found.error("VQ0508", message, help="each tensor needs bytes of its own")
        elif entry.begin > last.end:
            _report_hole(path, last.end, entry.begin, found)
        last = entry if entry.end >= last.end else last
    if last.end < size:
        _report_hole(path, last.end, size, found)
    found.raise_if_errors()


def _report_hole(path: Path, begin: int, end: int, found: DiagnosticList) -> None:
    message = f"{path}: bytes {begin} to {end} belong to no tensor"
    found.error("VQ0509", message, help="tensors must cover the file without gaps or trailing bytes")
