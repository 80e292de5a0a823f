"""What a cubin says of itself, read by a general ELF library: independent of vqcc.codegen.cubin."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from elftools.elf.elffile import ELFFile

# Attributes of .nv.info: format (1 byte), attribute (1), then a 2-byte value or its size and that many bytes.
_SIZED_VALUE = 0x04
_FRAME_SIZE = 0x11
_MIN_STACK_SIZE = 0x12


@dataclass(frozen=True)
class Cubin:
    """`sm` is 90 for sm_90; `stacks` has the largest of frame and stack bytes of each function."""

    sm: int
    kernels: tuple[str, ...]
    stacks: dict[str, int]


def read(data: bytes) -> Cubin:
    elf = ELFFile(io.BytesIO(data))
    symbols = list(elf.get_section_by_name(".symtab").iter_symbols())  # type: ignore[union-attr]
    kernels = tuple(
        sorted(
            symbol.name
            for symbol in symbols
            if symbol["st_info"]["bind"] == "STB_GLOBAL" and symbol["st_info"]["type"] == "STT_FUNC"
        )
    )
    info = elf.get_section_by_name(".nv.info").data()  # type: ignore[union-attr]
    stacks: dict[str, int] = {}
    offset = 0
    while offset < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, offset)
        offset += 4
        if kind == _SIZED_VALUE:
            if attribute in (_FRAME_SIZE, _MIN_STACK_SIZE):
                index, value = struct.unpack_from("<II", info, offset)
                name = symbols[index].name
                stacks[name] = max(stacks.get(name, 0), value)
            offset += size
    return Cubin(elf.header["e_flags"] >> 8 & 0xFF, kernels, stacks)
