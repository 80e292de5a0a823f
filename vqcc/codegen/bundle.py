"""Writes and reads bundles: the directory of files that one spec compiles to, of a whole model with folders of bundles.

A bundle is replaced as a whole. Its files are written and synced in a staging directory beside it, and
one rename puts that in place, so whoever is killed whenever leaves the old bundle or the new one. Writers
beside each other take turns by a lock on the parent directory, which also tells them that any staging
directory they find there has lost its writer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcc.codegen import manifest
from vqcc.codegen.directory_swap import DirectoryLock, exchange, sync_directory
from vqcc.codegen.manifest import make_manifest
from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["Bundle", "make_manifest", "read_bundle", "read_files", "write_bundle"]

_READ_ATTEMPTS = 5
_SHOWN_NAMES = 10
_ABANDONED_SECONDS = 3600.0
_ELSEWHERE = "choose another output directory with -o"
#: What helps when the system refuses to write, by its error.
_REMEDIES = {
    errno.ENOSPC: f"the disk is full: make room, or {_ELSEWHERE}",
    errno.EDQUOT: f"your quota is used up: make room, or {_ELSEWHERE}",
    errno.EROFS: f"the file system is read-only: {_ELSEWHERE}",
    errno.EACCES: f"you may not write there: {_ELSEWHERE}, or have its permissions changed",
    errno.EPERM: f"you may not write there: {_ELSEWHERE}, or have its permissions changed",
    errno.ENOTDIR: f"a part of that path is a file: {_ELSEWHERE}",
    errno.EEXIST: f"a part of that path is a file: {_ELSEWHERE}",
}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `manifest` is its document, `files` the content of each file the manifest lists."""

    directory: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    def read_file(self, name: str) -> bytes:
        """Content of one file as it was verified; VqccError VQ0704 if the bundle has no such file."""
        if name not in self.files:
            held = ", ".join(self.files)
            raise _error("VQ0704", f"{self.directory} has no file {name}", f"it holds {held}")
        return self.files[name]


def write_bundle(directory: Path, files: Mapping[str, bytes], *, fields: Mapping[str, Any]) -> bool:
    """Make `directory` hold exactly `files` and their manifest with `fields`; whether anything changed.

    A bundle that already is so is left untouched, and a file whose content stays keeps its time. Missing
    parent directories are made. VqccError: VQ0703 if `directory` holds what vqcc did not write,
    VQ0707 for names that are none, VQ0708 if another writer stays in the way, VQ0701 if the disk refuses;
    the old bundle then stays as it was.
    """
    content = {**files, manifest.NAME: make_manifest(fields, files)}
    try:
        # Through a symbolic link the directory it points to is replaced, not the link.
        target = Path(os.path.realpath(directory))
        with _made(target.parent), DirectoryLock(target.parent) as lock:
            _recover(target, alone=lock.is_held)
            names = _names(target, _folders(content))
            _refuse_foreign(target, names)
            old = {name: (target / name).read_bytes() for name in names}
            if old == content:
                return False
            _replace(target, content, old)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        help_text = f"{_REMEDIES.get(error.errno or 0, _ELSEWHERE)}; nothing is half written"
        raise _error("VQ0701", f"cannot write {directory}: {what}", help_text) from error
    return True


