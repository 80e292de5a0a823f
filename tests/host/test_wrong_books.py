"""What the C reader of packed books refuses: all that the Python reader does, and a little more, named here.

What is wrong with headers alone, whatever they are of, is in test_wrong_weights.py: both readers check them by
vqcc/packed_file.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from damaged_files import (
    MOST_NESTING,
    VALUES,
    assert_nothing_read_past,
    behind,
    compare_on_damaged,
    deep,
    stricter,
)
from packed_books import (
    BooksReader,
    books_file,
    books_library,
    identity,
    layer_edit,
    python_refusal,
)
from packed_files import (
    Edit,
    Pairs,
    Raw,
    also,
    changed,
    description_edit,
    entry,
    entry_edit,
    field,
    header_edit,
    join,
    split,
    text_edit,
    written,
)
from packed_weights import library_of, packed_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Of the good file: 2 kv-heads of 64 channels, vectors of 8, two stages of 64 entries, one codebook of keys for the
#: layer and one of values.
ROTATIONS, KEYS, APPEND_KEYS = "w.rotations", "w.key_books", "w.append_key_books"
BODY = 256 + 4 * 2048


def side(which: str, **fields: Any) -> Callable[[Pairs], Pairs]:
    """Algorithms of which that of keys or of values is another."""
    return lambda algorithm: algorithm.put(which, changed(algorithm.of(which), fields))


def unfit(**fields: Any) -> Edit:
    """An edit of what is said of `w` but for the layout id, which no longer fits."""
    return layer_edit(identified=False, **fields)


#: Edits of the good file, the C reader's status, and the Python reader's code.
WRONG: dict[str, tuple[Edit, str, str]] = {
    "empty": (lambda _: b"", "TRUNCATED", "VQ0502"),
    "header cut": (lambda data: data[:60], "TRUNCATED", "VQ0503"),
    "longest header": (lambda data: b"\xff" * 8 + data[8:], "TRUNCATED", "VQ0503"),
    "another header behind it": (behind("{}"), "JSON", "VQ0504"),
    "no comma": (text_edit('"U64",', '"U64"'), "JSON", "VQ0504"),
    "nested without end": (lambda _: join('{"a":' + "[" * 100_000 + "}", b""), "NESTING", "VQ0504"),
    "key twice": (header_edit(lambda header: Pairs([*header, header[-1]])), "DUPLICATE", "VQ0504"),
    "no type": (entry_edit(KEYS, dtype=None), "ENTRY", "VQ0505"),
    "unknown type": (entry_edit(KEYS, dtype="F8_E4M3"), "DTYPE", "VQ0506"),
    "shape too large": (entry_edit(KEYS, shape=[2, 2048]), "EXTENT", "VQ0510"),
    "shape that overflows": (entry_edit(KEYS, shape=[2**62, 4]), "EXTENT", "VQ0510"),
    "data cut": (lambda data: data[:-1], "PLACES", "VQ0507"),
    "data longer": (lambda data: data + b"\0", "PLACES", "VQ0509"),
    "two arrays at a place": (also("x", entry("U8", [256], 0, 256)), "PLACES", "VQ0508"),
    "a hole": (header_edit(lambda header: header.without(KEYS)), "PLACES", "VQ0509"),
    "no metadata": (header_edit(lambda header: header.without("__metadata__")), "NOT_PACKED", "VQ0530"),
    "other metadata": (also("__metadata__", Pairs([("format", "pt")])), "NOT_PACKED", "VQ0530"),
    "description a list": (description_edit(lambda _: []), "NOT_PACKED", "VQ0530"),
    "description cut": (description_edit(lambda description: written(description)[:-1]), "JSON", "VQ0530"),
    "layer twice": (description_edit(lambda old: Pairs([("w", 1), *old])), "DUPLICATE", "VQ0530"),
    "layer a number": (description_edit(lambda _: Pairs([("w", 3)])), "DESCRIPTION", "VQ0530"),
    "layer a list": (description_edit(lambda _: Pairs([("w", ["layout_id"])])), "DESCRIPTION", "VQ0530"),
    "no layout id": (unfit(layout_id=None), "DESCRIPTION", "VQ0530"),
    "layout id a number": (unfit(layout_id=7), "DESCRIPTION", "VQ0531"),
    "another layout id": (unfit(layout_id="0123456789ab"), "IDENTITY", "VQ0531"),
    "longer layout id": (unfit(layout_id=lambda old: old + "0"), "IDENTITY", "VQ0531"),
    "no algorithm": (unfit(algorithm=None), "DESCRIPTION", "VQ0530"),
    "no keys": (unfit(algorithm=lambda old: old.without("key")), "DESCRIPTION", "VQ0530"),
    "no values": (unfit(algorithm=lambda old: old.without("value")), "DESCRIPTION", "VQ0530"),
    "a third algorithm": (unfit(algorithm=field("other", {})), "DESCRIPTION", "VQ0530"),
    "algorithm a text": (unfit(algorithm="kv-8-6-2"), "DESCRIPTION", "VQ0530"),
    "no kv_heads": (unfit(kv_heads=None), "DESCRIPTION", "VQ0530"),
    "no head_dim": (unfit(head_dim=None), "DESCRIPTION", "VQ0530"),
    "no layout": (unfit(layout=None), "DESCRIPTION", "VQ0530"),
    "no by_rows": (unfit(by_rows=None), "DESCRIPTION", "VQ0530"),
    "no rope": (unfit(rope=None), "DESCRIPTION", "VQ0530"),
    "more kv_heads": (unfit(kv_heads=3), "IDENTITY", "VQ0530"),
    "kv_heads a fraction": (unfit(kv_heads=Raw("2.0")), "DESCRIPTION", "VQ0530"),
    "kv_heads past 31 bits": (unfit(kv_heads=2**31), "DESCRIPTION", "VQ0530"),
    "no kv-head": (unfit(kv_heads=0), "DESCRIPTION", "VQ0530"),
    "wider heads": (unfit(head_dim=72), "IDENTITY", "VQ0530"),
    "by_rows a number": (unfit(by_rows=0), "DESCRIPTION", "VQ0530"),
    "by_rows a text": (unfit(by_rows="false"), "DESCRIPTION", "VQ0530"),
    "rope a text": (unfit(rope="half"), "DESCRIPTION", "VQ0530"),
    "rope of no word": (unfit(rope=[]), "DESCRIPTION", "VQ0530"),
    "rope of another word": (unfit(rope=["quarter", 10000.0, 1.0]), "DESCRIPTION", "VQ0530"),
    "rope of a number": (unfit(rope=[10000.0, 1.0]), "DESCRIPTION", "VQ0530"),
    "rope of another base": (unfit(rope=["half", 20000.0, 1.0]), "IDENTITY", "VQ0530"),
    "rope without a scaling": (unfit(rope=["half", 10000.0]), "IDENTITY", "VQ0530"),
    "rope of integers": (unfit(rope=["half", 10000, 1]), "IDENTITY", "VQ0530"),
    "rope the other way": (unfit(rope=["interleaved", 10000.0, 1.0]), "IDENTITY", "VQ0530"),
    "another layout": (unfit(layout=field("page_tokens", 32)), "IDENTITY", "VQ0530"),
    "layout of other heads": (unfit(layout=field("heads", 4)), "IDENTITY", "VQ0530"),
    "keys of bfloat16": (unfit(algorithm=side("key", codebook_dtype="bfloat16")), "IDENTITY", "VQ0530"),
    "values of bfloat16": (unfit(algorithm=side("value", codebook_dtype="bfloat16")), "IDENTITY", "VQ0530"),
    "keys of another direction": (unfit(algorithm=side("key", direction="out")), "IDENTITY", "VQ0530"),
    "other kv_heads than the layout": (layer_edit(layout=field("heads", 4)), "IDENTITY", "VQ0531"),
    "another head_dim than the layout": (layer_edit(layout=field("head_dim", 32)), "IDENTITY", "VQ0531"),
    "books of int8": (layer_edit(algorithm=side("key", codebook_dtype="int8")), "DESCRIPTION", "VQ0531"),
    "books of e8p": (layer_edit(algorithm=side("value", family="e8p")), "DESCRIPTION", "VQ0531"),
    "scales": (layer_edit(algorithm=side("key", scales="row")), "DESCRIPTION", "VQ0531"),
    "scales of groups": (layer_edit(algorithm=side("key", scales={"group": 8})), "DESCRIPTION", "VQ0531"),
    "vectors of 17": (layer_edit(algorithm=side("key", vector_size=17)), "DESCRIPTION", "VQ0531"),
    "vectors that fill no head": (
        layer_edit(algorithm=side("value", vector_size=6)),
        "DESCRIPTION",
        "VQ0531",
    ),
    "65,537 entries": (layer_edit(algorithm=side("key", entries=65537)), "DESCRIPTION", "VQ0531"),
    "no stages": (layer_edit(algorithm=side("key", residuals=0)), "DESCRIPTION", "VQ0531"),
    "scope of a weight": (layer_edit(algorithm=side("key", scope="tensor")), "DESCRIPTION", "VQ0531"),
    "scope of tiles": (
        layer_edit(algorithm=side("key", scope=Pairs([("cols", 8), ("rows", 1)]))),
        "DESCRIPTION",
        "VQ0531",
    ),
    "scope of other channels": (
        layer_edit(algorithm=side("key", scope=Pairs([("channels", 4), ("kv_heads", 1)]))),
        "DESCRIPTION",
        "VQ0531",
    ),
    "scope of two kv-heads": (
        layer_edit(algorithm=side("key", scope=Pairs([("channels", 8), ("kv_heads", 2)]))),
        "DESCRIPTION",
        "VQ0531",
    ),
    "scope a number": (layer_edit(algorithm=side("key", scope=1)), "DESCRIPTION", "VQ0531"),
    "books of heads": (layer_edit(algorithm=side("key", scope="kv_head")), "ARRAY", "VQ0531"),
    "books of channels": (
        layer_edit(algorithm=side("value", scope=Pairs([("channels", 8), ("kv_heads", 1)]))),
        "ARRAY",
        "VQ0531",
    ),
    "more entries": (layer_edit(algorithm=side("key", entries=128)), "ARRAY", "VQ0531"),
    "more stages": (layer_edit(algorithm=side("value", residuals=3)), "ARRAY", "VQ0531"),
    "shorter vectors": (layer_edit(algorithm=side("value", vector_size=4)), "ARRAY", "VQ0531"),
    "by rows": (layer_edit(by_rows=True), "ARRAY", "VQ0531"),
    "rotations for other heads": (
        layer_edit(head_dim=128, layout=field("head_dim", 128)),
        "ARRAY",
        "VQ0531",
    ),
    "another name": (description_edit(lambda description: description.renamed("w", "v")), "ARRAY", "VQ0530"),
    "a name more": (
        description_edit(lambda description: description.put("w.", description.of("w"))),
        "ARRAY",
        "VQ0530",
    ),
    "keys of another shape": (entry_edit(KEYS, shape=[2, 1024]), "ARRAY", "VQ0530"),
    "keys of fewer axes": (entry_edit(KEYS, shape=[2048]), "ARRAY", "VQ0530"),
    "keys of more axes": (entry_edit(KEYS, shape=[1, 2048, 1, 1]), "ARRAY", "VQ0530"),
    "keys of another type": (entry_edit(KEYS, dtype="I8"), "ARRAY", "VQ0530"),
    "appended keys of another type": (entry_edit(APPEND_KEYS, dtype="BOOL"), "ARRAY", "VQ0530"),
    "rotations of another type": (entry_edit(ROTATIONS, dtype="I64"), "ARRAY", "VQ0530"),
    "rotations of another shape": (entry_edit(ROTATIONS, shape=[32, 1]), "ARRAY", "VQ0530"),
}
WRONG |= {
    f"no {part}": (header_edit(lambda header, part=part: header.renamed(f"w.{part}", "x")), "ARRAY", "VQ0530")
    for part in ("key_books", "value_books", "append_key_books", "append_value_books", "rotations")
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_as_by_python(
    case: str, books_reader: BooksReader, good_books: bytes, scratch: Path
) -> None:
    edit, status, code = WRONG[case]
    data = edit(good_books)
    answer = books_reader.check(data)
    assert (answer.status, python_refusal(scratch, data, books_library())) == (status, {code})
    assert answer.where <= len(data)
    assert not answer.found


#: What only the C reader refuses of descriptions.
STRICTER: dict[str, tuple[Edit, str, str]] = {
    "line behind the header": (behind("\n"), "JSON", "white space"),
    "nested": (layer_edit(note=deep(MOST_NESTING - 1)), "NESTING", "nesting"),
    "minus zero": (entry_edit(ROTATIONS, data_offsets=[Raw("-0"), 256]), "ENTRY", "minus zero"),
    "empty array": (also("x", entry("U8", [0], BODY, BODY)), "PLACES", "empty"),
    "layout turned": (unfit(layout=lambda layout: Pairs(reversed(layout))), "IDENTITY", "identity"),
    "algorithm turned": (
        unfit(algorithm=lambda old: old.put("key", Pairs(reversed(old.of("key"))))),
        "IDENTITY",
        "identity",
    ),
    "zero in a name": (
        lambda data: header_edit(
            lambda header: Pairs((name.replace("w.", "w\0."), value) for name, value in header)
        )(description_edit(lambda old: old.renamed("w", "w\0"))(data)),
        "DESCRIPTION",
        "zero in a name",
    ),
}


@pytest.mark.parametrize("case", STRICTER)
def test_what_only_the_c_reader_refuses(
    case: str, books_reader: BooksReader, good_books: bytes, scratch: Path
) -> None:
    edit, status, reason = STRICTER[case]
    data = edit(good_books)
    assert python_refusal(scratch, data, books_library()) == set()
    assert (books_reader.check(data).status, stricter(data, identity)) == (status, {reason})


@pytest.mark.parametrize(
    "edit",
    [
        behind("   "),
        header_edit(lambda header: Pairs(reversed(header))),
        lambda data: also("note", entry("F16", [], BODY, BODY + 2))(data + b"\0\0"),
        description_edit(lambda _: Pairs()),
        layer_edit(note=deep(MOST_NESTING - 2), keys=None, values=7),
        layer_edit(algorithm=lambda old: Pairs(reversed(old))),
        description_edit(lambda old: old.put("w", Pairs(reversed(old.of("w"))))),
    ],
)
def test_what_both_readers_accept(
    edit: Edit, books_reader: BooksReader, good_books: bytes, scratch: Path
) -> None:
    data = edit(good_books)
    assert python_refusal(scratch, data, books_library()) == set()
    assert stricter(data, identity) == set()
    assert books_reader.accepts(data, books_library())


def halved(data: bytes) -> bytes:
    """A file whose tables of keys have rows of 128 bytes; the others are of another array."""
    keys = split(data)[0].of(KEYS)
    begin, end = keys.of("data_offsets")
    middle = (begin + end) // 2
    cut = entry_edit(KEYS, shape=[*keys.of("shape")[:3], 128], data_offsets=[begin, middle])(data)
    return also("rest", entry("U8", [end - middle], middle, end))(cut)


def test_books_by_rows(books_reader: BooksReader, scratch: Path) -> None:
    """Tables of keys and of values that are not of the shapes that algorithms and heads give them."""
    library = books_library("cq-2", "kv-4-8-1", by_rows=True, key_order="rotated", rope="none")
    data = books_file(scratch, library)
    assert books_reader.accepts(data, library)
    for edit in (
        entry_edit(KEYS, shape=[1, 2, 256, 256]),
        halved,
        entry_edit("w.value_books", shape=[2, 256, 1, 256]),
        entry_edit("w.value_books", shape=[2, 256, 256]),
        entry_edit("w.book_facts", shape=[4, 1]),
        entry_edit("w.book_facts", dtype="I32"),
        header_edit(lambda header: header.renamed("w.book_facts", "x")),
    ):
        file = edit(data)
        found = books_reader.check(file).status, python_refusal(scratch, file, library)
        assert found == ("ARRAY", {"VQ0530"})
    # Books that kernels which decode would read are there, too, but under other names.
    for by_rows, status in ((False, "ARRAY"), (None, "DESCRIPTION")):
        assert books_reader.check(layer_edit(by_rows=by_rows)(data)).status == status


def test_weights_are_no_books(books_reader: BooksReader, good: bytes, scratch: Path) -> None:
    answer = books_reader.check(good)
    assert (answer.status, good[answer.where - 4 : answer.where + 1]) == ("KIND", rb"w\":{")
    assert python_refusal(scratch, good, books_library()) == {"VQ0531"}
    assert python_refusal(scratch, packed_file(scratch, library_of("tiles")), books_library()) == {"VQ0531"}


def test_files_that_cannot_be_read(books_reader: BooksReader, tmp_path: Path) -> None:
    assert books_reader.open(tmp_path / "missing").status == books_reader.open(tmp_path).status == "FILE"
    (tmp_path / "empty").touch()
    assert books_reader.open(tmp_path / "empty").status == "TRUNCATED"
    with (tmp_path / "long").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(8 + 100_000_001)
    assert books_reader.open(tmp_path / "long").status == "HEADER_BYTES"


def test_where_it_was_found(books_reader: BooksReader, good_books: bytes) -> None:
    """The byte of the file at which a reader of the message should look."""
    rotations = good_books.index(b'"w.rotations"')
    layer = good_books.index(rb"w\":{") + len(rb"w\":")
    for edit, place in (
        (text_edit('"w.rotations"', '"w.rotations" 7'), rotations + len('"w.rotations" ')),
        (entry_edit(ROTATIONS, shape=[16]), rotations + len('"w.rotations":')),
        (entry_edit(ROTATIONS, dtype="I64"), rotations + len('"w.rotations":')),
        (unfit(kv_heads=3), layer),
        (lambda data: data[:50], 50),
    ):
        assert books_reader.check(edit(good_books)).where == place


def test_every_status_is_met() -> None:
    met = {status for _, status, _ in (*WRONG.values(), *STRICTER.values())}
    met |= {"OK", "NULL_POINTER", "FILE", "HEADER_BYTES", "NAME", "LAYOUT", "BYTES", "KIND"}
    assert met == set(BooksReader.all_statuses().values())


#: What a generator puts into files beside what it puts into those of weights.
WORDS = (
    "layer",
    "kv_head",
    "float16",
    "bfloat16",
    "half",
    "interleaved",
    False,
    ["none"],
    ["half", 10000.0, 1.0],
)


@pytest.mark.parametrize("examples", [400, pytest.param(4000, marks=pytest.mark.full)])
def test_both_readers_agree_on_damaged_files(examples: int, books_reader: BooksReader, scratch: Path) -> None:
    """The C reader accepts what the Python reader accepts, but for what `stricter` finds, and nothing else."""
    library = books_library()
    seen = compare_on_damaged(
        books_file(scratch, library, "w", 'v"\\ü'),
        examples,
        identity,
        lambda file: python_refusal(scratch, file, library),
        lambda file: books_reader.accepts(file, library),
        [*VALUES, *WORDS],
    )
    assert seen["python"] > examples / 4
    assert seen["neither"] > examples / 40
    assert seen["stricter"] > 0


@pytest.mark.parametrize("rounds", [30_000, pytest.param(300_000, marks=pytest.mark.full)])
def test_nothing_is_read_past_a_file(rounds: int, books_reader: BooksReader, scratch: Path) -> None:
    """Files damaged in every way, each in memory of just its size, under sanitizers; most of them are refused."""
    path = scratch / "fuzzed.safetensors"
    library = books_library("kv-8-1-1")
    path.write_bytes(books_file(scratch, library, "w", 'ä"'))
    assert len(split(path.read_bytes())[2]) < 2000
    assert_nothing_read_past(books_reader.program, path, rounds)
