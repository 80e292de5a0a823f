"""Packed files for tests of the C reader: written by vqcc, taken apart, edited, and put together as by nobody."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from build_tools import WARNINGS
from problems import gemv, kmeans

from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.data_files import templates_directory
from vqcc.diagnostics import VqccError
from vqcc.library import Library
from vqcc.passes.bucket import bucket_layout
from vqcc.passes.fragment import fragment_layout
from vqcc.passes.layout import choose_layout
from vqcc.passes.score import rotated_layout
from vqcc.tensors.packed_file import METADATA_KEY, load_packed, save_packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.algorithms.base import Algorithm
    from vqcc.code_layouts import CodeLayout

PROGRAM = Path(__file__).parent / "host" / "weights.c"
INCLUDE = templates_directory() / "host" / "include"
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ARRAYS = ("codes", "books", "stage_scales", "scales")


# Files that vqcc writes.


def chunked(algorithm: Algorithm, shape: tuple[int, int]) -> CodeLayout:
    return choose_layout(shape[1] // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)


def rotated(algorithm: Algorithm, shape: tuple[int, int]) -> CodeLayout:
    return rotated_layout(shape[1] // algorithm.vector_size, algorithm.residuals, algorithm.code_bits)


def fragments(algorithm: Algorithm, shape: tuple[int, int]) -> CodeLayout:
    layout = fragment_layout(algorithm, shape)
    assert layout is not None
    return layout


INT8 = kmeans(entries=16, residuals=2, codebook_dtype="int8", scales={"group": 32})
TILES = {"rows": 4, "cols": 32}
CASES: dict[str, tuple[Any, tuple[int, int], Callable[[Algorithm, tuple[int, int]], CodeLayout]]] = {
    "int8": (INT8, (6, 100), chunked),
    "int8, tiles": (INT8 | {"scope": TILES, "scales": "none"}, (6, 100), chunked),
    "scales of rows": ("aqlm-2x8", (5, 264), chunked),
    "one scale": ("quip-4", (3, 96), chunked),
    "tiles": ("gptvq-2", (300, 520), chunked),
    "vectors of three": (kmeans(vector_size=3, codebook_dtype="bfloat16", scales="row"), (7, 33), chunked),
    "rotated": ("aqlm-2x8", (33, 264), rotated),
    "rotated, 12 bits": ("aqlm-3", (40, 160), rotated),
    "fragment": ("aqlm-2x8", (65, 264), fragments),
    "fragment, tiles": (INT8 | {"scope": {"rows": 32, "cols": 64}}, (40, 160), fragments),
    "bucket": (kmeans(vector_size=8, entries=16384, residuals=2), (70, 1032), bucket_layout),
    "bucket, panels": (kmeans(vector_size=8, entries=8192), (33, 4808), bucket_layout),
    "smallest": (kmeans(entries=2), (1, 4), chunked),
}


def library_of(case: str = "int8") -> Library:
    algorithm, shape, layout = CASES[case]
    made = resolve(algorithm) if isinstance(algorithm, str) else from_mapping(algorithm)
    return library_for(made, shape, layout(made, shape))


def library_for(algorithm: Algorithm, shape: tuple[int, int], layout: CodeLayout) -> Library:
    """What the readers need of a library: it has no kernels."""
    nothing: Any = None
    return Library("tiny", "", "", "", {}, nothing, algorithm, gemv(n=shape[0], k=shape[1]), layout)


def packed_file(directory: Path, library: Library, *names: str) -> bytes:
    """A file with tensors of these names, or with `w`."""
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", *library.op.weight_shape)
    packed = library.pack(tensor)
    path = directory / "written.safetensors"
    save_packed(path, library, [(replace(tensor, name=name), packed) for name in names or ("w",)])
    return path.read_bytes()


def python_refusal(directory: Path, data: bytes, library: Library) -> set[str]:
    """Codes of what the Python reader finds wrong with a file."""
    path = directory / "read.safetensors"
    path.write_bytes(data)
    try:
        load_packed(path, library)
    except VqccError as error:
        return {item.code for item in error.diagnostics}
    except RecursionError:
        return {"RecursionError"}
    return set()


# The C reader, in a program of its own.


@dataclass(frozen=True)
class Found:
    """What the C reader gives of a tensor; arrays as their places in the file."""

    n: int
    k: int
    layout_id: str
    by_frequency: bool
    arrays: dict[str, slice]


@dataclass(frozen=True)
class Answer:
    """What the C reader says of a file."""

    status: str
    where: int
    tensors: dict[str, Found]


def statuses() -> dict[int, str]:
    """Names of the header's statuses, less what they have in common."""
    text = (INCLUDE / "vqcc" / "weights.h").read_text()
    found = re.findall(r"^  VQCC_WEIGHTS_(?:ERROR_)?(\w+) = (\d+)", text, re.MULTILINE)
    return {int(number): name for name, number in found}


