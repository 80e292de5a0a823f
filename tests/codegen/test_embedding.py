"""Images embedded in objects and in C source, read back by another ELF library and by programs that hold them."""

from __future__ import annotations

import ctypes
import io
import platform
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from build_tools import WARNINGS, compilers
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

import vqcc
from vqcc.codegen import embedding
from vqcc.codegen.embedding import Machine, c_array, declarations, elf_object

if TYPE_CHECKING:
    from collections.abc import Mapping

MACHINES: tuple[Machine, ...] = get_args(Machine)
HOST: Machine = "aarch64" if platform.machine() == "aarch64" else "x86_64"
#: Every value of a byte, a size that is no multiple of anything, and text.
IMAGES = {
    "tiny_h200": random.Random(1).randbytes(100_003),
    "tiny_rtx4090": bytes(range(256)),
    "tiny_one": b"\0",
    "tiny_ptx": b'.version 8.0 // ??/ "\\\n\0',
}
images = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True),
    st.binary(min_size=1, max_size=300),
    min_size=1,
    max_size=9,
)


def run(arguments: list[str], directory: Path) -> bytes:
    """What a program prints, which must be no word of warning."""
    done = subprocess.run(arguments, cwd=directory, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout


def tool(name: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


def parse(data: bytes) -> Any:
    return ELFFile(io.BytesIO(data))


def symbols_of(elf: Any) -> dict[str, Any]:
    return {symbol.name: symbol for symbol in elf.get_section_by_name(".symtab").iter_symbols()}


def held(elf: Any) -> dict[str, bytes]:
    """The content of every symbol of a relocatable object."""
    return {
        name: elf.get_section(symbol["st_shndx"]).data()[symbol["st_value"] :][: symbol["st_size"]]
        for name, symbol in symbols_of(elf).items()
        if symbol["st_info"]["type"] == "STT_OBJECT"
    }


def write(directory: Path, files: Mapping[str, str | bytes]) -> None:
    directory.mkdir(exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data.encode() if isinstance(data, str) else data)


def printing(*headers: str, names: Mapping[str, bytes]) -> str:
    """A program in C and C++ that prints all images, and fails where one is not aligned."""
    includes = "".join(f'#include "{header}"\n' for header in ("images.h", *headers) if header)
    writes = "".join(f"  fwrite({name}, 1, sizeof {name}, stdout);\n" for name in names)
    wrong = " + ".join(f"(int)((size_t){name} % 64)" for name in names)
    return f"#include <stddef.h>\n#include <stdio.h>\n{includes}int main(void) {{\n{writes}  return {wrong};\n}}\n"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(images, st.sampled_from(MACHINES))
def test_every_field_as_another_library_reads_it(content: dict[str, bytes], machine: Machine) -> None:
    elf = parse(elf_object(content, machine=machine))
    header = elf.header
    assert (elf.elfclass, elf.little_endian, header["e_type"]) == (64, True, "ET_REL")
    assert header["e_machine"] == {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[machine]
    assert (header["e_ident"]["EI_VERSION"], header["e_version"]) == ("EV_CURRENT", "EV_CURRENT")
    assert (header["e_ident"]["EI_OSABI"], header["e_ident"]["EI_ABIVERSION"]) == ("ELFOSABI_SYSV", 0)
    assert not any(header[name] for name in ("e_entry", "e_phoff", "e_flags", "e_phentsize", "e_phnum"))
    assert (header["e_ehsize"], header["e_shentsize"], header["e_shoff"] % 8) == (64, 64, 0)
    names = [section.name for section in elf.iter_sections()]
    assert names[header["e_shstrndx"]] == ".shstrtab"
    rodata = [f".rodata.{name}" for name in sorted(content)]
    others = [".note.gnu.property", ".note.GNU-stack", ".strtab", ".symtab", ".shstrtab"]
    assert names == ["", *rodata, *others]
    assert held(elf) == content
    symbols = symbols_of(elf)
    assert list(symbols) == ["", *sorted(content)]
    for name in content:
        symbol, section = symbols[name], elf.get_section(symbols[name]["st_shndx"])
        assert symbol["st_info"] == {"bind": "STB_GLOBAL", "type": "STT_OBJECT"}
        assert symbol["st_other"]["visibility"] == "STV_HIDDEN"
        assert (section.name, symbol["st_value"]) == (f".rodata.{name}", 0)
        assert (section["sh_type"], section["sh_flags"]) == ("SHT_PROGBITS", 2)
        assert (section["sh_addralign"], section["sh_offset"] % 64) == (64, 0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(images, st.sampled_from(MACHINES))
def test_sections_of_the_object_itself(content: dict[str, bytes], machine: Machine) -> None:
    data = elf_object(content, machine=machine)
    elf = parse(data)
    null, *sections = elf.iter_sections()
    assert set(null.header.values()) == {0, "SHT_NULL"}
    table = elf.get_section_by_name(".symtab")
    assert (table["sh_type"], table["sh_info"], table["sh_entsize"]) == ("SHT_SYMTAB", 1, 24)
    assert elf.get_section(table["sh_link"]).name == ".strtab"
    null_symbol = table.get_symbol(0)
    assert not any((null_symbol["st_name"], null_symbol["st_value"], null_symbol["st_size"]))
    assert null_symbol["st_shndx"] == "SHN_UNDEF"
    for name in (".strtab", ".shstrtab"):
        strings = elf.get_section_by_name(name)
        assert (strings["sh_type"], strings["sh_flags"]) == ("SHT_STRTAB", 0)
        assert (strings.data()[0], strings.data()[-1]) == (0, 0)
    stack = elf.get_section_by_name(".note.GNU-stack")
    assert (stack["sh_type"], stack["sh_flags"], stack["sh_size"]) == ("SHT_PROGBITS", 0, 0)
    # One after the other, each where it is aligned, and nothing but zeros between; the table comes last.
    end = 64
    for section in sections:
        assert section["sh_addr"] == 0
        assert section["sh_offset"] == end + -end % section["sh_addralign"]
        assert not any(data[end : section["sh_offset"]])
        end = section["sh_offset"] + section["sh_size"]
    assert elf.header["e_shoff"] == end + -end % 8
    assert len(data) == elf.header["e_shoff"] + 64 * elf.header["e_shnum"]


@pytest.mark.parametrize(
    ("machine", "kind", "bits"),
    [("x86_64", "GNU_PROPERTY_X86_FEATURE_1_AND", 3), ("aarch64", "GNU_PROPERTY_AARCH64_FEATURE_1_AND", 7)],
)
def test_properties(machine: Machine, kind: str, bits: int) -> None:
    section = parse(elf_object(IMAGES, machine=machine)).get_section_by_name(".note.gnu.property")
    assert (section["sh_type"], section["sh_flags"], section["sh_addralign"]) == ("SHT_NOTE", 2, 8)
    (note,) = section.iter_notes()
    assert (note["n_name"], note["n_type"]) == ("GNU", "NT_GNU_PROPERTY_TYPE_0")
    (held,) = note["n_desc"]
    assert (held["pr_type"], held["pr_datasz"], held["pr_data"]) == (kind, 4, bits)


@pytest.mark.parametrize("make", [lambda held: elf_object(held, machine="x86_64"), declarations, c_array])
def test_what_is_refused(make: Any) -> None:
    for name in ("", "1st", "a-b", "a b", "ä", "a\n", "a\0", "x;", "\u0661"):
        with pytest.raises(ValueError, match="not a C identifier"):
            make({"sound": b"1", name: b"1"})
    with pytest.raises(ValueError, match="no images to embed"):
        make({})
    with pytest.raises(ValueError, match=r"without bytes, which C has no arrays for: a, b$"):
        make({"b": b"", "a": b"", "sound": b"1"})


def test_more_sections_than_a_header_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_RESERVED_SECTIONS", 10)
    assert parse(elf_object(IMAGES, machine=HOST)).num_sections() == 10
    with pytest.raises(ValueError, match="11 sections are more"):
        elf_object({**IMAGES, "another": b"1"}, machine=HOST)


def test_equal_images_give_equal_bytes_everywhere(tmp_path: Path) -> None:
    """In processes of other hash seeds, and whatever order the mapping has."""
    code = (
        "import sys\nfrom vqcc.codegen.embedding import *\n"
        "held = {name: name.encode() * 9 for name in sys.argv[1:]}\n"
        "parts = [elf_object(held, machine=m) for m in ('x86_64', 'aarch64')]\n"
        "sys.stdout.buffer.write(b''.join(parts) + c_array(held).encode() + declarations(held).encode())\n"
    )
    path = str(Path(vqcc.__file__).parents[1])
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, *names],
            cwd=tmp_path,
            env={"PYTHONPATH": path, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed, names in (("1", ("a", "b", "z")), ("2", ("z", "a", "b")))
    }
    assert len(outputs) == 1
    assert outputs != {b""}


@pytest.mark.parametrize("flags", [[], ["-static"], ["-fPIE", "-pie"], ["-fno-pic", "-no-pie"]])
def test_a_program(flags: list[str], tmp_path: Path) -> None:
    write(tmp_path, {"images.h": declarations(IMAGES), "main.c": printing(names=IMAGES)})
    write(tmp_path, {"images.o": elf_object(IMAGES, machine=HOST)})
    files = ["main.c", "images.o", "-o", "program", "-Wl,--fatal-warnings"]
    run(["gcc", "-std=c99", *WARNINGS, *flags, *files], tmp_path)
    assert run(["./program"], tmp_path) == b"".join(IMAGES.values())
    elf = parse((tmp_path / "program").read_bytes())
    (stack,) = (segment for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_STACK")
    assert stack["p_flags"] & 1 == 0, "the program's stack can be executed"
    images = symbols_of(elf)
    assert all(images[name]["st_size"] == len(image) for name, image in IMAGES.items())
    sections = {elf.get_section(images[name]["st_shndx"]).name for name in IMAGES}
    assert sections == {".rodata"}


def test_shared_objects_keep_their_own_images(tmp_path: Path) -> None:
    """Two in one process, with images of equal names; what is hidden they neither export nor look up."""
    flags = ["-std=c99", *WARNINGS, "-shared", "-fPIC", "-Wl,--fatal-warnings,--no-undefined,-z,text"]
    source = '#include "images.h"\nconst void* tiny_find(void);\nconst void* tiny_find(void) { return tiny_h200; }\n'
    libraries = {}
    for number in (1, 2):
        content = {name: bytes(byte ^ number for byte in image) for name, image in IMAGES.items()}
        place = tmp_path / str(number)
        write(place, {"images.h": declarations(content), "find.c": source})
        write(place, {"images.o": elf_object(content, machine=HOST)})
        run(["gcc", *flags, "find.c", "images.o", "-o", "engine.so"], place)
        exported = {
            symbol.name
            for symbol in parse((place / "engine.so").read_bytes())
            .get_section_by_name(".dynsym")
            .iter_symbols()
        }
        assert "tiny_find" in exported
        assert not exported & set(IMAGES)
        library = ctypes.CDLL(str(place / "engine.so"), mode=ctypes.RTLD_GLOBAL)
        library.tiny_find.restype = ctypes.c_void_p
        libraries[number] = (library, content["tiny_h200"])
    for library, image in libraries.values():
        address = library.tiny_find()
        assert address % 64 == 0
        assert ctypes.string_at(address, len(image)) == image


def test_64_libraries_in_one_program(tmp_path: Path) -> None:
    content = {f"layer_{i}": {f"layer_{i}_a": bytes([i]) * (i + 1), f"layer_{i}_b": b"b"} for i in range(64)}
    for name, images in content.items():
        write(tmp_path, {f"{name}.h": declarations(images), f"{name}.o": elf_object(images, machine=HOST)})
    every = {name: image for images in content.values() for name, image in images.items()}
    write(tmp_path, {"images.h": "", "main.c": printing(*(f"{name}.h" for name in content), names=every)})
    objects = [f"{name}.o" for name in content]
    files = ["main.c", *objects, "-o", "program", "-Wl,--fatal-warnings"]
    run(["gcc", "-std=c99", *WARNINGS, *files], tmp_path)
    assert run(["./program"], tmp_path) == b"".join(every.values())


def test_unused_images_go(tmp_path: Path) -> None:
    source = '#include "images.h"\nint main(void) { return tiny_ptx[0] != 46; }\n'
    write(tmp_path, {"images.h": declarations(IMAGES), "main.c": source})
    write(tmp_path, {"images.o": elf_object(IMAGES, machine=HOST)})
    files = ["main.c", "images.o", "-o", "program", "-Wl,--fatal-warnings,--gc-sections"]
    run(["gcc", *files], tmp_path)
    run(["./program"], tmp_path)
    left = set(symbols_of(parse((tmp_path / "program").read_bytes())))
    assert left & set(IMAGES) == {"tiny_ptx"}


@pytest.mark.skipif(HOST != "x86_64", reason="needs a linker for x86-64")
def test_protection_of_branches_stays(tmp_path: Path) -> None:
    """A linker that is asked to complain of an object without the properties does not of ours."""
    tool("ld.bfd")
    write(tmp_path, {"images.h": declarations(IMAGES), "find.c": '#include "images.h"\nint x;\n'})
    write(tmp_path, {"images.o": elf_object(IMAGES, machine="x86_64")})
    run(["gcc", "-fPIC", "-fcf-protection=full", "-c", "find.c"], tmp_path)
    report = ["--fatal-warnings", "-shared", "-z", "cet-report=error"]
    run(["ld.bfd", *report, "find.o", "images.o", "-o", "engine.so"], tmp_path)
    section = parse((tmp_path / "engine.so").read_bytes()).get_section_by_name(".note.gnu.property")
    features = [held for note in section.iter_notes() for held in note["n_desc"]]
    assert [held["pr_data"] for held in features if held["pr_type"] == "GNU_PROPERTY_X86_FEATURE_1_AND"] == [
        3
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["ld", "--fatal-warnings", "-r", "images.o", "-o", "out.o"],
        ["strip", "--strip-unneeded", "images.o", "-o", "out.o"],
        ["strip", "--strip-debug", "images.o", "-o", "out.o"],
        ["objcopy", "images.o", "out.o"],
    ],
    ids=" ".join,
)
def test_binutils_keep_the_images(command: list[str], tmp_path: Path) -> None:
    tool(command[0])
    write(tmp_path, {"images.o": elf_object(IMAGES, machine=HOST)})
    run(command, tmp_path)
    elf = parse((tmp_path / "out.o").read_bytes())
    assert held(elf) == IMAGES
    assert {symbols_of(elf)[name]["st_other"]["visibility"] for name in IMAGES} == {"STV_HIDDEN"}


@pytest.mark.parametrize("machine", MACHINES)
def test_readelf_has_no_complaint(machine: Machine, tmp_path: Path) -> None:
    write(tmp_path, {"images.o": elf_object(IMAGES, machine=machine)})
    printed = run([tool("readelf"), "--all", "--wide", "images.o"], tmp_path).decode()
    assert not re.findall(r"(?i)warning|error|corrupt", printed)


@pytest.mark.parametrize(("language", "standard"), [("c", "c99"), ("c", "c11"), ("c++", "c++17")])
def test_c_arrays_are_the_same(language: str, standard: str, tmp_path: Path) -> None:
    """Compiled under each standard they hold the same bytes under the same hidden symbols."""
    suffix = "cpp" if language == "c++" else "c"
    files = {"images.h": declarations(IMAGES), f"main.{suffix}": printing("images.h", names=IMAGES)}
    write(tmp_path, {**files, f"images.{suffix}": c_array(IMAGES)})
    for compiler in compilers(language).values():
        flags = [*compiler, f"-std={standard}", *WARNINGS]
        run([*flags, "-fPIC", "-c", f"images.{suffix}"], tmp_path)
        run([*flags, f"main.{suffix}", "images.o", "-o", "program", "-Wl,--fatal-warnings"], tmp_path)
        assert run(["./program"], tmp_path) == b"".join(IMAGES.values())
        elf = parse((tmp_path / "images.o").read_bytes())
        assert held(elf) == IMAGES
        for image in IMAGES:
            symbol = symbols_of(elf)[image]
            assert (symbol["st_info"]["bind"], symbol["st_other"]["visibility"]) == (
                "STB_GLOBAL",
                "STV_HIDDEN",
            )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(images)
def test_c_arrays_read_back(content: dict[str, bytes]) -> None:
    text = c_array(content)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 120
    arrays = re.findall(
        r"^VQCC_ALIGNED const unsigned char (\w+)\[(\d+)\] = \{\n([\d,\n]+)\};$", text, re.MULTILINE
    )
    read = {name: bytes(map(int, numbers.replace("\n", "").split(",")[:-1])) for name, _, numbers in arrays}
    assert read == content
    assert {name: int(size) for name, size, _ in arrays} == {
        name: len(data) for name, data in content.items()
    }


def test_c_arrays_are_compact() -> None:
    image = IMAGES["tiny_h200"]
    numbers = len(",".join(map(str, image)))
    assert len(c_array({"x": image})) < 1.02 * numbers + 1000
