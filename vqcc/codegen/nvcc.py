"""An installed nvcc, run in a private directory with an environment of our own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.codegen.toolchain import (
    NO_HEADERS,
    Compiled,
    check_request,
    does_not_compile,
    failure,
    finish,
    minimum_driver,
    write_sources,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_RELEASE = re.compile(r"release [\d.]+, V(\d+\.\d+\.\d+)")
_UNSUPPORTED = re.compile(r"Unsupported gpu architecture|is not defined for option 'gpu-architecture'")
#: An error at a line of any file, or the assembler's.
_REFUSED = re.compile(
    r"^(?:[\w.-]+(?:\(\d+\)|(?::\d+){1,2}): .*\berror\b|ptxas (?:info|error|fatal|application|/))",
    re.MULTILINE,
)
_VERSION_SECONDS = 30.0
_COMPILE_SECONDS = 600.0
_LOG_BYTES = 4 << 20
_RUN_HELP = (
    "see that it runs by itself; `--toolchain nvrtc`, the default, needs neither nvcc nor a host compiler"
)


@dataclass(frozen=True)
class Nvcc:
    """A Toolchain. `host_version` is the C++ compiler that nvcc preprocesses with."""

    path: Path
    version: str
    host_compiler: Path | None = None
    host_version: str = "default"
    keep_failed: Path | None = None

    name = "nvcc"
    options = ("-std=c++17", "-Xptxas", "-v")

    @classmethod
    def find(
        cls, path: Path | None, *, host_compiler: Path | None = None, keep_failed: Path | None = None
    ) -> Nvcc:
        """Ask nvcc for its version. VqccError VQ0601 if there is none, VQ0605 if it does not run."""
        if path is None:
            raise failure(
                "VQ0601", "nvcc is not on the PATH", "install a CUDA toolkit, or use --toolchain nvrtc"
            )
        path = path.absolute()
        text = _run([str(path), "--version"], Path(path.parent), path, host_compiler, _VERSION_SECONDS)[1]
        match = _RELEASE.search(text)
        if match is None:
            raise failure("VQ0605", f"{path} does not say which nvcc it is", text.strip()[:2000] or None)
        minimum_driver(match[1])  # refuses a CUDA never tried now, not after compiling with it
        host_version = _host_version(host_compiler, path) if host_compiler else "default"
        return cls(path, match[1], host_compiler, host_version, keep_failed)

    @property
    def identity(self) -> str:
        """Compiler versions; the CUDA headers are nvcc's own."""
        return f"nvcc {self.version} host {self.host_version}"

    @property
    def minimum_driver(self) -> str:
        """Oldest driver that runs the cubins."""
        return minimum_driver(self.version)

    def compile(
        self,
        source: str,
        *,
        target: str,
        want_ptx: bool,
        file_name: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Compiled:
        """Compile; see Toolchain.compile. PTX costs a second run."""
        check_request(target=target, file_name=file_name)
        try:
            with tempfile.TemporaryDirectory(prefix="vqcc-nvcc-") as name:  # made with mode 0700
                directory = Path(name)
                write_sources(directory, source, file_name=file_name, headers=headers)
                log = self._build(directory, source, headers, "-cubin", target, file_name)
                if want_ptx:
                    self._build(directory, source, headers, "-ptx", target, file_name)
                ptx = (directory / "out-ptx").read_text(encoding="utf-8") if want_ptx else None
                cubin = (directory / "out-cubin").read_bytes()
        except OSError as error:
            raise failure(
                "VQ0605", f"{error.filename}: {error.strerror}", "nvcc left no output there"
            ) from error
        return finish(cubin, ptx, log, target=target)

    def _build(
        self,
        directory: Path,
        source: str,
        headers: Mapping[str, str],
        kind: str,
        target: str,
        file_name: str,
    ) -> str:
        host = [f"-ccbin={self.host_compiler}"] if self.host_compiler else []
        command = [str(self.path), kind, f"-arch={target}", *self.options, *host]
        command += ["-I.", "-x", "cu", "-o", f"out{kind}", file_name]
        status, log = _run(command, directory, self.path, self.host_compiler, _COMPILE_SECONDS)
        if status == 0:
            return log
        if _UNSUPPORTED.search(log):
            raise failure("VQ0604", f"nvcc {self.version} does not compile for {target}", log.strip()[:2000])
        if re.search(rf"^{re.escape(file_name)}[(:]", log, re.MULTILINE) or _REFUSED.search(log):
            raise does_not_compile(
                source, log, file_name=file_name, target=target, keep=self.keep_failed, headers=headers
            )
        raise failure("VQ0605", f"nvcc ended with status {status}", log.strip()[:2000] or None)


def _host_version(host_compiler: Path, nvcc: Path) -> str:
    text = _run([str(host_compiler), "--version"], Path("/"), nvcc, host_compiler, _VERSION_SECONDS)[1]
    first = text.strip().splitlines()[:1]
    return " ".join(first[0].split()) if first else "unknown"


def _run(
    command: list[str], directory: Path, nvcc: Path, host_compiler: Path | None, seconds: float
) -> tuple[int, str]:
    """Run without a shell and without the caller's environment: NVCC_APPEND_FLAGS changes the output."""
    places = [str(nvcc.parent), *([str(host_compiler.parent)] if host_compiler else []), "/usr/bin", "/bin"]
    environment = {"PATH": ":".join(places), "LC_ALL": "C", "TMPDIR": str(directory)}
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(  # noqa: S603  (an absolute path that the user chose)
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise failure("VQ0605", f"{command[0]} cannot be run: {error.strerror}", _RUN_HELP) from error
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise failure("VQ0605", f"{command[0]} did not end within {seconds:.0f} s", _RUN_HELP) from None
        finally:
            # What nvcc started goes with it, also when the user interrupts.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        return status, log.read(_LOG_BYTES).decode("utf-8", errors="replace")
