"""The guarded YAML reader: what it refuses, what values mean, and where they stand."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.diagnostics import CODES, VqccError
from vqcc.spec.events import MAX_DEPTH, MAX_DIAGNOSTICS, MAX_NODES
from vqcc.spec.source import MAX_BYTES, parse_source, read_source


@pytest.fixture(params=["C", "Python"])
def parser(request, monkeypatch):
    """Both of PyYAML's parsers: the wheel has the C one, a build from source may not."""
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.fail("PyYAML's wheel has the C parser")
    return request.param


def problems(data):
    with pytest.raises(VqccError) as caught:
        parse_source(data, "s.yaml")
    return [(item.code, item.span.line, item.span.column) for item in caught.value.diagnostics]


def spans(data):
    source = parse_source(data, "s.yaml")
    return {path: (span.line, span.column, span.end_column) for path, span in source.values.items()}


def test_values_and_spans(parser):
    data = b"a: 1\nb:\n  - x\n  - {c: [2, yes]}\nd:\n  e: f\n"
    source = parse_source(data, "s.yaml")
    assert source.data == {"a": 1, "b": ["x", {"c": [2, "yes"]}], "d": {"e": "f"}}
    assert spans(data) == {
        (): (1, 1, None),
        ("a",): (1, 4, 5),
        ("b",): (3, 3, None),
        ("b", 0): (3, 5, 6),
        ("b", 1): (4, 5, 18),
        ("b", 1, "c"): (4, 9, 17),
        ("b", 1, "c", 0): (4, 10, 11),
        ("b", 1, "c", 1): (4, 13, 16),
        ("d",): (6, 3, None),
        ("d", "e"): (6, 6, 7),
    }
    assert (source.key_span(("b", 1, "c")).line, source.key_span(("b", 1, "c")).column) == (4, 6)


def test_spans_of_what_is_not_there():
    source = parse_source(b"a: {b: 1}", "s.yaml")
    assert source.span(("a", "x", 3)) == source.span(("a",))
    assert source.span(("x",)) == source.span(())
    assert source.key_span(("a", "x")) == source.span(("a",))
    assert source.key_span(("x",)) == source.span(())


