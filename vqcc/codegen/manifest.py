"""A bundle's manifest: what the bundle is, the sha256 and size of each of its files, and its own sha256.

The hashes find what was damaged or changed by hand; they are no signature, and who means to can make them anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vqcc
from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 3  # of bundles: what the manifest says and how kernels are called
NAME = "manifest.json"
#: The `kind` of a bundle that is no library: of hand-written kernels.
WRITTEN_KERNELS = "written-kernels"

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}"
#: A file of the bundle, or, of a whole model, one of the bundles in its folders.
_FILE_NAME = re.compile(rf"(?:{_WORD}/)?{_WORD}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OWN_KEYS = ("vqcc", "format", "files", "sha256")


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of one file."""

    sha256: str
    size: int

    def matches(self, data: bytes) -> bool:
        """Whether `data` is the file's content."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


def make_manifest(fields: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Make the manifest's bytes: `fields` in their order, then `files` and `sha256`. Same input, same bytes.

    VqccError VQ0707 for a name that is no plain file name; ValueError for fields of the manifest's own.
    """
    if taken := sorted(set(fields) & set(_OWN_KEYS)):
        raise ValueError(f"the manifest sets {', '.join(taken)} itself")
    if wrong := sorted(name for name in files if not is_file_name(name)):
        shown = ", ".join(repr(name) for name in wrong)
        help_text = (
            "a bundle has files, and folders of them; names hold letters, digits, _.+- and start with no dot"
        )
        raise VqccError(Diagnostic("VQ0707", f"these cannot be files of a bundle: {shown}", help=help_text))
    records = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in sorted(files.items())
    }
    document = {"vqcc": vqcc.__version__, "format": FORMAT, **fields, "files": records}
    return json.dumps(seal(document), indent=2, allow_nan=False).encode() + b"\n"


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with `sha256`, last: that of all else in it, as JSON with sorted keys and no blanks."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def is_file_name(name: str) -> bool:
    """Whether a bundle may hold a file of this name beside its manifest."""
    return _FILE_NAME.fullmatch(name) is not None and name != NAME


def parse_manifest(data: bytes, where: str) -> tuple[dict[str, Any], dict[str, FileRecord]]:
    """Read a manifest's document and file records. `where` names the bundle in messages.

    VqccError VQ0704 if it is not a manifest of vqcc, VQ0706 for another format, VQ0705 if it is damaged.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refuse("VQ0705", f"the {NAME} of {where} is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("vqcc"), str):
        raise _refuse(
            "VQ0704", f"the {NAME} of {where} is not vqcc's", "give a directory that vqcc compile wrote"
        )
    if document.get("format") != FORMAT:
        made = f"{where} has format {document.get('format')!r}, written by vqcc {document['vqcc']}"
        raise _refuse("VQ0706", made, f"this is vqcc {vqcc.__version__}, which reads format {FORMAT}")
    if not _is_sealed(document):
        raise _refuse("VQ0705", f"the {NAME} of {where} was changed: it does not have its own sha256")
    return document, _records(document.get("files"), where)


def listed_names(data: bytes) -> frozenset[str]:
    """Names of the files a manifest of any format lists; none if it is not a manifest of vqcc."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return frozenset()
    if not isinstance(document, dict) or not isinstance(document.get("vqcc"), str):
        return frozenset()
    files = document.get("files")
    return frozenset(filter(is_file_name, files)) if isinstance(files, dict) else frozenset()


def _is_sealed(document: Mapping[str, Any]) -> bool:
    try:
        return bool(document.get("sha256") == seal(document)["sha256"])
    except RecursionError:  # nested so deep that it can be read but not written
        return False


def _records(files: object, where: str) -> dict[str, FileRecord]:
    if not isinstance(files, dict):
        raise _refuse("VQ0705", f"the {NAME} of {where} lists no files")
    return {name: _record(name, record, where) for name, record in files.items()}


def _record(name: str, record: object, where: str) -> FileRecord:
    if is_file_name(name) and isinstance(record, dict):
        sha256, size = record.get("sha256"), record.get("bytes")
        if isinstance(sha256, str) and _SHA256.fullmatch(sha256) and type(size) is int and size >= 0:
            return FileRecord(sha256, size)
    raise _refuse("VQ0705", f"the {NAME} of {where} is damaged at file {name!r}")


def _refuse(code: str, message: str, help_text: str = "compile the spec again") -> VqccError:
    return VqccError(Diagnostic(code, message, help=help_text))
