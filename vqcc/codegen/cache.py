"""The compile cache: what was compiled once, in one checksummed file per key.

Entries appear by rename, so a reader sees a whole entry or none, whoever else writes and whenever a
process is killed; an entry that was damaged all the same fails its checksum and is removed. Nothing that
goes wrong here stops a compilation: it becomes a warning, and the cache stands aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vqcc.codegen.resources import Resources
from vqcc.codegen.toolchain import NO_HEADERS, Compiled
from vqcc.diagnostics import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vqcc.codegen.toolchain import Toolchain

FORMAT = 1  # of the entries; a change makes every older entry unreachable and, in time, pruned

_MAGIC = b"vqcc compile cache %d\n" % FORMAT
_KEY = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".tmp-"
_ABANDONED_SECONDS = 3600.0  # a temporary file this old has lost its writer
_PRUNE_TO = 0.8  # of the limit, so that a full cache is not scanned at every entry


@dataclass(frozen=True)
class CacheStats:
    """What the cache holds. `limit_bytes` is where pruning starts."""

    entries: int
    total_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class CompileCounts:
    """Sources that were compiled, and those whose results a cache had."""

    made: int = 0
    found: int = 0

    def since(self, before: CompileCounts) -> CompileCounts:
        """What has come since `before`."""
        return CompileCounts(self.made - before.made, self.found - before.found)


class CompileCache:
    """Entries by key, pruned by last use above `limit_bytes`. Safe between threads and processes."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._warnings: list[Diagnostic] = []
        self._known_bytes: int | None = None  # total after the last scan and what was put since
        self._compiled = CompileCounts()

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What kept the cache from working, at most one diagnostic (VQ0702)."""
        return tuple(self._warnings)

    @property
    def compiled(self) -> CompileCounts:
        """What `compile_cached` has been asked for with this cache."""
        return self._compiled

    def count(self, *, found: bool) -> None:
        """Note a compilation, or that its result was found here."""
        with self._lock:
            own = self._compiled
            self._compiled = CompileCounts(own.made + (not found), own.found + found)

    def get(self, key: str) -> bytes | None:
        """Return what was put under `key` (64 hexadecimal digits), None if that is not here whole."""
        path = self._path(key)
        if not self._is_private():
            return None
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot read {path}: {error.strerror}")
            return None
        payload = _unseal(data)
        # Neither step matters for this result, and a cache that may only be read still serves.
        with contextlib.suppress(OSError):
            if payload is None:
                path.unlink()
            else:
                os.utime(path)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Keep `payload` under `key`; a failure becomes a warning, and nothing is kept."""
        path = self._path(key)
        if self._warnings or not self._is_private():
            return
        sealed = _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
        temporary = path.parent / f"{_TEMPORARY}{os.urandom(8).hex()}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                _write(temporary, sealed)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._prune(len(sealed))
        except OSError as error:
            self._warn(f"cannot write to {self.directory}: {error.strerror}")

    def discard(self, key: str) -> None:
        """Remove an entry whose content turned out to be of no use."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def stats(self) -> CacheStats:
        """Count what is here; an absent or unreadable directory holds nothing."""
        sizes = [status.st_size for path, status in self._files() if not path.name.startswith(_TEMPORARY)]
        return CacheStats(len(sizes), sum(sizes), self.limit_bytes)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a cache key: {key!r}")
        return self.directory / key[:2] / key[2:]

    def _is_private(self) -> bool:
        """Whether only people the user trusts can plant entries: what is fetched here runs on a GPU."""
        with contextlib.suppress(OSError):
            status = self.directory.stat()
            if status.st_mode & stat.S_IWOTH:
                self._warn(f"everybody may write to {self.directory}")
                return False
            if status.st_uid not in {os.getuid(), 0}:
                self._warn(f"{self.directory} belongs to another user")
                return False
        return True

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield every file of ours. What vanishes meanwhile or is not ours is passed over."""
        with contextlib.suppress(OSError):
            for group in list(self.directory.iterdir()):
                if re.fullmatch("[0-9a-f]{2}", group.name):
                    yield from _stat_all(group)

    def _prune(self, added: int) -> None:
        with self._lock:
            if self._known_bytes is not None:
                self._known_bytes += added
                if self._known_bytes <= self.limit_bytes:
                    return
            files = sorted(self._files(), key=lambda item: item[1].st_mtime)
            total = sum(status.st_size for _, status in files)
            goal = self.limit_bytes * _PRUNE_TO if total > self.limit_bytes else total
            abandoned = time.time() - _ABANDONED_SECONDS
            for path, status in files:
                is_temporary = path.name.startswith(_TEMPORARY)
                if (status.st_mtime < abandoned) if is_temporary else (total > goal):
                    path.unlink(missing_ok=True)
                    total -= status.st_size
            self._known_bytes = total

    def _warn(self, message: str) -> None:
        help_text = "compiling goes on without it; give a writable directory of your own with --cache-dir"
        with self._lock:
            if not self._warnings:
                self._warnings.append(Diagnostic("VQ0702", message, help=help_text, severity="warning"))


