"""What turns emitted CUDA source into a cubin, whichever compiler does it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from vqcc.codegen.cubin import HiddenKernelsError, check_cubin
from vqcc.codegen.resources import Resources, parse_resources, without_timing
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMES", "NO_HEADERS", "Compiled", "RefusedSourceError", "Resources", "Toolchain", "find"]

NAMES = ("nvrtc", "nvcc")

# The oldest Linux driver that runs cubins of each CUDA major version. Source: CUDA Toolkit release
# notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility".
_MINIMUM_DRIVER = {12: "525", 13: "580"}

#: Of a source that includes none but the compiler's.
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_TARGET = re.compile(r"sm_[1-9][0-9]{1,2}[af]?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_SHOWN_LINES = 12


@dataclass(frozen=True)
class Compiled:
    """A cubin, its PTX if it was asked for, what each kernel uses, and the compiler's words."""

    cubin: bytes
    ptx: str | None
    resources: Mapping[str, Resources]
    log: str


class RefusedSourceError(VqccError):
    """VQ0603: the compiler refuses a source. `log` is what it says, for those whose source it is."""

    def __init__(self, diagnostic: Diagnostic, log: str) -> None:
        super().__init__(diagnostic, exit_code=ExitCode.TOOLCHAIN)
        self.log = log


class Toolchain(Protocol):
    """A CUDA compiler.

    `identity` names it to the last digit of each version: builds with equal identity, options and
    source give equal bytes. `options` are those that shape the cubin, without any path.
    `minimum_driver` is the oldest driver that runs its cubins.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def options(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def minimum_driver(self) -> str: ...  # noqa: D102

    def compile(
        self,
        source: str,
        *,
        target: str,
        want_ptx: bool,
        file_name: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Compiled:
        """Compile `source` for `target` ("sm_90"); messages call it `file_name`.

        `headers` are texts by the names that it and they include them by, `folder/name` or `name`.

        VqccError: VQ0601 to VQ0606, all with exit code TOOLCHAIN.
        """


def find(
    name: str,
    *,
    nvcc_path: Path | None = None,
    host_compiler: Path | None = None,
    cuda_include: Path | None = None,
    keep_failed: Path | None = None,
) -> Toolchain:
    """Find an installed toolchain; nothing of it is loaded before the first compilation.

    `nvcc_path`: the nvcc to run, where the caller found one. `host_compiler`: what nvcc preprocesses
    with. `cuda_include`: CUDA headers for NVRTC where the wheel that brings them is not installed.
    `keep_failed`: the directory in which source that does not compile is kept (default: a new
    temporary one). VqccError: VQ0601 nothing installed, VQ0602 no headers, VQ0605 it does not run.
    """
    if name == "nvrtc":
        from vqcc.codegen.nvrtc import Nvrtc

        return Nvrtc.find(cuda_include=cuda_include, keep_failed=keep_failed)
    if name == "nvcc":
        from vqcc.codegen.nvcc import Nvcc

        return Nvcc.find(nvcc_path, host_compiler=host_compiler, keep_failed=keep_failed)
    hint = did_you_mean(name, NAMES)
    help_text = f"the toolchains are {' and '.join(NAMES)}{f'; {hint}' if hint else ''}"
    raise VqccError(
        Diagnostic("VQ0601", f"there is no toolchain {name!r}", help=help_text), exit_code=ExitCode.USAGE
    )


def minimum_driver(version: str) -> str:
    """Oldest driver for cubins of CUDA `version` ("13.5.37"); VqccError VQ0604 for one never tried."""
    major = int(version.partition(".")[0])
    if major not in _MINIMUM_DRIVER:
        known = ", ".join(f"{number}.x" for number in sorted(_MINIMUM_DRIVER))
        raise failure("VQ0604", f"CUDA {version} is not known to this vqcc", f"use one of CUDA {known}")
    return _MINIMUM_DRIVER[major]


def check_request(*, target: str, file_name: str) -> None:
    """Refuse what could never be meant; both become part of the compiler's arguments."""
    if not _TARGET.fullmatch(target):
        raise ValueError(f"{target!r} is not a target such as 'sm_90'")
    if not _FILE_NAME.fullmatch(file_name):
        raise ValueError(f"{file_name!r} is not a plain file name")


def finish(cubin: bytes, ptx: str | None, log: str, *, target: str) -> Compiled:
    """Check that cubin and log agree on target and kernels, and put them together."""
    info = check_cubin(cubin, target=target)
    resources = parse_resources(log)
    if tuple(resources) != info.kernels or not info.kernels:
        text = (
            f"the cubin holds kernels {', '.join(info.kernels) or 'none'}; the assembler reports on"
            f" {', '.join(resources) or 'none'}"
        )
        hidden = tuple(name for name in resources if name not in info.kernels)
        if hidden or not info.kernels:
            raise HiddenKernelsError(Diagnostic("VQ0606", text), hidden)
        raise failure("VQ0606", text)
    return Compiled(cubin, ptx, resources, without_timing(log))


def write_sources(directory: Path, source: str, *, file_name: str, headers: Mapping[str, str]) -> None:
    """Write a source and its headers where a compiler finds them by their names. Raises OSError."""
    for name, text in {**headers, file_name: source}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def does_not_compile(
    source: str,
    log: str,
    *,
    file_name: str,
    target: str,
    keep: Path | None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> RefusedSourceError:
    """Make the error for emitted source that the compiler rejects, and keep that source for a report."""
    import tempfile

    lines = [line.rstrip() for line in without_timing(log).splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line)]
    # Where no line says error, the end of the log is the best there is.
    shown = errors[:_SHOWN_LINES] or lines[-_SHOWN_LINES:]
    try:
        directory = keep or Path(tempfile.mkdtemp(prefix="vqcc-failed-"))
        write_sources(directory, source, file_name=file_name, headers=headers)
        where = f"the source was kept as {directory / file_name}"
    except OSError as error:
        where = f"the source could not be kept: {error}"
    help_text = "\n".join([*shown, where, "please report it with that source: emitted code must compile"])
    diagnostic = Diagnostic("VQ0603", f"{file_name} does not compile for {target}", help=help_text)
    return RefusedSourceError(diagnostic, log)


def failure(code: str, message: str, help_text: str | None = None) -> VqccError:
    """Make an error of the toolchain."""
    return VqccError(Diagnostic(code, message, help=help_text), exit_code=ExitCode.TOOLCHAIN)
