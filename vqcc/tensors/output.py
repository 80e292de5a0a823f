"""Output files: what may be written over, and how, whichever command writes.

A file appears whole or not at all: it is written beside its place and renamed. A symbolic link stays and the file
it leads to is replaced; a pipe or a character device (`/dev/stdout`, `/dev/null`) is written to where it is.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["check_outputs", "write_atomically"]

_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}


def check_outputs(outputs: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would destroy something, before anything is read or written.

    An input that is a directory (a bundle) stands for all that is or could be in it. Raises VqccError: VQ0711 for an
    output that is an input or another output, by whatever name, and VQ0712 for one that is no file.
    """
    found = DiagnosticList()
    given = tuple(inputs)
    for number, output in enumerate(outputs):
        try:
            if _is_stream(output):
                continue
        except VqccError as error:
            found.extend(error.diagnostics)
            continue
        clash = next(filter(None, (_clash(output, path) for path in given)), None)
        if clash is None and any(_is_same(output, other) for other in outputs[:number]):
            clash = "is another output of this command"
        if clash is not None:
            found.error("VQ0711", f"{output} {clash}", help="nothing was written: name another output")
    found.raise_if_errors()


def write_atomically(path: Path, data: bytes | Iterable[bytes], code: str = "VQ0527") -> None:
    """Replace the file at `path`, or at the end of its links, by `data`, whole or in pieces.

    On failure the old file stays. A pipe or a character device is not replaced: it is given the bytes, once all of
    them are there. Raises VqccError: `code` if the file cannot be written, VQ0712 if `path` is no file, and whatever
    making a piece raises.
    """
    pieces = [data] if isinstance(data, bytes) else data
    if _is_stream(path):
        _write_in_place(path, b"".join(pieces), code)
    else:
        _replace(path, Path(os.path.realpath(path)), pieces, code)


def _replace(path: Path, target: Path, pieces: Iterable[bytes], code: str) -> None:
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _failed(path, error, code) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_in_place(path: Path, data: bytes, code: str) -> None:
    try:
        # By its own name: /dev/stdout leads to a pipe that has no other.
        with open(os.open(path, os.O_WRONLY), "wb") as file:  # noqa: PTH123  (never creates, which Path would)
            file.write(data)
    except OSError as error:
        raise _failed(path, error, code) from error


def _failed(path: Path, error: OSError, code: str) -> VqccError:
    return VqccError(
        Diagnostic(
            code,
            f"{path}: {error.strerror or error}",
            help="its directory must exist, may not be read-only, and needs room for the whole file",
        )
    )


def _is_stream(path: Path) -> bool:
    """Whether `path` is there and takes bytes in place. Raises VQ0712 if it can be no output at all."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False  # there is nothing yet, or writing will say what is wrong
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        help_text = "name a file, a pipe or a character device; nothing was written"
        raise VqccError(Diagnostic("VQ0712", f"{path} is {kind}, which an output cannot be", help=help_text))
    return False


def _clash(output: Path, given: Path) -> str | None:
    """How writing `output` would change the input `given`; None if it would not."""
    if _is_same(output, given):
        return f"is the input {given}"
    if given.is_dir() and Path(os.path.realpath(given)) in Path(os.path.realpath(output)).parents:
        return f"would lie in the library {given}"
    return None


def _is_same(one: Path, other: Path) -> bool:
    """Whether both paths are one file, or would be once it is written."""
    with suppress(OSError, ValueError):
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)
