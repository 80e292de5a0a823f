"""Packed files for tests of their C readers: taken apart, edited, and put together as by nobody; and the readers."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import pytest
from build_tools import WARNINGS

from vqcc.data_files import templates_directory
from vqcc.diagnostics import VqccError
from vqcc.tensors.packed_file import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).parent / "host"
INCLUDE = templates_directory() / "host" / "include"
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def refusal(read: Callable[[Path], object], directory: Path, data: bytes) -> set[str]:
    """Codes of what a Python reader finds wrong with a file."""
    path = directory / "read.safetensors"
    path.write_bytes(data)
    try:
        read(path)
    except VqccError as error:
        return {item.code for item in error.diagnostics}
    except RecursionError:
        return {"RecursionError"}
    return set()


# C readers, in programs of their own.

Found = TypeVar("Found")


@dataclass(frozen=True)
class Answer(Generic[Found]):
    """What a C reader says of a file, and of each of its items."""

    status: str
    where: int
    found: dict[str, Found]


class Reader(Generic[Found]):
    """The program NAME.c, running."""

    name: ClassVar[str]

    def __init__(self, program: Path) -> None:
        self.program = program
        self.statuses = self.all_statuses()
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def found_in(self, line: str) -> tuple[str, Found]:
        """What a line of the program says of an item, and its name."""
        raise NotImplementedError

    @classmethod
    def all_statuses(cls) -> dict[int, str]:
        """Names of the header's statuses, less what they have in common."""
        own = (INCLUDE / "vqcc" / f"{cls.name}.h").read_text()
        shared = (INCLUDE / "vqcc" / "packed_file.h").read_text()
        numbers = dict(re.findall(r"^  VQCC_PACKED_(?:ERROR_)?(\w+) = (\d+)", shared, re.MULTILINE))
        of_kind = rf"^  VQCC_{cls.name.upper()}_(?:ERROR_)?(\w+) = VQCC_PACKED_(?:ERROR_)?(\w+)"
        found = re.findall(of_kind, own, re.MULTILINE)
        assert all(name == other for name, other in found)
        return {int(numbers[name]): name for name, _ in found}

    def close(self) -> None:
        output, errors = self._process.communicate()
        assert (self._process.returncode, output, errors) == (0, b"", b"")

    def check(self, data: bytes) -> Answer[Found]:
        return self._file("c", data)

    def open(self, path: Path) -> Answer[Found]:
        return self._file("o", str(path).encode())

    def look_up(self, *library: str, name: str) -> str:
        """The status of looking an item up for a library in the file that was checked last."""
        (status, *_) = self._ask("f", "\n".join([*library, name]).encode())
        return self.statuses[int(status.split()[0])]

    def _file(self, letter: str, data: bytes) -> Answer[Found]:
        head, *items = self._ask(letter, data)
        status, where, count = map(int, head.split())
        assert len(items) == count
        return Answer(self.statuses[status], where, dict(map(self.found_in, items)))

    def _ask(self, letter: str, data: bytes) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(letter.encode() + len(data).to_bytes(8, "little") + data)
        self._process.stdin.flush()
        lines: list[str] = []
        while (line := self._process.stdout.readline().decode()) != ".\n":
            if not line:
                pytest.fail(self._process.communicate()[1].decode())
            lines.append(line)
        assert not re.match(r"\S+:\d+: ", lines[0]), lines[0]
        return lines


def name_in(word: str) -> str:
    return bytes.fromhex(word.removeprefix("name=")).decode()


def arrays_in(parts: tuple[str, ...], places: list[str]) -> dict[str, slice]:
    """Places in the file of the arrays that there are."""
    found = {}
    for part, place in zip(parts, places, strict=True):
        if place != "-":
            begin, size = map(int, place.split(":"))
            found[part] = slice(begin, begin + size)
    return found


