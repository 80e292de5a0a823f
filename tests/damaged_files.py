"""Packed files that a generator damages, and what only their C readers find wrong with files."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from packed_files import Edit, Pairs, Raw, escaped, header_edit, join, plain, split, with_description, written
from safetensors import deserialize

from vqcc.tensors.packed_file import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

#: Limits of the C reader where the Python one has its interpreter's.
MOST_NESTING, MOST_NUMBER = 32, 4300


def behind(text: str) -> Edit:
    """An edit that puts text behind the header."""
    return header_edit(lambda header: written(header) + text)


def deep(levels: int) -> Raw:
    return Raw("[" * levels + "]" * levels)


def stricter(data: bytes, identity: Callable[[Pairs], str]) -> set[str]:
    """Why a C reader must refuse a file that the Python reader accepts, said without it."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = data[8:end].decode()
    found = set() if text.startswith("{") and text.rstrip(" ").endswith("}") else {"white space"}
    header = parsed(text, found)
    entries = [value for name, value in header if name != "__metadata__"]
    if any(
        isinstance(size, MinusZero)
        for value in entries
        for size in [*value.of("shape"), *value.of("data_offsets")]
    ):
        found.add("minus zero")
    if any(0 in value.of("shape") for value in entries):
        found.add("empty")
    description = parsed(header.of("__metadata__").of(METADATA_KEY), found)
    for name, tensor in dict(description).items():
        if "\0" in name:
            found.add("zero in a name")
        if not isinstance(tensor, Pairs) or tensor.of("layout_id") != identity(tensor):
            found.add("identity")
    return found


class MinusZero(int):
    """How JSON may write 0, and Python reads it."""


def parsed(text: str, found: set[str]) -> Any:
    """JSON, as Python's reader takes it, and what C's does not to `found`."""

    def constant(name: str) -> str:
        found.add("constant")
        return name

    def fraction(digits: str) -> float:
        found.update({"number"} if len(digits) > MOST_NUMBER else ())
        return float(digits)

    def pairs(items: list[tuple[str, Any]]) -> Pairs:
        found.update({"key twice"} if len(dict(items)) < len(items) else ())
        return Pairs(items)

    value = json.loads(
        text,
        object_pairs_hook=pairs,
        parse_constant=constant,
        parse_float=fraction,
        parse_int=lambda digits: MinusZero() if digits == "-0" else int(digits),
    )
    if re.search("[\ud800-\udfff]", "".join(texts_of(value))):
        found.add("surrogate")
    if depth_of(value) > MOST_NESTING:
        found.add("nesting")
    return value


def items_of(value: Any) -> list[Any]:
    return (
        [item for _, item in value] if isinstance(value, Pairs) else value if isinstance(value, list) else []
    )


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, Pairs):
        yield from (key for key, _ in value)
    if isinstance(value, str):
        yield value
    for item in items_of(value):
        yield from texts_of(item)


def depth_of(value: Any) -> int:
    return 1 + max(map(depth_of, items_of(value)), default=0) if isinstance(value, list) else 0


# Files that a generator damages.

VALUES: list[Any] = [
    0, 1, 2, 6, 7, 8, 42, 100, 168, 176, -1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 1.0, -0.5, True,
    None, "", "U8", "U32", "F32", "F16", "I8", "w", "w.codes", "tensor", "row", "none", "kmeans", "e8p", "identity",
    "frequency", Pairs(), [], [0], [[]], Pairs([("w", 1)]), Raw("-0"), Raw("NaN"), Raw("1e5"), Raw("01"),
    Raw(r'"\ud800"'), Raw('"\x01"'), Raw("[]]"), Raw("{}}"), Raw(","), Raw(""), Raw('"'), Raw("\\"), deep(30), deep(40),
    Raw("1" * 4301), Raw("0." + "1" * 4301),
]  # fmt: skip


def places_of(value: Any) -> list[tuple[Any, int]]:
    """Every item of JSON, as its list and number."""
    items = [(value, number) for number in range(len(value))]
    return items + [place for item in items_of(value) if isinstance(item, list) for place in places_of(item)]


def damage(tree: Any, values: Sequence[Any], rng: Random) -> None:
    """Changes one item of JSON, perhaps to one of `values`."""
    places = places_of(tree)
    if not places:
        return
    items, place = rng.choice(places)
    item = items[place]
    name, value = item if isinstance(items, Pairs) else ("", item)
    kind = rng.choice(["value", "value", "number", "move", "copy", "name", "drop", "more"])
    if kind == "number" and type(value) is int:
        value += rng.choice([-1, 1, 4, 2**32])
    elif kind == "value":
        value = copy.deepcopy(rng.choice(values))
    elif kind == "name":
        name = rng.choice([name + "x", "w", "x.codes", "dtype", "shape", "note", "__metadata__"])
    items[place] = (name, value) if isinstance(items, Pairs) else value
    if kind in ("move", "drop"):
        item = items.pop(place)
    if kind in ("move", "copy"):
        items.insert(rng.randrange(len(items) + 1), item)
    if kind == "more":
        added = copy.deepcopy(rng.choice(values))
        items.append(("note", added) if isinstance(items, Pairs) else added)


def damaged(data: bytes, values: Sequence[Any], rng: Random) -> bytes:
    """A file that says something else, perhaps written otherwise, perhaps with other bytes; perhaps the same."""
    header, description, body = (copy.deepcopy(part) for part in split(data))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        damage(description, values, rng)
    header = with_description(header, written(description, *style(rng)))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        damage(header, values, rng)
    text = written(header, *style(rng)) + rng.choice(["", "", "  ", "\n", "}", "\0"])
    file = bytearray(join(text, body + rng.choice([b"", b"", b"\0"])))
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        file[rng.randrange(len(file))] = rng.randrange(256)
    if rng.random() < 0.1:
        del file[rng.randrange(len(file)) :]
    return bytes(file)


def style(rng: Random) -> tuple[str, Callable[[str], str]]:
    return rng.choice(["", "", " ", "\n\t"]), rng.choice([json.dumps, json.dumps, plain_if_whole, escaped])


def plain_if_whole(text: str) -> str:
    return json.dumps(text) if re.search("[\ud800-\udfff]", text) else plain(text)


# What is made of them.


def compare_on_damaged(
    data: bytes,
    examples: int,
    identity: Callable[[Pairs], str],
    refused: Callable[[bytes], set[str]],
    accepts: Callable[[bytes], bool],
    values: Sequence[Any] = VALUES,
) -> Counter[str]:
    """Hold a C reader against the Python one on damaged copies of a file; who refuses how many of them.

    The C reader accepts what the Python reader accepts, but for what `stricter` finds, and nothing else.
    """
    seen: Counter[str] = Counter()
    for seed in range(examples):
        file = damaged(data, values, Random(seed))
        refusal = refused(file)
        reasons = refusal or stricter(file, identity)
        assert accepts(file) == (not reasons), (seed, file, reasons)
        if not reasons:
            deserialize(file)  # the format's own reader agrees
        seen["python" if refusal else "stricter" if reasons else "neither"] += 1
    return seen


def assert_nothing_read_past(program: Path, path: Path, rounds: int) -> None:
    """A C reader's program damages copies of a file, each in memory of just its size; most of them are refused."""
    done = subprocess.run([program, path, "1", str(rounds)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert rounds / 2 < int(done.stdout) < rounds
