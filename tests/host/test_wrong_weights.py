"""What the C reader of packed weights refuses: all that the Python reader does, and a little more, named here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from damaged_files import (
    MOST_NESTING,
    MOST_NUMBER,
    assert_nothing_read_past,
    behind,
    compare_on_damaged,
    deep,
    stricter,
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
    escaped,
    field,
    header_edit,
    join,
    split,
    text_edit,
    written,
)
from packed_weights import (
    ARRAYS,
    WeightsReader,
    identity,
    library_of,
    packed_file,
    python_refusal,
    tensor_edit,
)

from vqcc.code_layouts import BucketLayout
from vqcc.tensors.header import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable

CODES, BOOKS = "w.codes", "w.books"


def in_place_of_codes(data: bytes) -> Edit:
    """An edit that puts bytes in place of the word `codes` in an array's name."""
    return header_edit(lambda header: written(header).encode().replace(b"w.codes", b"w." + data))


def joined(one: str, other: str) -> Callable[[Pairs], Pairs]:
    """A mapping with two fields in one, whose key holds the marks that stood between them."""
    return lambda mapping: Pairs(
        (f'{one}": {json.dumps(mapping.of(one))}, "{other}' if key == other else key, value)
        for key, value in mapping
        if key != one
    )


#: Edits of a file of int8 codebooks and scales of groups, the C reader's status, and the Python reader's code.
WRONG: dict[str, tuple[Edit, str, str]] = {
    "empty": (lambda _: b"", "TRUNCATED", "VQ0502"),
    "shorter than a length": (lambda data: data[:7], "TRUNCATED", "VQ0502"),
    "header cut": (lambda data: data[:60], "TRUNCATED", "VQ0503"),
    "longest header": (lambda data: b"\xff" * 8 + data[8:], "TRUNCATED", "VQ0503"),
    "header a byte too long": (lambda _: b"\3" + b"\0" * 7 + b"{}", "TRUNCATED", "VQ0503"),
    "no header": (lambda _: join("", b""), "JSON", "VQ0504"),
    "header of spaces": (lambda _: join("   ", b""), "JSON", "VQ0504"),
    "header a list": (lambda _: join("[{}]", b""), "JSON", "VQ0504"),
    "header a text": (lambda _: join('"{}"', b""), "JSON", "VQ0504"),
    "quotes of Python": (lambda _: join("{'w': 1}", b""), "JSON", "VQ0504"),
    "byte order mark": (header_edit(lambda header: "\ufeff" + written(header)), "JSON", "VQ0504"),
    "brace behind the header": (behind("}"), "JSON", "VQ0504"),
    "zeros behind the header": (behind("\0\0"), "JSON", "VQ0504"),
    "another header behind it": (behind("{}"), "JSON", "VQ0504"),
    "no closing brace": (header_edit(lambda header: written(header)[:-1]), "JSON", "VQ0504"),
    "comma at the end": (header_edit(lambda header: written(header)[:-1] + ",}"), "JSON", "VQ0504"),
    "comma at the end of a shape": (text_edit("[6,7]", "[6,7,]"), "JSON", "VQ0504"),
    "comma only": (text_edit("[6,7]", "[,]"), "JSON", "VQ0504"),
    "no comma": (text_edit('"U32",', '"U32"'), "JSON", "VQ0504"),
    "no colon": (text_edit('"w.codes":', '"w.codes"'), "JSON", "VQ0504"),
    "closed by another": (text_edit("[6,7]", "[6,7}"), "JSON", "VQ0504"),
    "key without quotes": (text_edit('"w.codes"', "7"), "JSON", "VQ0504"),
    "number after a zero": (text_edit("[6,7]", "[06,7]"), "JSON", "VQ0504"),
    "number with a plus": (text_edit("[6,7]", "[+6,7]"), "JSON", "VQ0504"),
    "number with a point": (text_edit("[6,7]", "[6.,7]"), "JSON", "VQ0504"),
    "number without an exponent": (text_edit("[6,7]", "[6e-,7]"), "JSON", "VQ0504"),
    "minus only": (text_edit("[6,7]", "[-,7]"), "JSON", "VQ0504"),
    "number too long": (also("x", Raw("9" * (MOST_NUMBER + 1))), "JSON", "VQ0504"),
    "unknown word": (also("x", Raw("nul")), "JSON", "VQ0504"),
    "unknown escape": (in_place_of_codes(rb"\codes"), "JSON", "VQ0504"),
    "escape of three digits": (in_place_of_codes(rb"\u077."), "JSON", "VQ0504"),
    "end of line in a text": (in_place_of_codes(b"\n"), "JSON", "VQ0504"),
    "text without an end": (lambda _: join('{"a}', b""), "JSON", "VQ0504"),
    "escape without an end": (lambda _: join('{"a\\', b""), "JSON", "VQ0504"),
    "no UTF-8": (in_place_of_codes(b"\xff"), "JSON", "VQ0504"),
    "rest of a character": (in_place_of_codes(b"\x80"), "JSON", "VQ0504"),
    "half a character": (in_place_of_codes(b"\xe2\x82"), "JSON", "VQ0504"),
    "two bytes for one": (in_place_of_codes(b"\xc1\xbf"), "JSON", "VQ0504"),
    "three bytes for two": (in_place_of_codes(b"\xe0\x9f\xbf"), "JSON", "VQ0504"),
    "four bytes for three": (in_place_of_codes(b"\xf0\x8f\xbf\xbf"), "JSON", "VQ0504"),
    "past Unicode": (in_place_of_codes(b"\xf4\x90\x80\x80"), "JSON", "VQ0504"),
    "half a pair in UTF-8": (in_place_of_codes(b"\xed\xa0\x80"), "JSON", "VQ0504"),
    "nested without end": (lambda _: join('{"a":' + "[" * 100_000 + "}", b""), "NESTING", "VQ0504"),
    "key twice": (header_edit(lambda header: Pairs([*header, header[-1]])), "DUPLICATE", "VQ0504"),
    "key twice, once in escapes": (
        header_edit(lambda header: f"{written(header)[:-1]},{escaped(CODES)}:{{}}}}"),
        "DUPLICATE",
        "VQ0504",
    ),
    "key of an entry twice": (text_edit('"U32",', '"U32","dtype":"U32",'), "DUPLICATE", "VQ0504"),
    "key twice, deep": (also("x", [Pairs([("", 1), ("", 2)])]), "DUPLICATE", "VQ0504"),
    "metadata twice": (header_edit(lambda header: Pairs([*header, header[0]])), "DUPLICATE", "VQ0504"),
    "entry a number": (also(CODES, 7), "ENTRY", "VQ0505"),
    "entry a list": (also(CODES, ["dtype", "U32"]), "ENTRY", "VQ0505"),
    "no type": (entry_edit(CODES, dtype=None), "ENTRY", "VQ0505"),
    "no shape": (entry_edit(CODES, shape=None), "ENTRY", "VQ0505"),
    "no offsets": (entry_edit(CODES, data_offsets=None), "ENTRY", "VQ0505"),
    "type a number": (entry_edit(CODES, dtype=4), "ENTRY", "VQ0505"),
    "shape a number": (entry_edit(CODES, shape=42), "ENTRY", "VQ0505"),
    "shape an object": (entry_edit(CODES, shape=Pairs([("6", 7)])), "ENTRY", "VQ0505"),
    "negative shape": (entry_edit(CODES, shape=[-6, -7]), "ENTRY", "VQ0505"),
    "shape of fractions": (entry_edit(CODES, shape=[6.0, 7]), "ENTRY", "VQ0505"),
    "shape with an exponent": (entry_edit(CODES, shape=[Raw("6E0"), 7]), "ENTRY", "VQ0505"),
    "shape of truths": (entry_edit(CODES, shape=[True, 42]), "ENTRY", "VQ0505"),
    "shape of texts": (entry_edit(CODES, shape=["6", 7]), "ENTRY", "VQ0505"),
    "shape of lists": (entry_edit(CODES, shape=[[6], 7]), "ENTRY", "VQ0505"),
    "enormous shape": (entry_edit(CODES, shape=[2**63, 0]), "ENTRY", "VQ0505"),
    "33 axes": (entry_edit(CODES, shape=[6, 7, *[1] * 31]), "ENTRY", "VQ0505"),
    "one offset": (entry_edit(CODES, data_offsets=[8]), "ENTRY", "VQ0505"),
    "three offsets": (entry_edit(CODES, data_offsets=[8, 176, 176]), "ENTRY", "VQ0505"),
    "negative offset": (entry_edit(CODES, data_offsets=[-1, 167]), "ENTRY", "VQ0505"),
    "metadata a list": (also("__metadata__", []), "ENTRY", "VQ0505"),
    "metadata null": (also("__metadata__", None), "ENTRY", "VQ0505"),
    "metadata of numbers": (also("__metadata__", Pairs([("format", 1)])), "ENTRY", "VQ0505"),
    "unknown type": (entry_edit(CODES, dtype="F8_E4M3"), "DTYPE", "VQ0506"),
    "type cut": (entry_edit(CODES, dtype="U3"), "DTYPE", "VQ0506"),
    "type and more": (entry_edit(CODES, dtype="U322"), "DTYPE", "VQ0506"),
    "shape too large": (entry_edit(CODES, shape=[6, 8]), "EXTENT", "VQ0510"),
    "shape that overflows": (entry_edit(CODES, shape=[2**62, 4]), "EXTENT", "VQ0510"),
    "shape that overflows to the right size": (entry_edit(CODES, shape=[2**62 + 42]), "EXTENT", "VQ0510"),
    "shape that overflows, and is empty": (entry_edit(CODES, shape=[2**62, 2**62, 0]), "EXTENT", "VQ0510"),
    "shape that overflows to offsets turned": (
        entry_edit(CODES, dtype="U8", shape=[2**62, 2**62], data_offsets=[1, 0]),
        "EXTENT",
        "VQ0510",
    ),
    "wider type": (entry_edit(CODES, dtype="U64"), "EXTENT", "VQ0510"),
    "offsets turned": (entry_edit(CODES, data_offsets=[176, 8]), "EXTENT", "VQ0510"),
    "data cut": (lambda data: data[:-1], "PLACES", "VQ0507"),
    "data longer": (lambda data: data + b"\0", "PLACES", "VQ0509"),
    "offsets past the end": (also("x", entry("U8", [2], 2**62, 2**62 + 2)), "PLACES", "VQ0507"),
    "two arrays at a place": (also("x", entry("U8", [168], 8, 176)), "PLACES", "VQ0508"),
    "an array in another": (also("x", entry("U8", [4], 16, 20)), "PLACES", "VQ0508"),
    "an array over two": (also("x", entry("U8", [4], 174, 178)), "PLACES", "VQ0508"),
    "an array over another's end": (also("x", entry("U8", [4], 350, 354)), "PLACES", "VQ0507"),
    "a hole": (header_edit(lambda header: header.without(CODES)), "PLACES", "VQ0509"),
    "no metadata": (header_edit(lambda header: header.without("__metadata__")), "NOT_PACKED", "VQ0530"),
    "other metadata": (also("__metadata__", Pairs([("format", "pt")])), "NOT_PACKED", "VQ0530"),
    "description a list": (description_edit(lambda _: []), "NOT_PACKED", "VQ0530"),
    "description null": (description_edit(lambda _: None), "NOT_PACKED", "VQ0530"),
    "description empty": (description_edit(lambda _: ""), "JSON", "VQ0530"),
    "description cut": (description_edit(lambda description: written(description)[:-1]), "JSON", "VQ0530"),
    "description and more": (
        description_edit(lambda description: written(description) + ","),
        "JSON",
        "VQ0530",
    ),
    "tensor a number": (description_edit(lambda _: Pairs([("w", 3)])), "DESCRIPTION", "VQ0530"),
    "no layout id": (tensor_edit(identified=False, layout_id=None), "DESCRIPTION", "VQ0530"),
    "layout id a number": (tensor_edit(identified=False, layout_id=7), "DESCRIPTION", "VQ0531"),
    "no order": (tensor_edit(order=None), "DESCRIPTION", "VQ0530"),
    "unknown order": (tensor_edit(order="alphabet"), "DESCRIPTION", "VQ0530"),
    "order a list": (tensor_edit(order=["identity"]), "DESCRIPTION", "VQ0530"),
    "shape of no rows": (tensor_edit(shape=[0, 100]), "DESCRIPTION", "VQ0531"),
    "shape of three axes": (tensor_edit(shape=[6, 100, 1]), "DESCRIPTION", "VQ0531"),
    "shape past 31 bits": (tensor_edit(shape=[6, 2**31]), "DESCRIPTION", "VQ0531"),
    "unknown family": (tensor_edit(algorithm=field("family", "mant")), "DESCRIPTION", "VQ0531"),
    "algorithm a text": (tensor_edit(algorithm="kmeans"), "DESCRIPTION", "VQ0531"),
    "vectors of 17": (tensor_edit(algorithm=field("vector_size", 17)), "DESCRIPTION", "VQ0531"),
    "65,537 entries": (tensor_edit(algorithm=field("entries", 65537)), "DESCRIPTION", "VQ0531"),
    "no stages": (tensor_edit(algorithm=field("residuals", 0)), "DESCRIPTION", "VQ0531"),
    "unknown type of books": (
        tensor_edit(algorithm=field("codebook_dtype", "int4")),
        "DESCRIPTION",
        "VQ0531",
    ),
    "scope of a cache": (tensor_edit(algorithm=field("scope", "layer")), "DESCRIPTION", "VQ0531"),
    "scope of rows": (tensor_edit(algorithm=field("scope", Pairs([("rows", 2)]))), "DESCRIPTION", "VQ0531"),
    "unknown scales": (tensor_edit(algorithm=field("scales", "column")), "DESCRIPTION", "VQ0531"),
    "scales of no group": (tensor_edit(algorithm=field("scales", Pairs())), "DESCRIPTION", "VQ0531"),
    "scales a number": (tensor_edit(algorithm=field("scales", 1)), "DESCRIPTION", "VQ0531"),
    "unknown layout": (tensor_edit(layout=field("kind", "striped")), "DESCRIPTION", "VQ0531"),
    "chunks of nothing": (tensor_edit(layout=field("chunk_vectors", 0)), "DESCRIPTION", "VQ0531"),
    "another layout id": (tensor_edit(identified=False, layout_id="0123456789ab"), "IDENTITY", "VQ0531"),
    "longer layout id": (
        tensor_edit(identified=False, layout_id=lambda old: old + "0"),
        "IDENTITY",
        "VQ0531",
    ),
    "layout of more words": (tensor_edit(layout=field("chunk_words", 2)), "ARRAY", "VQ0531"),
    "more rows": (tensor_edit(shape=[7, 100]), "ARRAY", "VQ0531"),
    "other scales": (tensor_edit(algorithm=field("scales", "row")), "ARRAY", "VQ0531"),
    "other books": (tensor_edit(algorithm=field("codebook_dtype", "float16")), "ARRAY", "VQ0531"),
    "books of tiles": (
        tensor_edit(algorithm=field("scope", Pairs([("cols", 64), ("rows", 6)]))),
        "ARRAY",
        "VQ0531",
    ),
    "a table that is computed": (tensor_edit(algorithm=field("family", "e8p")), "ARRAY", "VQ0531"),
    "codes as fragments": (
        tensor_edit(
            layout=lambda old: Pairs(
                [("kind", "fragment"), ("span_vectors", 1), ("step_vectors", 4), ("step_words", 1), *old[-1:]]
            )
        ),
        "ARRAY",
        "VQ0531",
    ),
    "codes of another shape": (entry_edit(CODES, shape=[7, 6]), "ARRAY", "VQ0530"),
    "codes of more axes": (entry_edit(CODES, shape=[6, 7, 1]), "ARRAY", "VQ0530"),
    "codes of fewer axes": (entry_edit(CODES, shape=[42]), "ARRAY", "VQ0530"),
    "codes of no axes": (
        lambda data: entry_edit(CODES, shape=[], data_offsets=[8, 12])(
            also("x", entry("U8", [164], 12, 176))(data)
        ),
        "ARRAY",
        "VQ0530",
    ),
    "books of another shape": (entry_edit(BOOKS, shape=[2, 64]), "ARRAY", "VQ0530"),
    "stage scales of another shape": (entry_edit("w.stage_scales", shape=[2, 1]), "ARRAY", "VQ0530"),
    "scales of another shape": (entry_edit("w.scales", shape=[4, 6]), "ARRAY", "VQ0530"),
    "another name": (description_edit(lambda description: description.renamed("w", "v")), "ARRAY", "VQ0530"),
    "a name more": (
        description_edit(lambda description: description.put("w.", description.of("w"))),
        "ARRAY",
        "VQ0530",
    ),
    "tensor twice": (description_edit(lambda old: Pairs([("w", 1), *old])), "DUPLICATE", "VQ0530"),
    "order twice": (
        description_edit(lambda old: old.put("w", Pairs([("order", 1), *old.of("w")]))),
        "DUPLICATE",
        "VQ0530",
    ),
    "no algorithm": (tensor_edit(identified=False, algorithm=None), "DESCRIPTION", "VQ0530"),
    "no layout": (tensor_edit(identified=False, layout=None), "DESCRIPTION", "VQ0530"),
    "no shape of the weight": (tensor_edit(identified=False, shape=None), "DESCRIPTION", "VQ0530"),
    "shape of another weight": (tensor_edit(identified=False, shape=[6, 104]), "IDENTITY", "VQ0530"),
    "another algorithm": (
        tensor_edit(identified=False, algorithm=field("scales", "none")),
        "IDENTITY",
        "VQ0530",
    ),
    "another layout": (tensor_edit(identified=False, layout=field("lanes", 16)), "IDENTITY", "VQ0530"),
    "two fields in a key, with the marks between them": (
        tensor_edit(identified=False, layout=joined("lanes", "residuals")),
        "IDENTITY",
        "VQ0530",
    ),
}
WRONG |= {
    f"no {part}": (header_edit(lambda header, part=part: header.renamed(f"w.{part}", "x")), "ARRAY", "VQ0530")
    for part in ARRAYS
}
WRONG |= {
    f"{part} of another type": (entry_edit(f"w.{part}", dtype=dtype), "ARRAY", "VQ0530")
    for part, dtype in zip(ARRAYS, ("F32", "I8", "U32", "BF16"), strict=True)
}

