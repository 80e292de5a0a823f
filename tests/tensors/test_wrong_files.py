"""Damaged and malicious tensor files: each is refused with a diagnostic of its own, never a traceback."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.algorithms import presets
from vqcc.diagnostics import VqccError
from vqcc.tensors import container

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Header = dict[str, Any]


def good_bytes(directory: Path, preset: str = "vq-4-4-2") -> bytes:
    path = directory / "good.safetensors"
    tensor = presets.resolve(preset).random_tensor(np.random.default_rng(0), "w", 8, 32)
    container.save(path, [tensor])
    return path.read_bytes()


def split(data: bytes) -> tuple[Header, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def refusals(directory: Path, data: bytes, name: str | None = None) -> list[tuple[str, str]]:
    path = directory / "wrong.safetensors"
    path.write_bytes(data)
    with pytest.raises(VqccError) as caught:
        container.load(path, name)
    assert caught.value.exit_code == 1
    assert all(str(path) in item.message for item in caught.value.diagnostics)
    return [(item.code, f"{item.message} | {item.help}") for item in caught.value.diagnostics]


FILES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "empty": (lambda _: b"", "VQ0502", "is empty"),
    "shorter than a length": (lambda data: data[:5], "VQ0502", "has 5 bytes"),
    "truncated header": (lambda data: data[:40], "VQ0503", "but 32 follow"),
    "no safetensors at all": (
        lambda _: b"not a tensor file, but text of some length",
        "VQ0503",
        "not a safetensors",
    ),
    "bad JSON": (lambda _: join(b"{'w': 1}", b""), "VQ0504", "not JSON"),
    "not UTF-8": (lambda _: join(b'{"\xff": 1}', b""), "VQ0504", "not JSON"),
    "header of no object": (lambda _: join([1], b""), "VQ0504", "not an object"),
    "header too deep": (lambda _: join(b"[" * 200_000, b""), "VQ0504", "not JSON"),
    "key twice": (lambda _: join(b'{"a": 1, "a": 2}', b""), "VQ0504", "'a' stands twice"),
    "number too long": (lambda _: join(b'{"a": ' + b"9" * 5000 + b"}", b""), "VQ0504", "not JSON"),
    "truncated data": (lambda data: data[:-1], "VQ0507", "the file is truncated"),
    "trailing bytes": (lambda data: data + b"\0", "VQ0509", "belong to no tensor"),
}

ENTRIES: dict[str, tuple[Callable[[Header], Header], str, str]] = {
    "entry of no object": (lambda h: h | {"w.codes": 7}, "VQ0505", "'w.codes'"),
    "no offsets": (lambda h: h | {"w.codes": {"dtype": "U8", "shape": [1]}}, "VQ0505", "data_offsets"),
    "negative offset": (lambda h: edit(h, "w.codes", data_offsets=[-1, 3]), "VQ0505", "'w.codes'"),
    "boolean shape": (lambda h: edit(h, "w.codes", shape=[True]), "VQ0505", "'w.codes'"),
    "enormous shape": (lambda h: edit(h, "w.codes", shape=[10**30]), "VQ0505", "'w.codes'"),
    "too many axes": (lambda h: edit(h, "w.codes", shape=[1] * 100), "VQ0505", "32 axes"),
    "metadata of numbers": (lambda h: h | {"__metadata__": {"a": 1}}, "VQ0505", "object of strings"),
    "unknown type": (lambda h: edit(h, "w.codes", dtype="F12"), "VQ0506", "'F12'"),
    "offsets past the end": (lambda h: edit(h, "w.codes", shift=10_000), "VQ0507", "ends at byte"),
    "overlapping": (lambda h: edit(h, "w.codes", shift=-16), "VQ0508", "share bytes"),
    "hole": (lambda h: edit(h, "w.codes", shape=[2, 8, 7], shorten=16), "VQ0509", "belong to no tensor"),
    "shape and size": (lambda h: edit(h, "w.codes", shape=[2, 8, 9]), "VQ0510", "needs 144 bytes"),
    "sizes that overflow": (lambda h: edit(h, "w.codes", shape=[2**62, 2**62]), "VQ0510", "'w.codes'"),
    "reversed offsets": (lambda h: edit(h, "w.codes", reverse=True), "VQ0510", "'w.codes'"),
    "no metadata": (lambda h: without(h, "__metadata__"), "VQ0511", "vqcc quantize"),
    "metadata of another program": (
        lambda h: h | {"__metadata__": {"format": "pt"}},
        "VQ0511",
        "vqcc.algorithm",
    ),
    "metadata no JSON": (lambda h: h | {"__metadata__": {"vqcc.algorithm": "{"}}, "VQ0512", "not JSON"),
    "metadata a list": (lambda h: h | {"__metadata__": {"vqcc.algorithm": "[1]"}}, "VQ0512", "an object"),
    "metadata empty": (lambda h: h | {"__metadata__": {"vqcc.algorithm": "{}"}}, "VQ0512", "an object"),
    "no shape": (lambda h: describe(h, shape=None), "VQ0512", "two positive integers"),
    "shape of zero": (lambda h: describe(h, shape=[0, 32]), "VQ0512", "two positive integers"),
    "shape too large": (lambda h: describe(h, shape=[10**400, 32]), "VQ0512", "two positive integers"),
    "unknown original type": (lambda h: describe(h, dtype="float8"), "VQ0512", "dtype must be"),
    "relative error text": (lambda h: describe(h, relative_error="low"), "VQ0512", "relative_error"),
    "relative error NaN": (lambda h: describe(h, relative_error=float("nan")), "VQ0512", "relative_error"),
    "no algorithm": (lambda h: describe(h, algorithm=None), "VQ0512", "no algorithm"),
    "unknown family": (
        lambda h: describe(h, algorithm={"family": "mant"}),
        "VQ0513",
        "use kmeans or e8p",
    ),
    "misspelt family": (
        lambda h: change(h, family="kmean"),
        "VQ0513",
        "algorithm.family cannot be 'kmean' | did you mean 'kmeans'?",
    ),
    "no family": (lambda h: describe(h, algorithm={"entries": 16}), "VQ0513", "lacks the field family"),
    "misspelt field": (
        lambda h: change(h, vectorsize=4),
        "VQ0513",
        "metadata of VQ tensor 'w': algorithm has no field 'vectorsize' | did you mean 'vector_size'?",
    ),
    "text for a number": (
        lambda h: change(h, vector_size="four"),
        "VQ0513",
        "algorithm.vector_size must be an integer, got the text 'four'",
    ),
    "preset as algorithm": (
        lambda h: describe(h, algorithm="vq-4-4-2"),
        "VQ0512",
        "the algorithm is 'vq-4-4-2', not a mapping | a file has no presets, write it out: "
        '{"algorithm": {"family": "kmeans", "vector_size": 4, "entries": 16, "residuals": 2,',
    ),
    "misspelt preset as algorithm": (
        lambda h: describe(h, algorithm="aqlm-2x9"),
        "VQ0512",
        "did you mean 'aqlm-2x8'?",
    ),
    "codes of another name": (
        lambda h: rename(h, "w.codes", "v.codes"),
        "VQ0517",
        "the file has the codes of v: its metadata must name them so",
    ),
    "unknown field": (lambda h: change(h, colour="red"), "VQ0513", "algorithm has no field 'colour'"),
    "entries no power of two": (lambda h: change(h, entries=17), "VQ0513", "use 16 or 32"),
    "missing codes": (lambda h: rename(h, "w.codes", "w.kodes"), "VQ0517", "no w.codes"),
    "missing codebooks": (lambda h: rename(h, "w.codebooks", "x"), "VQ0517", "float16 [1, 2, 16, 4]"),
    "missing scales": (lambda h: rename(h, "w.scales", "x"), "VQ0517", "float32 or float16 [8]"),
    "part not used": (lambda h: change(h, scales="none"), "VQ0518", "has scales"),
    "wrong type of codes": (lambda h: edit(h, "w.codes", dtype="I8"), "VQ0519", "is int8"),
    "wrong type of codebooks": (lambda h: edit(h, "w.codebooks", dtype="BF16"), "VQ0519", "expected float16"),
    "wrong shape of codes": (lambda h: edit(h, "w.codes", shape=[2, 4, 16]), "VQ0520", "expected [2, 8, 8]"),
    "metadata of another shape": (lambda h: describe(h, shape=[8, 64]), "VQ0520", "expected [2, 8, 16]"),
    "k no multiple": (lambda h: describe(h, shape=[8, 31]), "VQ0303", "use 28 or 32"),
    "group no multiple": (lambda h: change(h, scales={"group": 6}), "VQ0309", "use 4 or 8"),
}


def edit(
    header: Header, name: str, *, shift: int = 0, shorten: int = 0, reverse: bool = False, **fields: Any
) -> Header:
    entry = header[name] | fields
    if "data_offsets" not in fields:
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = [begin + shift, end + shift - shorten]
        if reverse:
            entry["data_offsets"].reverse()
    return header | {name: entry}


def rename(header: Header, old: str, new: str) -> Header:
    return without(header, old) | {new: header[old]}


def without(header: Header, key: str) -> Header:
    return {name: value for name, value in header.items() if name != key}


def describe(header: Header, **fields: Any) -> Header:
    described = json.loads(header["__metadata__"]["vqcc.algorithm"])
    described["w"] |= fields
    return header | {"__metadata__": {"vqcc.algorithm": json.dumps(described)}}


def change(header: Header, **fields: Any) -> Header:
    algorithm = json.loads(header["__metadata__"]["vqcc.algorithm"])["w"]["algorithm"]
    return describe(header, algorithm=algorithm | fields)


@pytest.mark.parametrize("case", FILES)
def test_wrong_file(tmp_path: Path, case: str) -> None:
    damage, code, text = FILES[case]
    ((found, message),) = refusals(tmp_path, damage(good_bytes(tmp_path)))
    assert found == code
    assert text in message


@pytest.mark.parametrize(
    "case",
    [case for case, (_, code, _) in ENTRIES.items() if code in {"VQ0511", "VQ0512", "VQ0513", "VQ0517"}],
)
def test_wrong_metadata_is_told_with_help(tmp_path: Path, case: str) -> None:
    header, body = split(good_bytes(tmp_path))
    for code, message in refusals(tmp_path, join(ENTRIES[case][0](header), body)):
        # Of a value of the wrong type the message says all, as it does of a spec's.
        assert not message.endswith("| None") or code == "VQ0513", message


@pytest.mark.parametrize("case", ENTRIES)
def test_wrong_header(tmp_path: Path, case: str) -> None:
    damage, code, text = ENTRIES[case]
    header, body = split(good_bytes(tmp_path))
    found = refusals(tmp_path, join(damage(header), body))
    assert any(item == code and text in message for item, message in found), found


def test_the_cases_cover_every_code_of_a_wrong_file() -> None:
    codes = {code for _, code, _ in (*FILES.values(), *ENTRIES.values())}
    assert len(codes - {"VQ0303", "VQ0309"}) >= 15


def test_all_malformed_entries_are_reported(tmp_path: Path) -> None:
    header, body = split(good_bytes(tmp_path))
    data = join(
        header | {"w.codes": 1, "w.scales": {"dtype": "X", "shape": [], "data_offsets": [0, 0]}}, body
    )
    assert [code for code, _ in refusals(tmp_path, data)] == ["VQ0505", "VQ0506"]


@pytest.mark.parametrize(
    ("part", "place", "value", "code", "text"),
    [
        ("w.codes", (1, 2, 3), 200, "VQ0521", "w.codes[1, 2, 3] is 200, but there are 16 entries"),
        ("w.codebooks", (0, 0, 5, 1), np.nan, "VQ0522", "w.codebooks[0, 0, 5, 1] is nan"),
        ("w.scales", (7,), np.inf, "VQ0523", "w.scales[7] is inf"),
    ],
)
def test_wrong_value(
    tmp_path: Path, part: str, place: tuple[int, ...], value: float, code: str, text: str
) -> None:
    header, body = split(good_bytes(tmp_path))
    begin, end = header[part]["data_offsets"]
    dtype = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}[header[part]["dtype"]]
    array = np.frombuffer(body[begin:end], dtype).reshape(header[part]["shape"]).copy()
    array[place] = value
    ((found, message),) = refusals(tmp_path, join(header, body[:begin] + array.tobytes() + body[end:]))
    assert found == code
    assert text in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        container.load(tmp_path / "missing.safetensors")
    assert caught.value.diagnostics[0].code == "VQ0501"
    assert caught.value.diagnostics[0].help


def test_a_header_longer_than_the_format_allows(tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    length = 100_000_001
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(8 + length)
    with pytest.raises(VqccError) as caught:
        container.load(path)
    assert caught.value.diagnostics[0].code == "VQ0516"


def test_load_all_reports_what_is_wrong_with_every_tensor(tmp_path: Path) -> None:
    path = tmp_path / "two.safetensors"
    algorithm = presets.resolve("vq-4-4-2")
    tensors = [algorithm.random_tensor(np.random.default_rng(0), name, 8, 32) for name in "ab"]
    container.save(path, tensors)
    header, body = split(path.read_bytes())
    path.write_bytes(join(rename(rename(header, "a.codes", "x"), "b.scales", "y"), body))
    with pytest.raises(VqccError) as caught:
        container.load_all(path)
    assert [item.message.split(" has no ")[1].split(",")[0] for item in caught.value.diagnostics] == [
        "a.codes",
        "scales",
    ]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    directory = tmp_path_factory.mktemp("mutated")
    return directory / "mutated.safetensors", good_bytes(directory)


@given(st.data())
def test_mutated_files_never_cause_a_traceback(good: tuple[Path, bytes], data: st.DataObject) -> None:
    path, original = good
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    path.write_bytes(
        changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed
    )
    with suppress(VqccError):
        container.load(path)
