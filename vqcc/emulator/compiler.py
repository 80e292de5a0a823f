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

_COMPILE = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-g1", "-c")
_LINK = ("-shared", "-Wl,-z,defs")
_RUNTIME = ("-O2",)
_RUNTIME_LIBRARIES = ("-ldl", "-lrt")
_KERNEL = (
    *("-x", "c++", "-O1", "-fsanitize=thread", "-DVQCC_EMULATE", "-include", "vqcc_emulator.h"),
    *("-Wno-unknown-pragmas", "-Wno-attributes", "-Wno-psabi"),
    # Device code relies on these: integers wrap on a GPU, and words are reinterpreted through pointers.
    *("-fwrapv", "-fno-strict-aliasing"),
    "-fno-delete-null-pointer-checks",  # a use of a null pointer is to be found, not assumed away
    "-fno-optimize-sibling-calls",  # a call's return address is how its place in the source is found
)
_GCC = (
    *("--param", "tsan-instrument-func-entry-exit=0"),
    # A 16-byte access must stay one access: its alignment, its sectors and its bank conflicts are those of 16 bytes.
    "-fno-tree-sra",
    # A barrier in the source must stay one place in the code, or threads that meet there would seem to diverge.
    "-fno-thread-jumps",
)
# Clang takes vector accesses apart whatever it is told: their alignment is checked only where device code declares it,
# and their wavefronts are counted as those of their parts.
_CLANG = (
    *("-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-instrument-read-before-write=1"),
    "-Wno-unknown-warning-option",
)
# Linked apart from compiling, without -fsanitize: the compiler would add the sanitizer's own runtime.
_KERNEL_LINK = (
    *_LINK,
    # Copies whose size is known only at run time are calls, which the runtime checks.
    *("-Wl,--wrap=memcpy", "-Wl,--wrap=memmove", "-Wl,--wrap=memset"),
)


@dataclass(frozen=True)
class HostCompiler:
    """A C++17 compiler and what it calls itself."""

    path: str
    version: str

    def compile_runtime(self, output: Path, soname: str) -> None:
        """Compile the emulator's runtime. Raises VQ0821."""
        compiled = output.with_suffix(".o")
        source = HOST_DIRECTORY / "runtime" / "runtime.cc"
        complaint = "the emulator's runtime does not compile with"
        self._run([*_COMPILE, *_RUNTIME, str(source), "-o", str(compiled)], "VQ0821", complaint)
        link = [*_LINK, f"-Wl,-soname,{soname}", str(compiled), "-o", str(output), *_RUNTIME_LIBRARIES]
        self._run(link, "VQ0821", complaint)

    def compile_kernels(self, source: Path, runtime: Path, output: Path) -> None:
        """Compile a kernel source, with headers beside it, into a module that needs `runtime`.

        Raises VQ0822 with the compiler's lines.
        """
        compiled = output.with_suffix(".o")
        includes = (f"-I{HOST_DIRECTORY / 'include'}", f"-I{source.parent}")
        complaint = "the kernels do not compile for the emulator with"
        self._run([*self._kernel_flags, *includes, str(source), "-o", str(compiled)], "VQ0822", complaint)
        self._run([*_KERNEL_LINK, str(compiled), str(runtime), "-o", str(output), "-lm"], "VQ0822", complaint)

    @property
    def _kernel_flags(self) -> tuple[str, ...]:
        return (*_COMPILE, *_KERNEL, *(_CLANG if "clang" in self.version else _GCC), *machine_flags())

    @property
    def runtime_identity(self) -> str:
        """What besides its sources decides how the runtime is compiled."""
        return " ".join((self.version, *_COMPILE, *_RUNTIME, *_LINK, *_RUNTIME_LIBRARIES))

    @property
    def kernel_identity(self) -> str:
        """What besides their sources decides how kernels are compiled."""
        return " ".join((self.version, *self._kernel_flags, *_KERNEL_LINK))

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
