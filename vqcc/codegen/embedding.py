"""Makes GPU code (cubins, PTX) part of a host program: as an ELF object to link, or as C source to compile.

Both define the same symbols: for each image a read-only array of bytes under a name that the caller gives,
of exactly the image's size, aligned to 64 bytes. They are hidden: whatever they are linked into, a program
or a shared object, is all that sees them. So two engines in one process keep their own images under equal
names, where of default symbols the first loaded would serve both; and no program copies an image out of a
shared object when it starts.

The object is packed here because no maintained package was found to write one: LIEF, 12 MB installed, only
changes ELF files that there are (its `ELF.Binary` has no constructor), and makeelf, last released in 2020,
knows no 64-bit files.

Sources: System V gABI, chapter 4 (object files); the psABI of x86-64 and Arm's ELF and System V ABI for
AArch64 (machine numbers, program properties).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from vqcc.codegen.text import Fragment, c_identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["ALIGNMENT", "Machine", "c_array", "declarations", "elf_object", "embedding_files"]

Machine = Literal["x86_64", "aarch64"]

ALIGNMENT = 64  # bytes: a cache line, and more than an image's own headers need
_LINE_BYTES = 24  # of an image, on a line of C source: at most 96 characters

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_PROPERTY_NOTE = struct.Struct("<III4sIIII")
_IDENTIFICATION = b"\x7fELF\x02\x01\x01"  # 64 bits, little endian, version 1; the rest 0: System V
_RELOCATABLE = 1
_VERSION = 1
_MACHINES = {"x86_64": 62, "aarch64": 183}
_RESERVED_SECTIONS = 0xFF00  # numbers of sections are less
_PROGBITS, _SYMTAB, _STRTAB, _NOTES = 1, 2, 3, 7
_ALLOCATED = 2
_GLOBAL_OBJECT = 1 << 4 | 1
_HIDDEN = 2
_PROPERTIES = 5  # type of a note
#: A property and its bits: indirect branch tracking, shadow stacks; branch target identification, signed
#: return addresses, guarded control stacks.
_FEATURES = {"x86_64": (0xC0000002, 0b11), "aarch64": (0xC0000000, 0b111)}

_OPENING = """\
#if defined(__GNUC__) && defined(__ELF__)
#pragma GCC visibility push(hidden)
#endif
#ifdef __cplusplus
extern "C" {
#endif
"""
_CLOSING = """\
#ifdef __cplusplus
}
#endif
#if defined(__GNUC__) && defined(__ELF__)
#pragma GCC visibility pop
#endif
"""
_ALIGNED = f"""\
#if defined(__cplusplus)
#define VQCC_ALIGNED alignas({ALIGNMENT})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define VQCC_ALIGNED _Alignas({ALIGNMENT})
#else
#define VQCC_ALIGNED __attribute__((aligned({ALIGNMENT})))
#endif
"""


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    content: bytes
    flags: int = 0
    alignment: int = 1
    link: int = 0
    info: int = 0
    entry_size: int = 0

    def entry(self, name: int, place: int) -> bytes:
        """What the table of sections says: `name` is an offset into their names, `place` one into the file."""
        size = len(self.content)
        where = (self.kind, self.flags, 0, place, size, self.link, self.info, self.alignment, self.entry_size)
        return _SECTION.pack(name, *where)


def elf_object(images: Mapping[str, bytes], *, machine: Machine) -> bytes:
    """A relocatable ELF-64 object that defines each image under its name. Equal images, equal bytes.

    PTX that the driver is to load must end with a zero byte, which is the caller's to add. ValueError for
    names that are no C identifiers, for an image without bytes, for no images.
    """
    held = _checked(images)
    strings, offsets = _string_table(held)
    sections = [
        # One for each image, as of -fdata-sections: --gc-sections drops those that nothing refers to.
        # Linker scripts put sections .rodata.* into .rodata.
        *(
            _Section(f".rodata.{name}", _PROGBITS, image, flags=_ALLOCATED, alignment=ALIGNMENT)
            for name, image in held.items()
        ),
        # A linker marks its output as fit for such protection only if every object says that it is, and
        # what has no code is.
        _Section(".note.gnu.property", _NOTES, _properties(machine), flags=_ALLOCATED, alignment=8),
        # Without this one a linker takes it that the object's code needs an executable stack.
        _Section(".note.GNU-stack", _PROGBITS, b""),
        _Section(".strtab", _STRTAB, strings),
    ]
    symbols = _symbols(held.values(), offsets)
    # `info` is the number of the first symbol that is not local: only the null symbol is.
    table = _Section(
        ".symtab", _SYMTAB, symbols, alignment=8, link=len(sections), info=1, entry_size=_SYMBOL.size
    )
    return _file([*sections, table], machine)


def declarations(images: Mapping[str, bytes]) -> Fragment:
    """C99 and C++ that declares the images, for a header: `sizeof` gives an image's size in bytes.

    Raises ValueError as `elf_object` does.
    """
    lines = (f"extern {_declarator(name, image)};\n" for name, image in _checked(images).items())
    return literal(f"{_OPENING}{''.join(lines)}{_CLOSING}")


def c_array(images: Mapping[str, bytes]) -> str:
    """A source file of C99 (with GNU attributes), C11 or C++17 that defines what `elf_object` does.

    Raises ValueError as `elf_object` does.
    """
    # Numbers, 2.8 characters for a byte of a cubin: string literals would be shorter, but C99 promises no
    # more than 4095 characters of one, and C++ takes none without its zero byte. Each array is declared
    # before, as a constant of C++ is else local to its file.
    arrays = (
        f"VQCC_ALIGNED {_declarator(name, image)} = {{\n{_numbers(image)}}};\n"
        for name, image in _checked(images).items()
    )
    return "".join((declarations(images), _ALIGNED, *arrays))


def embedding_files(
    name: str, header: str, images: Mapping[str, bytes], *, arrays: bool, machine: Machine | None
) -> dict[str, bytes]:
    """`header` as <name>.embedded.h, and what it declares: with `arrays` as C source, for a `machine` as an object."""
    files = {f"{name}.embedded.h": header.encode()}
    if arrays:
        files[f"{name}.embedded.c"] = c_array(images).encode()
    if machine is not None:
        files[f"{name}.embedded.o"] = elf_object(images, machine=machine)
    return files


def _checked(images: Mapping[str, bytes]) -> dict[str, bytes]:
    """The images by name, in an order that is not that of the mapping."""
    held: dict[str, bytes] = {c_identifier(name): image for name, image in sorted(images.items())}
    if not held:
        raise ValueError("there are no images to embed")
    if empty := [name for name, image in held.items() if not image]:
        raise ValueError(f"images without bytes, which C has no arrays for: {', '.join(empty)}")
    return held


def _string_table(names: Iterable[str]) -> tuple[bytes, list[int]]:
    """A section of strings, which starts with the empty one, and where in it each name is."""
    encoded = [f"{name}\0".encode("ascii") for name in names]
    offsets = list(accumulate(map(len, encoded), initial=1))
    return b"\0" + b"".join(encoded), offsets[:-1]


def _symbols(images: Iterable[bytes], names: Iterable[int]) -> bytes:
    """The null symbol, and one at the start of each image's section; these are the first sections there are."""
    rows = (
        _SYMBOL.pack(name, _GLOBAL_OBJECT, _HIDDEN, section, 0, len(image))
        for section, (image, name) in enumerate(zip(images, names, strict=True), start=1)
    )
    return b"".join((bytes(_SYMBOL.size), *rows))


