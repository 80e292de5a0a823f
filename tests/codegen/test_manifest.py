from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import vqcc
from vqcc.codegen.manifest import FileRecord, is_file_name, listed_names, make_manifest, parse_manifest, seal
from vqcc.diagnostics import VqccError

FILES = {"b.cu": b"source", "a.h": b""}
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,20}", fullmatch=True).filter(is_file_name)


def test_what_it_holds() -> None:
    document = json.loads(make_manifest({"name": "x", "driver": {"minimum": "580"}}, FILES))
    assert list(document) == ["vqcc", "format", "name", "driver", "files", "sha256"]
    assert document["vqcc"] == vqcc.__version__
    assert list(document["files"]) == ["a.h", "b.cu"]
    assert document["files"]["b.cu"] == {"sha256": hashlib.sha256(b"source").hexdigest(), "bytes": 6}


def test_same_input_same_bytes() -> None:
    turned = dict(reversed(FILES.items()))
    assert make_manifest({"a": 1}, FILES) == make_manifest({"a": 1}, turned)
    assert make_manifest({}, FILES).endswith(b"}\n")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.dictionaries(NAMES, st.binary(max_size=50)))
def test_what_was_made_is_read(files: dict[str, bytes]) -> None:
    document, records = parse_manifest(make_manifest({"a": [1]}, files), "here")
    assert document["a"] == [1]
    assert set(records) == set(files)
    assert all(records[name].matches(data) for name, data in files.items())
    assert listed_names(make_manifest({}, files)) == set(files)


def test_a_record_knows_its_content() -> None:
    record = FileRecord(hashlib.sha256(b"abc").hexdigest(), 3)
    assert record.matches(b"abc")
    assert not record.matches(b"abd")


@pytest.mark.parametrize("key", ["vqcc", "format", "files", "sha256"])
def test_its_own_keys_are_its_own(key: str) -> None:
    with pytest.raises(ValueError, match=f"the manifest sets {key} itself"):
        make_manifest({key: 1}, {})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".x",
        "a/b/c",
        "a/",
        "a/.b",
        "a/..",
        "/a",
        "../a",
        "a\\b",
        "-x",
        "a b",
        "a\n",
        "ä",
        "a\0",
        "x" * 256,
        "manifest.json",
    ],
)
def test_names_that_leave_the_directory_or_hide_in_it(name: str) -> None:
    with pytest.raises(VqccError) as caught:
        make_manifest({}, {name: b"", "good": b""})
    assert caught.value.diagnostics[0].code == "VQ0707"
    assert repr(name) in caught.value.diagnostics[0].message
    assert "good" not in caught.value.diagnostics[0].message


def altered(**changes: Any) -> bytes:
    document = json.loads(make_manifest({}, FILES)) | changes
    return json.dumps(seal({key: value for key, value in document.items() if value is not None})).encode()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_a_change_of_any_value_shows(data: st.DataObject) -> None:
    fields = {"name": "x", "gpus": {"h200": {"runs_on": ["sm_90"], "rate": 4.6e12}}, "count": 3}
    document = json.loads(make_manifest(fields, FILES))
    changed = json.loads(json.dumps(document))
    place, key = data.draw(
        st.sampled_from(
            [
                (changed, "vqcc"),
                (changed, "name"),
                (changed, "count"),
                (changed, "sha256"),
                (changed["gpus"]["h200"], "rate"),
                (changed["gpus"]["h200"]["runs_on"], 0),
                (changed["files"]["a.h"], "bytes"),
            ]
        )
    )
    value = data.draw(st.text() | st.integers(0) | st.floats(allow_nan=False) | st.none())
    assume(json.dumps(place[key]) != json.dumps(value))
    assume(key != "vqcc" or isinstance(value, str))
    place[key] = value
    with pytest.raises(VqccError) as caught:
        parse_manifest(json.dumps(changed).encode(), "here")
    assert caught.value.diagnostics[0].code == "VQ0705"


def test_blanks_and_the_order_of_keys_are_free() -> None:
    document = json.loads(make_manifest({"a": 1}, FILES))
    turned = json.dumps(dict(reversed(document.items())), indent=7).encode()
    assert parse_manifest(turned, "here")[0] == document


SHA = "0" * 64


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "VQ0705"),
        (b"\xff", "VQ0705"),
        (b"[" * 100_000, "VQ0705"),
        (make_manifest({}, FILES)[:-5], "VQ0705"),
        (b"[]", "VQ0704"),
        (b"{}", "VQ0704"),
        (altered(vqcc=None), "VQ0704"),
        (altered(vqcc=1), "VQ0704"),
        (altered(format=None), "VQ0706"),
        (altered(format=1), "VQ0706"),
        (altered(files=None), "VQ0705"),
        (altered(files=["a"]), "VQ0705"),
        (altered(files={"a": None}), "VQ0705"),
        (altered(files={"a": {"bytes": 1}}), "VQ0705"),
        (altered(files={"a": {"sha256": SHA}}), "VQ0705"),
        (altered(files={"a": {"sha256": SHA.upper() + "G", "bytes": 1}}), "VQ0705"),
        (altered(files={"a": {"sha256": SHA, "bytes": -1}}), "VQ0705"),
        (altered(files={"a": {"sha256": SHA, "bytes": True}}), "VQ0705"),
        (altered(files={"../a": {"sha256": SHA, "bytes": 1}}), "VQ0705"),
        (altered(files={"manifest.json": {"sha256": SHA, "bytes": 1}}), "VQ0705"),
    ],
)
def test_what_is_no_manifest(data: bytes, code: str) -> None:
    with pytest.raises(VqccError) as caught:
        parse_manifest(data, "out/here")
    assert caught.value.diagnostics[0].code == code
    assert "out/here" in caught.value.diagnostics[0].message


def test_names_are_listed_whatever_the_format() -> None:
    assert listed_names(altered(format=99)) == set(FILES)
    assert listed_names(altered(files={"../a": {}, "b": {}})) == {"b"}
    for data in (b"", b"[]", b"[" * 100_000, altered(vqcc=None), altered(files=None), altered(files=3)):
        assert listed_names(data) == frozenset()
