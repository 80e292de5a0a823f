"""Packed books of a KV cache for tests of the C reader, and the reader."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from packed_files import (
    Edit,
    Pairs,
    Reader,
    arrays_in,
    identity_of,
    item_edit,
    join,
    name_in,
    refusal,
    split,
    with_description,
)

from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.cache_library import CacheLibrary
from vqcc.ops.attention.model import AttentionDecode
from vqcc.tensors.cache_packed_file import expected_parts, load_packed_books, save_packed_books
from vqcc.verify.cache_harness import random_sides

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = ("key_books", "value_books", "append_key_books", "append_value_books", "book_facts", "rotations")
SIZES = ARRAYS[:5]


def books_library(
    key: Any = "kv-8-6-2", value: Any = None, *, by_rows: bool = False, key_order: Any = "plain", **op: Any
) -> CacheLibrary:
    """What the readers need of a library: it has no kernels. An algorithm is a preset's name, or a mapping."""
    keys, values = (
        resolve(each) if isinstance(each, str) else from_mapping(each) for each in (key, value or key)
    )
    sizes = {"q_heads": 2, "kv_heads": 2, "head_dim": 64, "batch": 1, "context": 64, "rope": "half"}
    attention = AttentionDecode.model_validate({"kind": "attention_decode", **sizes, **op})
    nothing: Any = None
    layout = attention.layout(keys, values, key_order)
    return CacheLibrary("tiny", "", "", "", {}, nothing, keys, values, attention, layout, by_rows)


def books_file(directory: Path, library: CacheLibrary, *names: str) -> bytes:
    """A file with books of these names, or with `w`; each has arrays of its own."""
    keys, values = random_sides(library, np.random.default_rng(0))
    path = directory / "written.safetensors"
    save_packed_books(path, library, "w", keys, values, library.pack(keys, values))
    if not names:
        return path.read_bytes()
    header, description, body = split(path.read_bytes())
    entries, descriptions = Pairs(), Pairs()
    for number, name in enumerate(names):
        descriptions.append((name, description.of("w")))
        for part, entry in header:
            if part != "__metadata__":
                places = [place + number * len(body) for place in entry.of("data_offsets")]
                entries.append((name + part.removeprefix("w"), entry.put("data_offsets", places)))
    data = join(with_description(entries, descriptions), body * len(names))
    path.write_bytes(data)
    return data


def sizes_of(library: CacheLibrary) -> dict[str, int]:
    """What the header of a library says of its arrays."""
    parts = expected_parts(library)
    return {
        part: prod(parts[part][1]) * np.dtype(parts[part][0]).itemsize if part in parts else 0
        for part in SIZES
    }


def python_refusal(directory: Path, data: bytes, library: CacheLibrary) -> set[str]:
    """Codes of what the Python reader finds wrong with a file."""
    return refusal(lambda path: load_packed_books(path, library), directory, data)


@dataclass(frozen=True)
class Found:
    """What the C reader gives of a layer; arrays as their places in the file."""

    kv_heads: int
    head_dim: int
    layout_id: str
    by_rows: bool
    arrays: dict[str, slice]


class BooksReader(Reader[Found]):
    """Of vqcc/books.h."""

    name = "books"

    def found_in(self, line: str) -> tuple[str, Found]:
        name, kv_heads, head_dim, layout_id, by_rows, *places = line.split()
        return name_in(name), Found(
            int(kv_heads), int(head_dim), layout_id, by_rows == "1", arrays_in(ARRAYS, places)
        )

    def find(self, name: str, layout_id: str = "-", sizes: dict[str, int] | None = None) -> str:
        """The status of looking a layer up in the file that was checked last."""
        numbers = " ".join(str(sizes[part]) for part in SIZES) if sizes else "-"
        return self.look_up(layout_id, numbers, name=name)

    def accepts(self, data: bytes, library: CacheLibrary) -> bool:
        """Whether a file is sound and all of its layers are for a library, which is what Python's reader wants."""
        answer = self.check(data)
        sizes = sizes_of(library)
        return answer.status == "OK" and all(
            self.find(name, library.layout_id, sizes) == "OK" for name in answer.found
        )


def identity(layer: Pairs) -> str:
    """The layout id of what is said of a layer, as docs/packed-layout.md has it."""
    said: dict[str, Any] = dict(layer)
    algorithm = said.get("algorithm")
    sides = dict(algorithm) if isinstance(algorithm, Pairs) else {}
    rest = (said.get(key) for key in ("layout", "by_rows", "rope"))
    return identity_of(sides.get("key"), sides.get("value"), *rest)


def layer_edit(*, identified: bool = True, **fields: Any) -> Edit:
    """An edit of what is said of `w`, with the layout id that is then right."""
    return item_edit(identity, identified=identified, **fields)