#: What only the C reader refuses: what neither vqcc nor the safetensors library writes.
STRICTER: dict[str, tuple[Edit, str, str]] = {
    "space before the header": (header_edit(lambda header: " " + written(header)), "JSON", "white space"),
    "line behind the header": (behind("\n"), "JSON", "white space"),
    "tab and spaces behind the header": (behind("\t  "), "JSON", "white space"),
    "no number": (entry_edit(CODES, note=Raw("NaN")), "JSON", "constant"),
    "infinite": (entry_edit(CODES, note=[Raw("Infinity")]), "JSON", "constant"),
    "infinite below zero": (entry_edit(CODES, note=Raw("-Infinity")), "JSON", "constant"),
    "no number in the description": (tensor_edit(note=Raw("NaN")), "JSON", "constant"),
    "long fraction": (entry_edit(CODES, note=Raw("0." + "1" * MOST_NUMBER)), "JSON", "number"),
    "first half of a pair": (entry_edit(CODES, note=Raw(r'"\ud800\ud800"')), "JSON", "surrogate"),
    "second half of a pair": (entry_edit(CODES, note=Raw(r'"\udc00"')), "JSON", "surrogate"),
    "second halves of pairs": (entry_edit(CODES, note=Raw(r'"\udc00\udc00"')), "JSON", "surrogate"),
    "first half of a pair and more": (entry_edit(CODES, note=Raw(r'"\ud800\u0041"')), "JSON", "surrogate"),
    "half a pair in a key": (tensor_edit(**{"\ud800": 1}), "JSON", "surrogate"),
    "nested": (entry_edit(CODES, note=deep(MOST_NESTING - 1)), "NESTING", "nesting"),
    "description nested": (tensor_edit(note=deep(MOST_NESTING - 1)), "NESTING", "nesting"),
    "minus zero": (entry_edit("w.stage_scales", data_offsets=[Raw("-0"), 8]), "ENTRY", "minus zero"),
    "empty array": (also("x", entry("U8", [0], 8, 8)), "PLACES", "empty"),
    "empty array at the end": (also("x", entry("U8", [2, 0], 352, 352)), "PLACES", "empty"),
    "layout turned": (
        tensor_edit(identified=False, layout=lambda layout: Pairs(reversed(layout))),
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


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_as_by_python(
    case: str, reader: WeightsReader, good: bytes, scratch: Path
) -> None:
    edit, status, code = WRONG[case]
    data = edit(good)
    answer = reader.check(data)
    assert (answer.status, python_refusal(scratch, data, library_of())) == (status, {code})
    assert answer.where <= len(data)
    assert not answer.found


@pytest.mark.parametrize("case", STRICTER)
def test_what_only_the_c_reader_refuses(case: str, reader: WeightsReader, good: bytes, scratch: Path) -> None:
    edit, status, reason = STRICTER[case]
    data = edit(good)
    assert python_refusal(scratch, data, library_of()) == set()
    assert (reader.check(data).status, stricter(data, identity)) == (status, {reason})


def test_a_description_nested_without_end(reader: WeightsReader, good: bytes, scratch: Path) -> None:
    data = description_edit(lambda _: '{"w":' + "[" * 100_000)(good)
    assert reader.check(data).status == "NESTING"
    assert python_refusal(scratch, data, library_of())


@pytest.mark.parametrize(
    "edit",
    [
        behind("   "),
        header_edit(lambda header: Pairs(reversed(header))),
        lambda data: also("note", entry("F16", [], 352, 354))(data + b"\0\0"),
        lambda data: also("note", entry("BOOL", [1] * 32, 352, 353))(data + b"\0"),
        entry_edit(CODES, note=[{}, [], None, True, False, -0.5e-7, "𝄞", Raw("-0")]),
        entry_edit(CODES, note=deep(MOST_NESTING - 2)),
        entry_edit(CODES, note=Raw("1" * MOST_NUMBER)),
        entry_edit(CODES, dtype=Raw(escaped("U32"))),
        description_edit(lambda _: Pairs()),
        tensor_edit(note=deep(MOST_NESTING - 2)),
        tensor_edit(order="frequency"),
        description_edit(lambda old: old.put("w", Pairs(reversed(old.of("w"))))),
    ],
)
def test_what_both_readers_accept(edit: Edit, reader: WeightsReader, good: bytes, scratch: Path) -> None:
    data = edit(good)
    assert python_refusal(scratch, data, library_of()) == set()
    assert stricter(data, identity) == set()
    assert reader.accepts(data, library_of())


def words_of(data: bytes) -> tuple[int, np.ndarray]:
    """Where the codes of `w` are in a file, and their words."""
    header, _, body = split(data)
    begin, end = header.of(CODES).of("data_offsets")
    start = len(data) - len(body) + begin
    return start, np.frombuffer(data[start : start + end - begin], np.uint32).copy()


@pytest.mark.parametrize("case", ["bucket", "bucket, panels"])
def test_codes_in_buckets_that_would_lead_kernels_astray(
    case: str, reader: WeightsReader, scratch: Path
) -> None:
    library = library_of(case)
    layout, n = library.layout, library.op.weight_shape[0]
    assert isinstance(layout, BucketLayout)
    data = packed_file(scratch, library)
    start, words = words_of(data)
    units, rows, first = layout.units(n), layout.row_offset(n), layout.chunk_offset(n)
    last_panel = first + 96 * int(words[units - units // layout.panels])
    length = layout.vectors - (layout.panels - 1) * layout.panel_vectors
    slot, past = int(words[last_panel]) & 0xFF001FFF, int(words[first]) & 0xFF001FFF
    changes = {
        0: 1,
        units // 2: 2**31,
        units: int(words[units]) - 1,
        rows: int(words[rows]) ^ 0x100,
        first - 1: int(words[first - 1]) ^ 1 << 31,
        first: past | layout.panel_vectors + 1 << 13,
        first + 32: int(words[first + 32]) | 0xFFFF,
        first + 64: int(words[first + 64]) | 0xFF,
        len(words) - 1: 0xFFFFFFFF,
        last_panel: slot | length << 13 if layout.panels > 1 else slot | 2047 << 13,
    }
    wrong = []
    for place, value in changes.items():
        changed_words = words.copy()
        changed_words[place] = value
        wrong.append(data[:start] + changed_words.tobytes() + data[start + 4 * len(words) :])
    for shorter in (units, first - 1, len(words) - 1):  # words behind them belong to another array
        gap = start - (len(data) - len(split(data)[2]))
        kept, end = gap + 4 * shorter, gap + 4 * len(words)
        cut = entry_edit(CODES, shape=[shorter], data_offsets=[gap, kept])(data)
        wrong.append(also("rest", entry("U8", [end - kept], kept, end))(cut))
    for file in wrong:
        answer = reader.check(file)
        assert (answer.status, python_refusal(scratch, file, library)) == ("CODES", {"VQ0530"})
    assert reader.accepts(data, library)


@pytest.mark.parametrize("case", ["rotated", "rotated, 12 bits", "fragment", "bucket", "tiles", "one scale"])
def test_forms_of_codes_and_books(case: str, reader: WeightsReader, scratch: Path) -> None:
    """An array with an axis turned, split or joined is of the right size, but not what the layout says."""
    library = library_of(case)
    data = packed_file(scratch, library)
    header, _, _ = split(data)
    for name in (CODES, BOOKS):
        shape = header.of(name).of("shape")
        for other in ([*shape, 1], [1, *shape], [*shape[:-1], shape[-1] // 2, 2], shape[::-1]):
            if other == shape or np.prod(other) != np.prod(shape):
                continue
            file = entry_edit(name, shape=other)(data)
            found = reader.check(file).status, python_refusal(scratch, file, library)
            assert found == ("ARRAY", {"VQ0530"}), other


OTHER_LAYOUTS = [
    ("rotated", "layout", {"code_bits": 10, "panels": 0}),
    ("fragment", "layout", {"span_vectors": 0, "step_vectors": -1, "step_words": "1", "vectors": 2**31}),
    ("bucket", "layout", {"kind": "buckets", "vectors": 0}),
    ("one scale", "algorithm", {"scales": None, "residuals": 9}),
    ("int8, tiles", "algorithm", {"scope": None, "entries": 0, "vector_size": 0}),
]


@pytest.mark.parametrize(("case", "part", "values"), OTHER_LAYOUTS)
def test_descriptions_that_are_not_known(
    case: str, part: str, values: dict[str, Any], reader: WeightsReader, scratch: Path
) -> None:
    library = library_of(case)
    data = packed_file(scratch, library)
    for key, value in values.items():
        file = tensor_edit(**{part: field(key, value)})(data)
        found = reader.check(file).status, python_refusal(scratch, file, library)
        assert found == ("DESCRIPTION", {"VQ0531"}), key


@pytest.mark.parametrize(
    ("key", "value"),
    [("residuals", 9), ("code_bits", 17), ("part_entries", 2**31), ("part_entries", 16385), ("panel_vectors", 0),
     ("vectors", 2**31 - 1), ("panel_vectors", 1), ("part_entries", 1), ("residuals", 8)],
)  # fmt: skip
def test_layouts_of_buckets_that_codes_cannot_be_in(
    key: str, value: int, reader: WeightsReader, scratch: Path
) -> None:
    """However large their numbers: what is computed of them does not overflow to what fits."""
    data = packed_file(scratch, library_of("bucket"))
    assert reader.check(tensor_edit(layout=field(key, value))(data)).status == "CODES"
    assert (
        reader.check(tensor_edit(layout=field(key, value), shape=[2**31 - 1, 1032])(data)).status == "CODES"
    )


def test_units_of_buckets_that_overflow_to_few(reader: WeightsReader, scratch: Path) -> None:
    """A file that is sound but for having 2^64 units more than there are: 383 * 1946388001 * 3093154 is 2^61 + 30."""
    header, _, body = split(packed_file(scratch, library_of("bucket")))
    books = body[slice(*header.of(BOOKS).of("data_offsets"))]
    units = 240
    rows = np.tile(np.arange(256, dtype=np.uint8), units // 8)
    codes = bytes(4 * (units + 4)) + rows.tobytes()
    own = header.put(CODES, entry("U32", [len(codes) // 4], 0, len(codes)))
    own = own.put(BOOKS, entry("U8", [1, len(books)], len(codes), len(codes) + len(books)))
    layout = {"code_bits": 16, "part_entries": 171, "residuals": 1, "panel_vectors": 1, "vectors": 1946388001}
    shape = [256 * 3093154, 1032]
    edit = tensor_edit(layout=lambda old: changed(old, layout), shape=shape)
    assert reader.check(edit(join(own, codes + books))).status == "CODES"
    few = {"code_bits": 1, "part_entries": 1, "residuals": 5, "panel_vectors": 1, "vectors": 3}
    sound = tensor_edit(layout=lambda old: changed(old, few), shape=[256, 1032])
    assert reader.check(sound(join(own, codes + books))).status == "OK"


def test_files_that_cannot_be_read(reader: WeightsReader, tmp_path: Path) -> None:
    assert reader.open(tmp_path / "missing").status == "FILE"
    assert reader.open(tmp_path).status == reader.open(Path("/dev/null")).status == "FILE"
    (tmp_path / "empty").touch()
    assert reader.open(tmp_path / "empty").status == "TRUNCATED"
    (tmp_path / "text").write_text("no tensors")
    assert reader.open(tmp_path / "text").status == "TRUNCATED"


@pytest.mark.parametrize(("length", "status"), [(100_000_000, "JSON"), (100_000_001, "HEADER_BYTES")])
def test_a_header_longer_than_the_format_allows(
    length: int, status: str, reader: WeightsReader, tmp_path: Path
) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(8 + length)
    assert reader.open(path).status == status


def test_books_are_no_weights(reader: WeightsReader, good_books: bytes) -> None:
    assert reader.check(good_books).status == "KIND"


def test_where_it_was_found(reader: WeightsReader, good: bytes) -> None:
    """The byte of the file at which a reader of the message should look."""
    codes = good.index(b'"w.codes"')
    for edit, place in (
        (text_edit("[6,7]", "[6 7]"), codes + len('"w.codes":{"dtype":"U32","shape":[6 ')),
        (text_edit('"w.codes"', '"w.codes" 7'), codes + len('"w.codes" ')),
        (text_edit("[6,7]", "[6,8]"), codes + len('"w.codes":')),
        (text_edit('"w.codes"', '"w.books"'), good.index(b'"w.books"') + 1),
        (text_edit("identity", "alphabet"), good.index(rb"w\":{") + len(rb"w\":")),
        (lambda data: data[:50], 50),
    ):
        answer = reader.check(edit(good))
        assert answer.where == place, (answer, edit(good)[answer.where :][:40])


def test_every_status_is_met() -> None:
    met = {status for _, status, _ in (*WRONG.values(), *STRICTER.values())}
    met |= {"OK", "NULL_POINTER", "FILE", "HEADER_BYTES", "CODES", "NAME", "LAYOUT", "BYTES", "KIND"}
    assert met == set(WeightsReader.all_statuses().values())


def test_every_type_of_the_format_is_known(reader: WeightsReader, good: bytes) -> None:
    for dtype, (_, size) in DTYPES.items():
        data = also("x", entry(dtype, [3], 352, 352 + 3 * size))(good + bytes(3 * size))
        assert reader.accepts(data, library_of())
        assert reader.check(entry_edit("x", shape=[2])(data)).status == "EXTENT"


@pytest.mark.parametrize(
    ("case", "examples"),
    [
        ("int8", 200),
        ("tiles", 100),
        ("bucket, panels", 50),
        pytest.param("int8", 2000, marks=pytest.mark.full),
        pytest.param("tiles", 500, marks=pytest.mark.full),
    ],
)
def test_both_readers_agree_on_damaged_files(
    case: str, examples: int, reader: WeightsReader, scratch: Path
) -> None:
    """The C reader accepts what the Python reader accepts, but for what `stricter` finds, and nothing else."""
    library = library_of(case)
    seen = compare_on_damaged(
        packed_file(scratch, library, "w", 'v"\\ü'),
        examples,
        identity,
        lambda file: python_refusal(scratch, file, library),
        lambda file: reader.accepts(file, library),
    )
    assert seen["python"] > examples / 4
    assert seen["neither"] > examples / 40
    assert seen["stricter"] > 0 or examples < 200


@pytest.mark.parametrize("case", ["int8", "fragment, tiles"])
def test_nothing_is_read_past_a_file(case: str, reader: WeightsReader, scratch: Path) -> None:
    """Files damaged in every way, each in memory of just its size, under sanitizers; most of them are refused."""
    path = scratch / "fuzzed.safetensors"
    path.write_bytes(packed_file(scratch, library_of(case), "w", 'ä"'))
    assert_nothing_read_past(reader.program, path, 60_000)