def compile_cached(
    toolchain: Toolchain,
    cache: CompileCache | None,
    source: str,
    *,
    target: str,
    want_ptx: bool,
    file_name: str,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Compiled:
    """Compile `source`, or fetch what the same toolchain made of it before. Raises as Toolchain.compile."""

    def compiled_anew() -> Compiled:
        return toolchain.compile(
            source, target=target, want_ptx=want_ptx, file_name=file_name, headers=headers
        )

    if cache is None:
        return compiled_anew()
    key = cache_key(toolchain, source, target=target, want_ptx=want_ptx, file_name=file_name, headers=headers)
    payload = cache.get(key)
    if payload is not None:
        try:
            compiled = decode(payload)
        except (ValueError, KeyError, TypeError, AttributeError):
            cache.discard(key)  # whole, but not written by this code
        else:
            cache.count(found=True)
            return compiled
    compiled = compiled_anew()
    cache.count(found=False)
    cache.put(key, encode(compiled))
    return compiled


def cache_key(
    toolchain: Toolchain,
    source: str,
    *,
    target: str,
    want_ptx: bool,
    file_name: str,
    headers: Mapping[str, str] = NO_HEADERS,
) -> str:
    """Hash everything that shapes the result: `file_name` is seen through __FILE__ and in messages."""
    request: list[Any] = [FORMAT, toolchain.identity, list(toolchain.options), target, want_ptx, file_name]
    if headers:
        request.append(dict(headers))
    digest = hashlib.sha256(json.dumps(request).encode())
    digest.update(b"\n" + source.encode())
    return digest.hexdigest()


def encode(compiled: Compiled) -> bytes:
    """Make bytes of a compilation's result: a line of JSON, the cubin, the PTX."""
    ptx = None if compiled.ptx is None else compiled.ptx.encode()
    header = {
        "cubin": len(compiled.cubin),
        "ptx": None if ptx is None else len(ptx),
        "log": compiled.log,
        "resources": {name: asdict(used) for name, used in sorted(compiled.resources.items())},
    }
    return json.dumps(header).encode() + b"\n" + compiled.cubin + (ptx or b"")


def decode(payload: bytes) -> Compiled:
    """Undo `encode`. ValueError, KeyError, TypeError or AttributeError for anything else."""
    line, _, body = payload.partition(b"\n")
    header = json.loads(line)
    cubin, ptx = header["cubin"], header["ptx"]
    if len(body) != cubin + (ptx or 0):
        raise ValueError("the parts do not add up to the whole")
    resources = {name: Resources(**used) for name, used in header["resources"].items()}
    text = None if ptx is None else body[cubin:].decode()
    return Compiled(body[:cubin], text, resources, header["log"])


def _unseal(data: bytes) -> bytes | None:
    start = len(_MAGIC) + 65
    digest, payload = data[len(_MAGIC) : start], data[start:]
    if not data.startswith(_MAGIC) or digest != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return None
    return payload


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _stat_all(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with contextlib.suppress(OSError):
        for path in list(directory.iterdir()):
            with contextlib.suppress(OSError):
                yield path, path.stat(follow_symlinks=False)