def compile_c(directory: Path, compiler: tuple[str, ...], standard: str, *arguments: str) -> None:
    done = subprocess.run(
        [*compiler, f"-std={standard}", *WARNINGS, f"-I{INCLUDE}", f"-I{PROGRAMS}", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


AnyReader = TypeVar("AnyReader", bound=Reader[Any])


@contextmanager
def running(
    kind: type[AnyReader], directory: Path, compiler: tuple[str, ...], standard: str, *options: str
) -> Iterator[AnyReader]:
    source = f"{kind.name}.{'cpp' if standard.startswith('c++') else 'c'}"
    (directory / source).write_bytes((PROGRAMS / f"{kind.name}.c").read_bytes())
    compile_c(directory, compiler, standard, *options, source, "-o", kind.name)
    reader = kind(directory / kind.name)
    try:
        yield reader
    finally:
        reader.close()


# Files taken apart and put together.


class Pairs(list[tuple[str, Any]]):
    """An object of JSON as it is written: its keys in order, some of them perhaps twice."""

    def of(self, key: str) -> Any:
        return next(value for name, value in self if name == key)

    def put(self, key: str, value: Any) -> Pairs:
        """This object with another value in its place, or as the last."""
        if all(name != key for name, _ in self):
            return Pairs([*self, (key, value)])
        return Pairs((name, value if name == key else old) for name, old in self)

    def without(self, *keys: str) -> Pairs:
        return Pairs((name, value) for name, value in self if name not in keys)

    def renamed(self, old: str, new: str) -> Pairs:
        return Pairs((new if name == old else name, value) for name, value in self)


class Raw(str):
    """Text that stands for itself in JSON."""

    __slots__ = ()


def written(value: Any, space: str = "", escape: Callable[[str], str] = json.dumps) -> str:
    """JSON with `space` around its marks, strings as `escape` writes them."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Pairs):
        items = [f"{escape(key)}{space}:{space}{written(item, space, escape)}" for key, item in value]
    elif isinstance(value, list):
        items = [written(item, space, escape) for item in value]
    else:
        return json.dumps(value)
    first, last = "{}" if isinstance(value, Pairs) else "[]"
    return f"{first}{space}{f'{space},{space}'.join(items)}{space}{last}"


def plain(text: str) -> str:
    """A string of JSON with no escape that is not needed."""
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """A string of JSON that is all escapes."""
    units = text.encode("utf-16-be", "surrogatepass").hex().upper()
    return '"' + re.sub("(....)", r"\\u\1", units) + '"'


def split(data: bytes) -> tuple[Pairs, Pairs, bytes]:
    """The header, what it says of tensors, and arrays."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end], object_pairs_hook=Pairs)
    description = json.loads(header.of("__metadata__").of(METADATA_KEY), object_pairs_hook=Pairs)
    return header, description, data[end:]


def join(header: Any, body: bytes, **style: Any) -> bytes:
    """A file of a header, which may be text or bytes already, and arrays."""
    text = header if isinstance(header, str | bytes) else written(header, **style)
    head = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return len(head).to_bytes(8, "little") + head + body


def with_description(header: Pairs, description: Any) -> Pairs:
    """A header that says something else of tensors; a text is taken as it is."""
    text = description if isinstance(description, str) else written(description)
    return header.put("__metadata__", Pairs([(METADATA_KEY, text)]))


def identity_of(*agreed: Any) -> str:
    """The layout id of a list of values, whose keys are in order already."""
    values = json.loads(written(list(agreed)))
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


# Edits of files.

Edit = Callable[[bytes], bytes]


def header_edit(edit: Callable[[Pairs], Any]) -> Edit:
    def edited(data: bytes) -> bytes:
        header, _, body = split(data)
        return join(edit(header), body)

    return edited


def text_edit(old: str, new: str) -> Edit:
    """An edit of the header's text, in one place."""

    def edit(header: Pairs) -> str:
        text = written(header)
        assert text.count(old) == 1, (text.count(old), old)
        return text.replace(old, new)

    return header_edit(edit)


def also(name: str, value: Any) -> Edit:
    """An edit that adds an entry, or changes it."""
    return header_edit(lambda header: header.put(name, value))


def entry(dtype: str, shape: Any, begin: Any, end: Any) -> Pairs:
    return Pairs([("dtype", dtype), ("shape", shape), ("data_offsets", [begin, end])])


def entry_edit(name: str, **fields: Any) -> Edit:
    """An edit of an array's entry."""
    return header_edit(lambda header: header.put(name, changed(header.of(name), fields)))


def changed(mapping: Pairs, fields: dict[str, Any]) -> Pairs:
    """An object with other values, which may be made of the old ones; None takes one away."""
    for key, value in fields.items():
        new = value(mapping.of(key)) if callable(value) else value
        mapping = mapping.without(key) if new is None else mapping.put(key, new)
    return mapping


def description_edit(edit: Callable[[Pairs], Any]) -> Edit:
    def edited(data: bytes) -> bytes:
        header, description, body = split(data)
        return join(with_description(header, edit(description)), body)

    return edited


def item_edit(identity: Callable[[Pairs], str], *, identified: bool = True, **fields: Any) -> Edit:
    """An edit of what is said of `w`, with the layout id that is then right."""

    def edit(description: Pairs) -> Pairs:
        item = changed(description.of("w"), fields)
        return description.put("w", item.put("layout_id", identity(item)) if identified else item)

    return description_edit(edit)


def field(key: str, value: Any) -> Callable[[Pairs], Pairs]:
    """An algorithm or a layout with another value."""
    return lambda mapping: mapping.put(key, value)