def _properties(machine: Machine) -> bytes:
    """A GNU property note: name, 16 bytes of description, type; in them one property of 4 bytes, padded to 8."""
    kind, bits = _FEATURES[machine]
    return _PROPERTY_NOTE.pack(4, 16, _PROPERTIES, b"GNU\0", kind, 4, bits, 0)


def _file(sections: Sequence[_Section], machine: Machine) -> bytes:
    """The sections behind the file's header, and after them the table that describes them."""
    names, offsets = _string_table([*(section.name for section in sections), ".shstrtab"])
    sections = [*sections, _Section(".shstrtab", _STRTAB, names)]
    count = 1 + len(sections)  # with the null section, which is but an entry of the table
    if count > _RESERVED_SECTIONS:
        raise ValueError(f"{count} sections are more than an ELF header can count")
    content, table = bytearray(_HEADER.size), bytearray(_SECTION.size)
    for section, offset in zip(sections, offsets, strict=True):
        content += bytes(-len(content) % section.alignment)
        table += section.entry(offset, len(content))
        content += section.content
    content += bytes(-len(content) % 8)
    kind = (_IDENTIFICATION, _RELOCATABLE, _MACHINES[machine], _VERSION)
    # There is no entry point, there are no program headers and no flags.
    places = (0, 0, len(content), 0, _HEADER.size, 0, 0, _SECTION.size, count, count - 1)
    _HEADER.pack_into(content, 0, *kind, *places)
    return bytes(content + table)


def _declarator(name: str, image: bytes) -> str:
    return f"const unsigned char {name}[{len(image)}]"


def _numbers(image: bytes) -> str:
    """The bytes in decimal; a comma after the last of an array is legal."""
    starts = range(0, len(image), _LINE_BYTES)
    return "".join(f"{','.join(map(str, image[i : i + _LINE_BYTES]))},\n" for i in starts)
