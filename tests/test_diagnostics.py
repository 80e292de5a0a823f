"""Codes, spans, the exception that carries diagnostics, and their rendering."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.diagnostics import (
    CODES,
    Diagnostic,
    DiagnosticList,
    ExitCode,
    Span,
    VqccError,
    did_you_mean,
    field_error,
    render_json,
    render_text,
)
from vqcc.diagnostics.reasons import REASONS


def write(tmp_path, text, name="spec.yaml"):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", newline="")
    return str(file)


def test_codes_have_the_form_and_titles():
    for code, title in CODES.items():
        assert re.fullmatch("VQ0[1-9][0-9][0-9]", code)
        assert title == title.strip()
        assert not title.endswith(".")
        assert len(title) < 70
    assert len(set(CODES.values())) == len(CODES)


def test_every_code_has_a_cause_and_a_remedy():
    assert list(REASONS) == list(CODES)
    for code, reason in REASONS.items():
        for text in reason:
            assert 15 < len(text) <= 200, code
            assert text.isascii()
            assert text.isprintable()
            assert "|" not in text, f"{code}: docs/diagnostics.md has it in a table"
            assert text == " ".join(text.split()), code
        assert reason.cause.endswith("."), code
        assert reason.help.endswith(".") or reason.help.startswith("pip install "), code


def test_codes_of_an_area_are_in_order():
    assert list(CODES) == sorted(CODES)


def test_an_unknown_code_is_a_bug():
    with pytest.raises(ValueError, match="VQ9999"):
        Diagnostic("VQ9999", "no such code")
    with pytest.raises(ValueError, match="VQ9999"):
        field_error("VQ9999", "no such code")


def test_exit_codes_are_stable():
    assert [(code.name, int(code)) for code in ExitCode] == [
        ("OK", 0),
        ("INPUT", 1),
        ("USAGE", 2),
        ("TOOLCHAIN", 3),
        ("MISMATCH", 4),
        ("NO_DEVICE", 5),
        ("INTERNAL", 70),
    ]


def test_error_says_everything_and_survives_pickling():
    first = Diagnostic("VQ0201", "no field 'a'", Span("s.yaml", 2, 3))
    error = VqccError(first, Diagnostic("VQ0601", "no compiler"), exit_code=ExitCode.TOOLCHAIN)
    assert str(error) == "s.yaml:2:3: error[VQ0201]: no field 'a'\nerror[VQ0601]: no compiler"
    again = pickle.loads(pickle.dumps(error))
    assert again.diagnostics == error.diagnostics
    assert again.exit_code is ExitCode.TOOLCHAIN


def test_an_error_needs_a_diagnostic():
    with pytest.raises(ValueError, match="at least one"):
        VqccError()


def test_list_collects_and_raises_all_at_once():
    found = DiagnosticList()
    found.raise_if_errors()
    found.add(Diagnostic("VQ0201", "careful", severity="warning"))
    found.raise_if_errors()
    found.error("VQ0202", "one", span=Span("b", 9, 1), help="do this", label="here")
    found.error("VQ0202", "one", span=Span("b", 9, 1), help="do this", label="here")
    found.error("VQ0203", "two", span=Span("b", 2, 7))
    assert len(found) == 3
    with pytest.raises(VqccError) as caught:
        found.raise_if_errors(ExitCode.MISMATCH)
    assert [item.message for item in caught.value.diagnostics] == ["careful", "one", "two"]
    assert caught.value.exit_code is ExitCode.MISMATCH
    assert [item.message for item in found.in_file_order()] == ["two", "one", "careful"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("aqlm3", "did you mean 'aqlm-3'?"),
        ("AQLM-3", "did you mean 'aqlm-3'?"),
        ("H20", "did you mean 'h200'?"),
        ("nothing-like-it", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_did_you_mean(word, expected):
    assert did_you_mean(word, ["aqlm-3", "gptvq-2", "h200"]) == expected


def test_text_of_a_value_in_a_line(tmp_path):
    path = write(tmp_path, "vqcc: 1\nalgorithm: {entries: 300}\n")
    item = Diagnostic(
        "VQ0205",
        "entries must be a power of two, got 300",
        Span(path, 2, 22, 25),
        help="use 256 or 512",
        label="not a power of two",
    )
    assert render_text([item], color=False) == (
        "error[VQ0205]: entries must be a power of two, got 300\n"
        f" --> {path}:2:22\n"
        "  |\n"
        "2 | algorithm: {entries: 300}\n"
        "  |                      ^^^ not a power of two\n"
        "  = help: use 256 or 512\n"
    )


def test_text_of_several_is_separated_by_blank_lines():
    items = [Diagnostic("VQ0601", "one"), Diagnostic("VQ0602", "two", help="a\nb", severity="warning")]
    assert render_text(items, color=False) == (
        "error[VQ0601]: one\n\nwarning[VQ0602]: two\n = help: a\n         b\n"
    )
    assert render_text([], color=False) == ""


def test_the_gutter_is_as_wide_as_the_line_number(tmp_path):
    path = write(tmp_path, "\n" * 99 + "levl: gc\n")
    text = render_text([Diagnostic("VQ0201", "no", Span(path, 100, 1, 5), help="h")], color=False)
    assert text.splitlines()[1:] == [
        f"   --> {path}:100:1",
        "    |",
        "100 | levl: gc",
        "    | ^^^^",
        "    = help: h",
    ]


def caret_under(text):
    """The characters of the source line above the carets."""
    lines = text.splitlines()
    row = next(index for index, line in enumerate(lines) if re.search(r"\| +\^", line) or "| ^" in line)
    start = lines[row].index("^")
    return lines[row - 1][start : lines[row].rindex("^") + 1]


def test_tabs_are_expanded_and_the_caret_moves_along(tmp_path):
    path = write(tmp_path, "\tname:\tbad\n")
    assert caret_under(render_text([Diagnostic("VQ0207", "no", Span(path, 1, 8, 11))], color=False)) == "bad"


@pytest.mark.parametrize("before", [0, 20, 29, 30, 31, 100, 119, 120, 1000])
@pytest.mark.parametrize("after", [0, 50, 120, 1000])
def test_long_lines_are_cut_around_the_span(tmp_path, before, after):
    path = write(tmp_path, "a" * before + "BAD" + "z" * after + "\n")
    text = render_text([Diagnostic("VQ0207", "no", Span(path, 1, before + 1, before + 4))], color=False)
    assert caret_under(text) == "BAD"
    assert max(map(len, text.splitlines()[2:])) <= 4 + 3 + 120 + 3


def test_wide_characters_take_two_cells(tmp_path):
    path = write(tmp_path, "name: 量子 bad\n")
    line = render_text([Diagnostic("VQ0207", "no", Span(path, 1, 10, 13))], color=False).splitlines()[4]
    assert line == "  | " + " " * 11 + "^^^"


def test_color_only_where_asked(tmp_path):
    path = write(tmp_path, "levl: gc\n")
    item = Diagnostic("VQ0201", "no field", Span(path, 1, 1, 5), help="level", label="unknown")
    colored = render_text([item], color=True)
    assert "\x1b[1;31merror[VQ0201]" in colored
    assert re.sub("\x1b\\[[0-9;]*m", "", colored) == render_text([item], color=False)
    assert "\x1b" not in render_text([item], color=False)


@pytest.mark.parametrize("line", [0, 2, 5, 10**9])
def test_a_line_the_file_does_not_have_is_left_out(tmp_path, line):
    path = write(tmp_path, "one\n")
    text = render_text([Diagnostic("VQ0201", "no", Span(path, line, 99), help="h")], color=False)
    assert "^" not in text.replace(path, "") or line == 2
    assert "= help: h" in text


@pytest.mark.parametrize("path", ["gone.yaml", "/proc/nothing", "a\0b", "", "."])
def test_a_vanished_file_does_not_matter(path):
    text = render_text([Diagnostic("VQ0201", "no", Span(path, 1, 1))], color=False)
    assert text.startswith("error[VQ0201]: no\n")
    assert ":1:1" in text


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    path = write(tmp_path, "name: \x1b[2Jx\n")
    item = Diagnostic("VQ0207", "bad \x1b[31m\x07 name", Span(path, 1, 7), help="a\x1bb", label="\x9b")
    text = render_text([item], color=False)
    assert "\\x1b[2Jx" in text
    assert all(mark.isprintable() or mark == "\n" for mark in text)


@pytest.mark.parametrize("data", [b"\xff\xfe\nlevl", b"a\r\nlevl: 1", b"\xef\xbb\xbfa\rlevl", b"\x0c\nlevl"])
def test_lines_are_counted_as_yaml_counts_them(tmp_path, data):
    file = tmp_path / "spec.yaml"
    file.write_bytes(data)
    text = render_text([Diagnostic("VQ0201", "no", Span(str(file), 2, 1, 5))], color=False)
    assert caret_under(text) == "levl"


def test_json_has_every_key():
    items = [Diagnostic("VQ0205", "m", Span("p", 1, 2, 3), help="h", label="l"), Diagnostic("VQ0601", "n")]
    first, second = json.loads(render_json(items))["diagnostics"]
    assert first == {
        "code": "VQ0205",
        "title": "not a power of two",
        "severity": "error",
        "message": "m",
        "label": "l",
        "help": "h",
        "path": "p",
        "line": 1,
        "column": 2,
        "end_column": 3,
    }
    assert set(second) == set(first)
    assert second["path"] is None


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.text(max_size=300),
    st.integers(-3, 400),
    st.integers(-3, 400),
    st.none() | st.integers(-3, 500),
    st.text(max_size=20),
)
def test_anything_renders(tmp_path_factory, source, line, column, end, message):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(source.encode("utf-8", "surrogatepass"))
    item = Diagnostic("VQ0201", message, Span(str(file), line, column, end), help=message, label=message)
    text = render_text([item], color=False)
    assert all(mark.isprintable() or mark == "\n" for mark in text)
    json.loads(render_json([item]))