REFUSED = {
    "nothing": (b"", [("VQ0113", 1, 1)]),
    "comment": (b"# a\n", [("VQ0113", 1, 1)]),
    "null": (b"~", [("VQ0113", 1, 1)]),
    "marker only": (b"---\n", [("VQ0113", 1, 1)]),
    "not utf-8": (b"a: b\nc: \xff", [("VQ0103", 2, 4)]),
    "cut utf-8": ("a: é".encode()[:-1], [("VQ0103", 1, 4)]),
    "utf-16": ("\ufeffa: b".encode("utf-16-le"), [("VQ0103", 1, 1)]),
    "surrogate": (b"a: \xed\xa0\x80", [("VQ0103", 1, 4)]),
    "nul": (b"a: b\0", [("VQ0104", 1, 5)]),
    "bell": (b"a\x07: b", [("VQ0104", 1, 2)]),
    "byte order mark inside": ("a: \ufeffb".encode(), [("VQ0104", 1, 4)]),
    "escaped nul": (b'a: "\\0"', [("VQ0104", 1, 4)]),
    "escaped bell in a key": (b'{"\\a": 1}', [("VQ0104", 1, 2)]),
    "escaped byte order mark": (b'a: "\\uFEFF"', [("VQ0104", 1, 4)]),
    "anchor": (b"a: &x 1", [("VQ0106", 1, 4)]),
    "anchor on a key": (b"&x a: 1", [("VQ0106", 1, 1)]),
    "anchor on a mapping": (b"&x {a: 1}", [("VQ0106", 1, 1)]),
    "alias": (b"a: *x", [("VQ0106", 1, 4)]),
    "alias as a key": (b"*x : 1", [("VQ0106", 1, 1)]),
    "tag": (b"a: !!int 1", [("VQ0107", 1, 4)]),
    "local tag": (b"a: !b 1", [("VQ0107", 1, 4)]),
    "bare tag": (b"a: ! 1", [("VQ0107", 1, 4)]),
    "tag on a list": (b"a: !!set [1]", [("VQ0107", 1, 4)]),
    "version directive": (b"%YAML 1.1\n---\na: 1", [("VQ0107", 1, 1)]),
    "duplicate of a refused key": (b'1: a\n"1": b', [("VQ0114", 1, 1), ("VQ0109", 2, 1)]),
    "duplicate of a merge key": (b'<<: a\n"<<": b', [("VQ0108", 1, 1), ("VQ0109", 2, 1)]),
    "duplicate nul": (
        b'{"\\0": 1, [a]: 2, "\\0": 3}',
        [("VQ0104", 1, 2), ("VQ0114", 1, 11), ("VQ0104", 1, 19), ("VQ0109", 1, 19)],
    ),
    "merge key": (b"<<: {a: 1}", [("VQ0108", 1, 1)]),
    "merge key in flow": (b"{<<: {a: 1}}", [("VQ0108", 1, 2)]),
    "duplicate": (b"a: 1\nb: 2\na: 3\n", [("VQ0109", 3, 1)]),
    "duplicate twice": (b"a: 1\na: 2\na: 3\n", [("VQ0109", 2, 1), ("VQ0109", 3, 1)]),
    "duplicate quoted": (b"a: 1\n'a': 2", [("VQ0109", 2, 1)]),
    "second document": (b"a: 1\n---\nb: 2", [("VQ0112", 2, 1)]),
    "number as a key": (b"1: a", [("VQ0114", 1, 1)]),
    "null as a key": (b"~: a", [("VQ0114", 1, 1)]),
    "true as a key": (b"true: a", [("VQ0114", 1, 1)]),
    "list as a key": (b"? [a]\n: b", [("VQ0114", 1, 3)]),
    "mapping as a key": (b"{{a: b}: c}", [("VQ0114", 1, 2)]),
    "nested keys": (b"{{{a: b}: c}: d}", [("VQ0114", 1, 2)]),
    "unclosed": (b"a: [1\n\n", [("VQ0105", 1, 4)]),
    "unclosed before more": (b"a: [1\nb: 2", [("VQ0105", 2, 2)]),
    "stray bracket": (b"a: ]", [("VQ0105", 1, 4)]),
    "reserved": (b"a: @b", [("VQ0105", 1, 4)]),
    "long number": (b"a: " + b"1" * 401, [("VQ0105", 1, 4)]),
    "several": (
        b"a: &x 1\nb: *x\nb: !t 2\n",
        [("VQ0106", 1, 4), ("VQ0106", 2, 4), ("VQ0109", 3, 1), ("VQ0107", 3, 4)],
    ),
    "guard and syntax": (b"a: &x 1\nb: ]", [("VQ0106", 1, 4), ("VQ0105", 2, 4)]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    data, expected = REFUSED[case]
    assert problems(data) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_the_python_parser(case, monkeypatch):
    """The same refusals; where a syntax error is noticed may differ."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    data, expected = REFUSED[case]
    found = problems(data)
    if not any(code == "VQ0105" for code, _, _ in expected):
        assert found == expected
    else:
        assert [code for code, _, _ in found] == [code for code, _, _ in expected]


@pytest.mark.parametrize("bracket", [b"[", b"{a: ", b"- "])
def test_depth(parser, bracket):
    fits = bracket * MAX_DEPTH
    with pytest.raises(VqccError) as caught:
        parse_source(bracket * (MAX_DEPTH + 1), "s.yaml")
    assert [item.code for item in caught.value.diagnostics][-1] == "VQ0110"
    if bracket == b"- ":
        parse_source(fits + b"1", "s.yaml")


def test_a_hundred_thousand_brackets(parser):
    for bracket in (b"[", b"{", b"? ", b"- "):
        assert all(code in {"VQ0110", "VQ0114"} for code, _, _ in problems(bracket * 100_000))


def test_node_count(parser):
    items = b"- 1\n" * (MAX_NODES - 1)
    assert len(parse_source(items, "s.yaml").data) == MAX_NODES - 1
    assert problems(items + b"- 1\n") == [("VQ0111", MAX_NODES, 3)]


def test_size():
    text = b"a: " + b"x" * (MAX_BYTES - 3)
    assert len(parse_source(text, "s.yaml").data["a"]) == MAX_BYTES - 3
    assert problems(text + b"x") == [("VQ0102", 1, 1)]


def test_guard_stops_at_a_readable_number():
    assert len(problems(b"- *a\n" * 1000)) == MAX_DIAGNOSTICS


def test_a_billion_laughs():
    laughs = b"a: &a [x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 110)
    )
    assert {code for code, _, _ in problems(laughs)} == {"VQ0106"}


def test_a_tab_is_explained():
    with pytest.raises(VqccError) as caught:
        parse_source(b"a:\n\tb: 1\n", "s.yaml")
    assert caught.value.diagnostics[0].help == "YAML indents with spaces, not tabs"


def test_an_unclosed_quote_is_shown_where_it_opens():
    assert problems(b"a: 1\nb: 'c\nd: 2\n") == [("VQ0105", 2, 4)]


def test_a_byte_order_mark_at_the_start_is_fine(parser):
    assert spans(b"\xef\xbb\xbfa: 1")["a",] == (1, 4, 5)


def test_unicode_columns_count_characters(parser):
    assert spans("{größe: 量子, b: 1}".encode())["b",] == (1, 16, 17)


def test_line_breaks_of_windows(parser):
    assert spans(b"a: 1\r\nb: 2\r\n")["b",] == (2, 4, 5)


@pytest.mark.parametrize("name", ["gone.yaml", "directory", "a\0b"])
def test_a_file_that_cannot_be_read(tmp_path, name):
    (tmp_path / "directory").mkdir()
    with pytest.raises(VqccError) as caught:
        read_source(tmp_path / name)
    (item,) = caught.value.diagnostics
    assert (item.code, item.span) == ("VQ0101", None)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_file_is_read_up_to_the_limit(tmp_path, extra):
    file = tmp_path / "s.yaml"
    file.write_bytes(b"a: " + b"x" * (MAX_BYTES - 3 + extra))
    if extra:
        with pytest.raises(VqccError):
            read_source(file)
    else:
        assert read_source(file).path == str(file)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.binary(max_size=200) | st.text("ab:{}[]-?&*!|>'\"%@#,<\n \t1~", max_size=60).map(str.encode))
def test_any_bytes_give_data_or_diagnostics(data):
    found = outcome(data)
    if isinstance(found, tuple):
        assert all(item.code in CODES and item.span is not None for item in found)
    else:
        assert all(span.line >= 1 and span.column >= 1 for span in found.values.values())


def outcome(data):
    """The source, or the diagnostics."""
    try:
        return parse_source(data, "s.yaml")
    except VqccError as error:
        return error.diagnostics


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc xyz-", max_size=8) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
).filter(lambda data: data is not None)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(PLAIN)
def test_what_json_writes_is_read_back(data):
    import json

    assert parse_source(json.dumps(data).replace("Infinity", ".inf").encode(), "s.json").data == data