@contextlib.contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make a directory with its parents; those that were not there go again, if what follows fails."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:  # the innermost first; one with something in it stays
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle whole and verify every file against the manifest.

    VqccError: VQ0704 if there is no bundle, VQ0705 with every file that is missing, unlisted or different,
    VQ0706 for another format, VQ0701 if it cannot be read.
    """
    attempt = 1
    while True:
        before = _identity(directory)
        try:
            return _read(directory)
        except VqccError:
            # A writer may have put a new bundle here while the old one was being read.
            if attempt == _READ_ATTEMPTS or _identity(directory) == before:
                raise
        attempt += 1


def read_files(directory: Path) -> dict[str, bytes]:
    """Content of every file of a bundle's directory by its name, verified against nothing.

    Raises OSError for what no bundle holds: links, empty folders, what is no file.
    """
    with contextlib.closing(_Opened(directory)) as opened:
        return {name: opened.read(name) for name in opened.names()}


def _read(directory: Path) -> Bundle:
    spare = _spare(Path(os.path.realpath(directory)))
    place = spare if spare.exists() and not directory.exists() else directory
    try:
        with contextlib.closing(_Opened(place)) as opened:
            names = opened.names()
            if manifest.NAME not in names:
                help_text = "give a directory that vqcc compile wrote"
                raise _error("VQ0704", f"{directory} holds no {manifest.NAME}", help_text)
            document, records = manifest.parse_manifest(opened.read(manifest.NAME), str(directory))
            files = {name: opened.read(name) for name in records if name in names}
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            code, help_text = "VQ0704", "give OUT/<name>, a directory that vqcc compile wrote"
        else:
            code, help_text = "VQ0701", "see that you may read the directory and all that is in it"
        raise _error(code, f"cannot read {directory}: {error.strerror}", help_text) from error
    problems = [
        *(f"{name} is missing" for name in records if name not in files),
        *(f"{name} was changed" for name, data in files.items() if not records[name].matches(data)),
        *(f"{name} is not in the manifest" for name in names if name not in {*records, manifest.NAME}),
    ]
    if problems:
        help_text = "compile the spec again; files of your own belong elsewhere"
        raise VqccError(*(Diagnostic("VQ0705", f"{directory}: {text}", help=help_text) for text in problems))
    return Bundle(directory, document, files)


class _Opened:
    """A directory held open: its files stay those of one bundle while another takes its name."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def names(self, folders: Collection[str] = ()) -> list[str]:
        """Names of all that is there; of folders what is in them, by `folder/name`.

        An empty folder counts by its own name, unless it is one of `folders`: build systems make those they wait for.
        """
        with os.scandir(self._descriptor) as entries:
            return sorted(name for entry in entries for name in self._below(entry, entry.name in folders))

    def _below(self, entry: os.DirEntry[str], expected: bool) -> list[str]:
        """An entry's name, or those of what is in it."""
        if not entry.is_dir(follow_symlinks=False):
            return [entry.name]
        folder = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._descriptor)
        try:
            inner = os.listdir(folder)  # noqa: PTH208  (by descriptor, which Path cannot)
        finally:
            os.close(folder)
        return [f"{entry.name}/{name}" for name in inner] or ([] if expected else [entry.name])

    def read(self, name: str) -> bytes:
        # No link leads out of a bundle, and nothing that is no file (a pipe) can make a reader wait.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(name, flags, dir_fd=self._descriptor), "rb") as file:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(0, "not a regular file", name)
            return file.read()

    def close(self) -> None:
        os.close(self._descriptor)


def _identity(directory: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = directory.stat()
        return status.st_dev, status.st_ino
    return None


def _folders(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.partition("/")[0] for name in names if "/" in name)


def _names(target: Path, expected: frozenset[str]) -> list[str]:
    """What a writer finds in `target`, nothing if that is not there; empty folders that are `expected` do not count."""
    try:
        with contextlib.closing(_Opened(target)) as opened:
            return opened.names(expected)
    except FileNotFoundError:
        return []


def _refuse_foreign(target: Path, names: list[str]) -> None:
    ours: set[str] = set()
    if manifest.NAME in names and _is_plain_file(target / manifest.NAME):
        listed = manifest.listed_names((target / manifest.NAME).read_bytes())
        ours = {*listed, manifest.NAME} if listed else set()
    foreign = [name for name in names if name not in ours or not _is_plain_file(target / name)]
    if foreign:
        more = len(foreign) - _SHOWN_NAMES
        shown = ", ".join(foreign[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
        help_text = "move these files away, or choose another output directory with -o"
        raise _error("VQ0703", f"{target} holds files that vqcc did not write: {shown}", help_text)


def _is_plain_file(path: Path) -> bool:
    return stat.S_ISREG(path.stat(follow_symlinks=False).st_mode)


def _staging_prefix(target: Path) -> str:
    return f".{target.name}.vqcc-"


def _spare(target: Path) -> Path:
    """Where the old bundle is while the new one takes its name, on file systems that need two steps."""
    return target.parent / f"{_staging_prefix(target)}old"


def _recover(target: Path, *, alone: bool) -> None:
    """Put back a bundle that lost its name to a kill, and sweep what killed writers left.

    Who is not `alone`, for want of locks, leaves alone what is young enough to have a writer.
    """
    for path in sorted(target.parent.iterdir()):
        if not path.name.startswith(_staging_prefix(target)) or not (alone or _is_abandoned(path)):
            continue
        if path == _spare(target) and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    return False


def _replace(target: Path, content: Mapping[str, bytes], old: Mapping[str, bytes]) -> None:
    staging = target.parent / f"{_staging_prefix(target)}{os.urandom(6).hex()}"
    try:
        staging.mkdir()
        folders = [staging / folder for folder in sorted(_folders(content))]
        for folder in folders:
            folder.mkdir()
        for name, data in content.items():
            _write(staging / name, data)
            if old.get(name) == data:
                # Equal content keeps its time, so that a build does not redo what depends on it.
                status = (target / name).stat()
                os.utime(staging / name, ns=(status.st_atime_ns, status.st_mtime_ns))
        for folder in (*folders, staging):
            sync_directory(folder)
        if target.exists() and any(target.iterdir()):
            exchange(staging, target, spare=_spare(target))
        else:
            staging.rename(target)  # also over an empty directory
        sync_directory(target.parent)
    finally:
        # After the exchange, one of these is the old bundle.
        shutil.rmtree(staging, ignore_errors=True)
        if target.exists():
            shutil.rmtree(_spare(target), ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _error(code: str, message: str, help_text: str | None = None) -> VqccError:
    return VqccError(Diagnostic(code, message, help=help_text))
