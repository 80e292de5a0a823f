"""NVRTC from the `nvidia-cuda-nvrtc` wheel: compiles for every GPU on a machine without CUDA.

The wheel's library is called through ctypes by its own path. So the library that compiles is the one
whose version is in `identity`, whatever other CUDA is installed or already loaded, and a cold compile
does not pay for importing bindings to all of CUDA.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcc.codegen.toolchain import (
    NO_HEADERS,
    Compiled,
    check_request,
    does_not_compile,
    failure,
    finish,
    minimum_driver,
)
from vqcc.codegen.wheels import installed

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterable, Mapping

COMPILER_WHEEL = "nvidia-cuda-nvrtc"
HEADER_WHEEL = "nvidia-cuda-runtime"
LIBRARY_HEADER_WHEEL = "nvidia-cuda-cccl"

_SUCCESS, _INVALID_OPTION, _COMPILATION = 0, 5, 6
_CUDART_VERSION = re.compile(rb"#define\s+CUDART_VERSION\s+(\d+)")
_HEADER_PROBE_BYTES = 64 << 10


@dataclass(frozen=True)
class Nvrtc:
    """A Toolchain. `include_directories` are searched in order; their versions are in `identity`."""

    version: str
    header_versions: str
    library: Path
    include_directories: tuple[Path, ...]
    keep_failed: Path | None = None

    name = "nvrtc"
    # Neither the driver's cache, which drops the resource report, nor headers of the working directory.
    options = (
        "-std=c++17",
        "-default-device",
        "--ptxas-options=-v",
        "--no-cache",
        "-no-source-include",
    )

    @classmethod
    def find(
        cls,
        *,
        cuda_include: Path | None = None,
        keep_failed: Path | None = None,
        search_path: list[str] | None = None,
    ) -> Nvrtc:
        """Find the wheels on `search_path` (default sys.path). VqccError VQ0601 or VQ0602 if missing."""
        wheels = installed((COMPILER_WHEEL, HEADER_WHEEL, LIBRARY_HEADER_WHEEL), search_path)
        compiler, headers = wheels.get(COMPILER_WHEEL), wheels.get(HEADER_WHEEL)
        if compiler is None:
            raise _missing_compiler("NVRTC is not installed")
        minimum_driver(compiler.version)  # refuses a CUDA never tried now, not after compiling with it
        major = compiler.version.partition(".")[0]
        library = compiler.root / "nvidia" / f"cu{major}" / "lib" / f"libnvrtc.so.{major}"
        if not library.is_file():
            raise _missing_compiler(f"{COMPILER_WHEEL} {compiler.version} lacks {library}")
        if headers is not None:
            include = headers.root / "nvidia" / f"cu{headers.version.partition('.')[0]}" / "include"
            version = f"headers {headers.version}"
        else:
            include = cuda_include or Path()
            version = _toolkit_version(include) if cuda_include else ""
        if not version or not (include / "cuda_fp16.h").is_file():
            raise _missing_headers(include if version else None)
        directories = [include.absolute()]
        if (include / "cccl").is_dir():
            directories.append(include.absolute() / "cccl")
            if headers is not None and LIBRARY_HEADER_WHEEL in wheels:
                version += f" cccl {wheels[LIBRARY_HEADER_WHEEL].version}"
        return cls(compiler.version, version, library.absolute(), tuple(directories), keep_failed)

    @property
    def identity(self) -> str:
        """Compiler and header versions."""
        return f"nvrtc {self.version} {self.header_versions}"

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
        """Compile; see Toolchain.compile. Safe to call from several threads, which then work at once."""
        check_request(target=target, file_name=file_name)
        includes = (f"-I{directory}" for directory in self.include_directories)
        options = [f"-arch={target}", *self.options, *includes]
        with _Program(_load(self.library), source, file_name, headers) as program:
            status = program.compile(options)
            log = program.text("ProgramLog")
            if status == _COMPILATION:
                raise does_not_compile(
                    source, log, file_name=file_name, target=target, keep=self.keep_failed, headers=headers
                )
            if status == _INVALID_OPTION:
                raise failure("VQ0604", f"NVRTC {self.version} does not compile for {target}", log.strip())
            if status != _SUCCESS:
                name = program.error_name(status)
                raise failure("VQ0605", f"NVRTC {self.version} failed: {name}", log.strip() or None)
            ptx = program.text("PTX") if want_ptx else None
            return finish(program.data("CUBIN"), ptx, log, target=target)


class _Program:
    """An nvrtcProgram, destroyed at the end of a `with`."""

    def __init__(self, library: ctypes.CDLL, source: str, file_name: str, headers: Mapping[str, str]) -> None:
        import ctypes

        self._library = library
        self._handle = ctypes.c_void_p()
        status = library.nvrtcCreateProgram(
            ctypes.byref(self._handle),
            source.encode(),
            file_name.encode(),
            len(headers),
            _strings(headers.values()),
            _strings(headers),
        )
        if status != _SUCCESS:
            raise failure("VQ0605", f"NVRTC could not start: {self.error_name(status)}")

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        import ctypes

        self._library.nvrtcDestroyProgram(ctypes.byref(self._handle))

    def compile(self, options: list[str]) -> int:
        return int(self._library.nvrtcCompileProgram(self._handle, len(options), _strings(options)))

    def data(self, what: str) -> bytes:
        """Fetch the CUBIN, PTX or ProgramLog of the last compilation."""
        import ctypes

        size = ctypes.c_size_t()
        status = self._library[f"nvrtcGet{what}Size"](self._handle, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        status = status or self._library[f"nvrtcGet{what}"](self._handle, buffer)
        if status != _SUCCESS:
            raise failure("VQ0605", f"NVRTC gave no {what}: {self.error_name(status)}")
        return buffer.raw

    def text(self, what: str) -> str:
        # The log joins the messages of several stages, each with its own end of string.
        return self.data(what).replace(b"\0", b"").decode("utf-8", errors="replace")

    def error_name(self, status: int) -> str:
        name: bytes = self._library.nvrtcGetErrorString(status)
        return name.decode("ascii", errors="replace")


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """The texts as C has them."""
    import ctypes

    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    import ctypes

    try:
        # NVRTC opens its builtins by name alone, and not every release of it looks beside itself.
        for builtins in sorted(path.parent.glob("libnvrtc-builtins.so.*")):
            ctypes.CDLL(str(builtins))
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise _missing_compiler(f"NVRTC cannot be loaded: {error}") from error
    return library


def _declare(library: ctypes.CDLL) -> None:
    from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p

    strings = POINTER(c_char_p)
    create = [POINTER(c_void_p), c_char_p, c_char_p, c_int, strings, strings]
    signatures: dict[str, list[Any]] = {
        "CreateProgram": create,
        "DestroyProgram": [POINTER(c_void_p)],
        "CompileProgram": [c_void_p, c_int, strings],
        **{f"Get{what}Size": [c_void_p, POINTER(c_size_t)] for what in ("CUBIN", "PTX", "ProgramLog")},
        **{f"Get{what}": [c_void_p, c_char_p] for what in ("CUBIN", "PTX", "ProgramLog")},
        "GetErrorString": [c_int],
    }
    for name, arguments in signatures.items():
        function = library[f"nvrtc{name}"]
        function.argtypes = arguments
        function.restype = c_char_p if name == "GetErrorString" else c_int
        # Indexing makes a new object each time; the attribute is the one that keeps these types.
        setattr(library, f"nvrtc{name}", function)


def _toolkit_version(include: Path) -> str:
    """Name the headers of a toolkit by their version; "" if there are none."""
    try:
        with (include / "cuda_runtime_api.h").open("rb") as file:
            match = _CUDART_VERSION.search(file.read(_HEADER_PROBE_BYTES))
    except OSError:
        return ""
    return f"headers of CUDA {int(match[1]) // 1000}.{int(match[1]) % 1000 // 10}" if match else ""


def _missing_compiler(message: str) -> Exception:
    help_text = (
        f'pip install "{COMPILER_WHEEL}>=13,<14" "{HEADER_WHEEL}>=13,<14", or use an installed CUDA'
        " toolkit with --toolchain nvcc"
    )
    return failure("VQ0601", message, help_text)


def _missing_headers(looked_in: Path | None) -> Exception:
    where = f" in {looked_in}" if looked_in else ""
    return failure(
        "VQ0602",
        f"NVRTC needs the CUDA headers: no cuda_fp16.h{where}",
        f'pip install "{HEADER_WHEEL}>=13,<14"',
    )
