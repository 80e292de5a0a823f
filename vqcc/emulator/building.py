"""Compiling kernels for the emulator, through a cache shared by processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.emulator.compiler import HOST_DIRECTORY, HostCompiler, find_compiler
from vqcc.emulator.launching import Emulated
from vqcc.emulator.source import with_registration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["build"]

_STALE_SECONDS = 24 * 3600
_KEPT_MODULES = 1024  # of about 50 KB each, those used last


def build(
    source: str,
    *,
    cache_directory: Path,
    compiler: str | None = None,
    file_name: str = "kernel.cu",
    headers: Mapping[str, str] | None = None,
) -> Emulated:
    """Compile a standalone CUDA source for the CPU and load it.

    Modules are kept in `cache_directory` under a hash of everything they depend on; any number of processes may
    share it. `compiler` is the path of a C++17 compiler (default: g++, clang++ or c++ on the path); `file_name`
    is what locations in messages call the source; `headers` are texts by the names that it and they include
    them by, and may have kernels too. Raises VQ0820 without a compiler, VQ0822 with the compiler's
    lines if the source does not compile.
    """
    host = find_compiler(compiler)
    texts = headers or {}
    named = (part for header in texts.items() for part in header)
    key = _hash(_host_hash(), host.kernel_identity, file_name, source, *named)
    module = cache_directory / f"kernels-{key}.so"
    runtime = _runtime(host, cache_directory)
    if module.exists():
        with contextlib.suppress(OSError):  # a damaged module is compiled again
            os.utime(module)
            return Emulated(module, runtime)
    with _scratch(cache_directory) as scratch:
        for header, text in texts.items():
            (scratch / header).parent.mkdir(parents=True, exist_ok=True)
            (scratch / header).write_text(text, encoding="utf-8")
        registered = with_registration(source, file_name, texts.values())
        (scratch / "kernel.cu").write_text(registered, encoding="utf-8")
        host.compile_kernels(scratch / "kernel.cu", runtime, scratch / "kernel.so")
        _publish(scratch / "kernel.so", module)
    _prune(cache_directory)
    try:
        return Emulated(module, runtime)
    except OSError as error:
        raise VqccError(
            Diagnostic(
                "VQ0827", str(error), help="is the cache directory on a file system that forbids execution?"
            ),
            exit_code=ExitCode.TOOLCHAIN,
        ) from error


def _runtime(host: HostCompiler, cache_directory: Path) -> Path:
    """The runtime's library, compiled by the first process that needs it while others wait."""
    soname = f"libvqcc_emulator-{_hash(_host_hash(), host.runtime_identity)}.so"
    library = cache_directory / soname
    if library.exists():
        return library
    with _scratch(cache_directory) as scratch, _locked(cache_directory / "runtime.lock"):
        if not library.exists():
            host.compile_runtime(scratch / soname, soname)
            _publish(scratch / soname, library)
    return library


def _publish(made: Path, target: Path) -> None:
    """Rename a file into place, whole: after a crash of the machine it is there entirely or not at all."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(target)


def _prune(cache_directory: Path) -> None:
    """Remove the modules that were used longest ago; who wants one again compiles it again."""
    with contextlib.suppress(OSError):  # another process prunes too
        modules = sorted(cache_directory.glob("kernels-*.so"), key=lambda path: path.stat().st_mtime)
        for module in modules[:-_KEPT_MODULES]:
            module.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _host_hash() -> str:
    """Hash of the runtime's sources and headers."""
    files = sorted(path for path in HOST_DIRECTORY.rglob("*") if path.is_file())
    return _hash(
        *(text for path in files for text in (str(path.relative_to(HOST_DIRECTORY)), path.read_text()))
    )


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _scratch(cache_directory: Path) -> Iterator[Path]:
    """A directory on the cache's file system, so that what is made there can be renamed into place."""
    try:
        cache_directory.mkdir(parents=True, exist_ok=True)
        for stale in cache_directory.glob("scratch-*"):
            with contextlib.suppress(OSError):  # left by a killed process, or just removed by another one
                if time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(stale)
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=cache_directory))
    except OSError as error:
        raise VqccError(
            Diagnostic(
                "VQ0702",
                f"cannot write to {cache_directory}: {error.strerror}",
                help="the emulator compiles there: give a writable directory",
            ),
            exit_code=ExitCode.TOOLCHAIN,
        ) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock; a process that dies lets go of it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
