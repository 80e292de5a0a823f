"""Reads what a cubin says of itself: the GPU architecture it is for and the kernels it holds.

The few ELF fields needed are unpacked here: a general ELF library takes longer to import than NVRTC
takes to compile a kernel. Every offset of the file is checked before it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little endian, version 1
_MACHINE_CUDA = 190
_ABI_WITH_WIDE_SM = 8  # from CUDA 13.0 on; before, the SM is the low byte of e_flags
_SECTION_SYMTAB = 2
_SYMBOL_FUNCTION = 2
_BIND_GLOBAL = 1
_OTHER_ENTRY = 0x10  # marks a __global__ function among the functions


@dataclass(frozen=True)
class CubinInfo:
    """`sm` is 90 for sm_90; `kernels` are the names of the `__global__` functions, sorted."""

    sm: int
    kernels: tuple[str, ...]


class HiddenKernelsError(VqccError):
    """VQ0606: a cubin has no kernel that a program could find, or others beside. `names` are those that it hides."""

    def __init__(self, diagnostic: Diagnostic, names: tuple[str, ...]) -> None:
        super().__init__(diagnostic, exit_code=ExitCode.TOOLCHAIN)
        self.names = names


def read_cubin(data: bytes) -> CubinInfo:
    """Read a cubin's ELF header and symbols. VqccError VQ0606 if `data` is no sound cubin."""
    try:
        return _read(data)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise _refuse(f"this is not a sound cubin: {error}") from error


def check_cubin(data: bytes, *, target: str) -> CubinInfo:
    """Read a cubin and make sure that it is for `target` ("sm_90"). VqccError VQ0606."""
    info = read_cubin(data)
    if f"sm_{info.sm}" != target.rstrip("af"):
        raise _refuse(f"the cubin is for sm_{info.sm}, asked for was {target}")
    return info


def _read(data: bytes) -> CubinInfo:
    header = _HEADER.unpack_from(data)
    ident, machine, flags = header[0], header[2], header[7]
    if not ident.startswith(_MAGIC):
        raise ValueError("it does not start as a 64-bit little-endian ELF file")
    if machine != _MACHINE_CUDA:
        raise ValueError(f"its ELF machine is {machine}, CUDA's is {_MACHINE_CUDA}")
    sm = (flags >> 8 if ident[8] >= _ABI_WITH_WIDE_SM else flags) & 0xFF
    return CubinInfo(sm, _kernels(data, section_offset=header[6], entry_size=header[11], count=header[12]))


def _kernels(data: bytes, *, section_offset: int, entry_size: int, count: int) -> tuple[str, ...]:
    if entry_size != _SECTION.size:
        raise ValueError(f"its section headers have {entry_size} bytes, not {_SECTION.size}")
    sections = [_SECTION.unpack_from(data, section_offset + i * entry_size) for i in range(count)]
    tables = [section for section in sections if section[1] == _SECTION_SYMTAB]
    if len(tables) != 1:
        raise ValueError(f"it has {len(tables)} symbol tables")
    strings = sections[tables[0][6]]
    return tuple(sorted(_entries(_content(data, tables[0]), _content(data, strings))))


def _entries(symbols: bytes, strings: bytes) -> list[str]:
    if len(symbols) % _SYMBOL.size:
        raise ValueError("its symbol table is cut")
    return [
        _string(strings, name)
        for name, info, other, *_ in _SYMBOL.iter_unpack(symbols)
        if info == _BIND_GLOBAL << 4 | _SYMBOL_FUNCTION and other & _OTHER_ENTRY
    ]


def _content(data: bytes, section: tuple[int, ...]) -> bytes:
    offset, size = section[4], section[5]
    if offset + size > len(data):
        raise ValueError("a section reaches beyond the end of the file")
    return data[offset : offset + size]


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if end < 0:
        raise ValueError("a symbol's name reaches beyond its string table")
    return strings[offset:end].decode("ascii")


def _refuse(message: str) -> VqccError:
    help_text = "the file is damaged or the compiler is at fault: compile again, or with another toolchain"
    return VqccError(Diagnostic("VQ0606", message, help=help_text), exit_code=ExitCode.TOOLCHAIN)
