"""The host compiler: finding it, naming its version, running it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError

__all__ = ["HOST_DIRECTORY", "HostCompiler", "find_compiler"]

HOST_DIRECTORY = Path(__file__).parent / "host"
_NAMES = ("g++", "clang++", "c++")
_TIMEOUT_SECONDS = 300

_COMMON = ("-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-Wl,-z,defs")
_RUNTIME = ("-O2", "-g1")
_KERNEL = (
    *("-x", "c++", "-O1", "-g1", "-fsanitize=thread", "-fno-sanitize-recover=all"),
    *("-Wno-unknown-pragmas", "-Wno-attributes", "-Wno-psabi"),
    "-DVQCC_EMULATE",
    # Device code relies on these: integers wrap on a GPU, and words are reinterpreted through pointers.
    *("-fwrapv", "-fno-strict-aliasing"),
    *("-include", "vqcc_emulator.h", f"-I{HOST_DIRECTORY / 'include'}"),
    # Copies whose size is known only at run time are calls, which the runtime checks.
    *("-Wl,--wrap=memcpy", "-Wl,--wrap=memmove", "-Wl,--wrap=memset"),
)
_GCC = (
    *("--param", "tsan-instrument-func-entry-exit=0"),
    # A 16-byte access must stay one access: its alignment, its sectors and its bank conflicts are those of 16 bytes.
    "-fno-tree-sra",
    # A barrier in the source must stay one place in the code, or threads that meet there would seem to diverge.
    "-fno-thread-jumps",
)
# The default libraries are named one by one, because the sanitizer's own runtime would be among them.
_LIBRARIES = ("-nodefaultlibs", "-lm", "-lc", "-lgcc")
_CLANG = ("-mllvm", "-tsan-instrument-func-entry-exit=0", "-Wno-unknown-warning-option")


@dataclass(frozen=True)
class HostCompiler:
    """A C++17 compiler and what it calls itself."""

    path: str
    version: str

    def compile_runtime(self, output: Path, soname: str) -> None:
        """Compile the emulator's runtime. Raises VQ0821."""
        source = HOST_DIRECTORY / "runtime" / "runtime.cc"
        arguments = [
            *_COMMON,
            *_RUNTIME,
            f"-Wl,-soname,{soname}",
            str(source),
            "-o",
            str(output),
            "-ldl",
            "-lrt",
        ]
        self._run(arguments, "VQ0821", "the emulator's runtime does not compile with")

    def compile_kernels(self, source: Path, runtime: Path, output: Path) -> None:
        """Compile a kernel source into a module that needs `runtime`. Raises VQ0822 with the compiler's lines."""
        arguments = [
            *self.kernel_flags,
            str(source),
            "-x",
            "none",
            str(runtime),
            "-o",
            str(output),
            *_LIBRARIES,
        ]
        self._run(arguments, "VQ0822", "the kernels do not compile for the emulator with")

    @property
    def kernel_flags(self) -> tuple[str, ...]:
        """Flags for kernels, before the source."""
        return (*_COMMON, *_KERNEL, *(_CLANG if "clang" in self.version else _GCC), *machine_flags())

    @property
    def runtime_identity(self) -> str:
        """What besides its sources decides how the runtime is compiled."""
        return " ".join((self.version, *_COMMON, *_RUNTIME))

    @property
    def kernel_identity(self) -> str:
        """What besides their sources decides how kernels are compiled, free of this installation's paths."""
        return " ".join((self.version, *self.kernel_flags, *_LIBRARIES)).replace(str(HOST_DIRECTORY), "host")

    def _run(self, arguments: list[str], code: str, complaint: str) -> None:
        try:
            done = subprocess.run(  # noqa: S603 - an argument list, the compiler's path is the caller's
                [self.path, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise VqccError(
                Diagnostic(code, f"{complaint} {self.path}: {error}"), exit_code=ExitCode.TOOLCHAIN
            ) from error
        if done.returncode != 0:
            lines = "\n".join(done.stderr.strip().splitlines()[:40])
            raise VqccError(
                Diagnostic(code, f"{complaint} {self.path}:\n{lines}"), exit_code=ExitCode.TOOLCHAIN
            )


def find_compiler(compiler: str | None) -> HostCompiler:
    """The compiler at `compiler`, or the first of g++, clang++ and c++ on the path. Raises VQ0820."""
    path = compiler or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        raise VqccError(
            Diagnostic(
                "VQ0820",
                "running kernels on the CPU needs a C++17 compiler: none of g++, clang++ and c++ is on the path",
                help="install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++), "
                "or validate on a GPU with --backend cuda",
            ),
            exit_code=ExitCode.TOOLCHAIN,
        )
    return HostCompiler(path, _version(path))


@cache
def machine_flags() -> tuple[str, ...]:
    """Flags for fused multiply-adds and half conversions in hardware; without them both are calls or bit operations.

    They change no result. They are part of a module's hash, so a cache may be shared by different machines.
    """
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return ()
    return ("-mfma", "-mf16c") if found and {"fma", "f16c", "avx"} <= set(found.group(1).split()) else ()


@cache
def _version(path: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, the compiler's path is the caller's
            [path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise VqccError(
            Diagnostic("VQ0820", f"{path} cannot be run: {error}", help="name a working C++17 compiler"),
            exit_code=ExitCode.TOOLCHAIN,
        ) from error
    return done.stdout.splitlines()[0] if done.stdout else path
