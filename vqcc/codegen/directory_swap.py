"""Two steps that the standard library lacks: exchanging two directories, and a lock with a deadline."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from pathlib import Path

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.01


def exchange(staging: Path, target: Path, *, spare: Path) -> None:
    """Give `staging` and `target`, both existing directories, each other's name.

    One system call where the file system offers it. Elsewhere `target` is renamed to `spare` first: a
    kill between the two renames leaves no `target`, but whole bundles under both other names. The old
    directory is `staging` in the first case and `spare` in the second.
    """
    if _exchange_at_once(staging, target):
        return
    target.rename(spare)
    try:
        staging.rename(target)
    except BaseException:
        spare.rename(target)
        raise


def _exchange_at_once(staging: Path, target: Path) -> bool:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    if renameat2 is None:
        return False
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if renameat2(_AT_FDCWD, os.fsencode(staging), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_OFFERED:
        return False
    raise OSError(number, os.strerror(number), str(target))


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DirectoryLock:
    """Holds a directory against other writers, processes and threads alike; leaves no lock file.

    `is_held` is False where the file system has no such locks (some network ones): writers are then
    kept apart by their staging names alone. VqccError VQ0708 if it stays locked for a minute.
    """

    def __init__(self, directory: Path, seconds: float = _LOCK_SECONDS) -> None:
        self._directory = directory
        self._seconds = seconds
        self._descriptor = -1
        self.is_held = False

    def __enter__(self) -> DirectoryLock:
        self._descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._wait()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_held:
            # Closing is not enough where a process forked meanwhile holds the descriptor too.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def _wait(self) -> None:
        deadline = time.monotonic() + self._seconds
        while not self.is_held:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.is_held = True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._busy() from None
                time.sleep(_POLL_SECONDS)
            except OSError:
                return

    def _busy(self) -> VqccError:
        message = f"another process has been writing in {self._directory} for {self._seconds:.0f} s"
        help_text = "wait for it to end, or end it, or choose another output directory with -o"
        return VqccError(Diagnostic("VQ0708", message, help=help_text))