def found_in(line: str) -> tuple[str, Found]:
    name, n, k, layout_id, by_frequency, *places = line.split()
    arrays = {}
    for part, place in zip(ARRAYS, places, strict=True):
        if place != "-":
            begin, size = map(int, place.split(":"))
            arrays[part] = slice(begin, begin + size)
    text = bytes.fromhex(name.removeprefix("name=")).decode()
    return text, Found(int(n), int(k), layout_id, by_frequency == "1", arrays)


class Reader:
    """The program of weights.c, running."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.statuses = statuses()
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def close(self) -> None:
        output, errors = self._process.communicate()
        assert (self._process.returncode, output, errors) == (0, b"", b"")

    def check(self, data: bytes) -> Answer:
        return self._file("c", data)

    def open(self, path: Path) -> Answer:
        return self._file("o", str(path).encode())

    def find(self, name: str, layout_id: str = "-", codes_bytes: int = 0, books_bytes: int = 0) -> str:
        """The status of looking a tensor up in the file that was checked last."""
        (status, *_) = self._ask("f", f"{layout_id}\n{codes_bytes}\n{books_bytes}\n{name}".encode())
        return self.statuses[int(status.split()[0])]

    def accepts(self, data: bytes, library: Library) -> bool:
        """Whether a file is sound and all of its tensors are for a library, which is what Python's reader wants."""
        answer = self.check(data)
        return answer.status == "OK" and all(
            self.find(name, library.layout_id) == "OK" for name in answer.tensors
        )

    def _file(self, letter: str, data: bytes) -> Answer:
        head, *tensors = self._ask(letter, data)
        status, where, count = map(int, head.split())
        assert len(tensors) == count
        return Answer(self.statuses[status], where, dict(map(found_in, tensors)))

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
        assert not lines[0].startswith(PROGRAM.name), lines[0]
        return lines


def compile_c(directory: Path, compiler: str, standard: str, *arguments: str) -> None:
    done = subprocess.run(
        [compiler, f"-std={standard}", *WARNINGS, f"-I{INCLUDE}", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@contextmanager
def running(directory: Path, compiler: str, standard: str, *options: str) -> Iterator[Reader]:
    source = "weights.cpp" if standard.startswith("c++") else "weights.c"
    (directory / source).write_bytes(PROGRAM.read_bytes())
    compile_c(directory, compiler, standard, *options, source, "-o", "weights")
    reader = Reader(directory / "weights")
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


def identity(tensor: Pairs) -> str:
    """The layout id of what is said of a tensor, as docs/packed-layout.md has it; its keys are in order already."""
    agreed = json.loads(written([dict(tensor).get(key) for key in ("algorithm", "shape", "layout")]))
    return hashlib.sha256(json.dumps(agreed).encode()).hexdigest()[:12]


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


def tensor_edit(*, identified: bool = True, **fields: Any) -> Edit:
    """An edit of what is said of `w`, with the layout id that is then right."""

    def edit(description: Pairs) -> Pairs:
        tensor = changed(description.of("w"), fields)
        return description.put("w", tensor.put("layout_id", identity(tensor)) if identified else tensor)

    return description_edit(edit)


def field(key: str, value: Any) -> Callable[[Pairs], Pairs]:
    """An algorithm or a layout with another value."""
    return lambda mapping: mapping.put(key, value)
