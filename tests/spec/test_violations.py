"""Pydantic's errors in our words, whatever kind they are."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vqcc.diagnostics import DiagnosticList, field_error
from vqcc.spec.fields import bounds, field_info, field_names
from vqcc.spec.source import parse_source
from vqcc.spec.violations import validate
from vqcc.spec.wording import choose, describe, dotted, either, flow, quoted

NO_QUOTES = "write the number without quotes and without separators"


def never(_value):
    raise ValueError("of the weather")


def refuse(_value):
    raise field_error("VQ0309", "a {strange} message", "do {this}")


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: Annotated[int, Field(ge=1, lt=10)] = 1
    cols: int = Field(default=1, alias="columns")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=2, max_length=4)] = "ab"
    flag: bool = False
    ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    either: int | str = 1
    word: Literal["one", "two", "three"] = "one"
    number: Literal[1, 2] = 1
    many: Annotated[tuple[Annotated[int, Field(ge=0, le=9)], ...], Field(max_length=3)] = ()
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    moody: Annotated[int, AfterValidator(never)] = 1
    coded: Annotated[int, AfterValidator(refuse)] = 1
    pattern: Annotated[str, Field(pattern="^a")] = "a"
    needed: Annotated[int, Field(examples=[7])]


def report(text):
    data = f"{text}\nneeded: 1\n"
    source = parse_source(data.encode(), "s.yaml")
    found = validate(Outer, source.data, source)
    assert isinstance(found, DiagnosticList)
    return [(item.code, item.message, item.span.column, item.help) for item in found]


@pytest.mark.parametrize(
    ("text", "code", "column", "message", "help_text"),
    [
        ("text: a", "VQ0214", 7, "text is text of 1 character", "use at least 2"),
        ("text: abcde", "VQ0214", 7, "text is text of 5 characters", "use at most 4"),
        ("text: 12", "VQ0203", 7, "text must be text, got 12", "write it in quotes"),
        ("flag: yes", "VQ0203", 7, "flag must be true or false, got the text 'yes'", None),
        ("flag: 1", "VQ0203", 7, "flag must be true or false, got 1", None),
        ("ratio: 0", "VQ0204", 8, "ratio must be more than 0, got 0", "use more than 0"),
        ("ratio: .inf", "VQ0204", 8, "ratio must be finite, got inf", None),
        ("ratio: '1.5'", "VQ0203", 8, "ratio must be a number, got the text '1.5'", NO_QUOTES),
        (
            "word: tow",
            "VQ0206",
            7,
            "word cannot be the text 'tow'",
            "did you mean 'two'? use one, two or three",
        ),
        ("number: 3", "VQ0206", 9, "number cannot be 3", "use 1 or 2"),
        ("many: [1, 2, 3, 4]", "VQ0209", 7, "many has 4 values", "give at most 3"),
        ("many: [1, 10]", "VQ0204", 11, "many[1] must be at most 9, got 10", "use 0 to 9"),
        ("many: 1", "VQ0203", 7, "many must be a list, got 1", None),
        ("inner: {rows: 10}", "VQ0204", 15, "inner.rows must be less than 10, got 10", "use less than 10"),
        ("inner: {colums: 1}", "VQ0201", 9, "inner has no field 'colums'", "did you mean 'columns'?"),
        ("inner: {zzz: 1}", "VQ0201", 9, "inner has no field 'zzz'", "inner has rows, columns"),
        ("inner: [1]", "VQ0203", 8, "inner must be a mapping, got a list", None),
        ("inner: null", "VQ0203", 8, "inner must be a mapping, got nothing", "give a value"),
        (
            "several: [{}, {rows: 0}]",
            "VQ0204",
            22,
            "several[1].rows must be at least 1, got 0",
            "use at least 1",
        ),
        ("moody: 1", "VQ0215", 8, "moody is not valid: of the weather", None),
        ("coded: 1", "VQ0309", 8, "a {strange} message", "do {this}"),
        ("inner: {columns: 1.0}", "VQ0203", 18, "inner.columns must be an integer, got 1.0", "write 1"),
    ],
)
def test_one_violation(text, code, column, message, help_text):
    assert report(text) == [(code, message, column, help_text)]


def test_a_long_number_is_cut():
    ((_, message, _, help_text),) = report("inner: {columns: 1e300}")
    assert message == "inner.columns must be an integer, got 1e+300"
    assert len(help_text) == len("write ") + 60


def test_a_union_reports_once():
    ((code, message, column, _),) = report("either: []")
    assert (code, message, column) == ("VQ0203", "either must be text, got a list", 9)


def test_an_error_without_words_of_ours_is_still_reported():
    ((code, message, column, _),) = report("pattern: b")
    assert (code, column) == ("VQ0215", 10)
    assert message.startswith("pattern is not valid: ")


def test_a_step_of_pydantics_own_that_is_also_a_field():
    """Branches of unions are steps of a location; a field of such a name must not break the report."""
    source = parse_source(b"{int: 1, str: 2, either: {int: 3}, needed: 1}", "s.yaml")
    found = validate(Outer, source.data, source)
    assert {item.code for item in found} == {"VQ0201", "VQ0203"}


def test_missing_fields_with_an_example():
    source = parse_source(b"text: ab", "s.yaml")
    (item,) = validate(Outer, source.data, source)
    assert (item.code, item.message, item.help) == (
        "VQ0202",
        "the spec lacks the field needed",
        "add `needed: 7`",
    )


def test_what_stands_below_a_preset_is_shown_at_the_preset():
    source = parse_source(b"algorithm: aqlm-3", "s.yaml")
    (item,) = validate(Inner, {"rows": 0}, source, ("algorithm",))
    assert (item.message, item.span.column, item.span.end_column) == (
        "algorithm.rows must be at least 1, got 0",
        12,
        18,
    )


def test_a_good_value_is_the_model():
    source = parse_source(b"needed: 3", "s.yaml")
    assert validate(Outer, source.data, source).needed == 3


def test_field_look_up():
    assert field_names(Outer, ("inner",)) == ["rows", "columns"]
    assert field_names(Outer, ("several", 3)) == ["rows", "columns"]
    assert field_names(Outer, ("text", "x")) == []
    assert field_info(Outer, ()) is None
    assert field_info(Outer, ("gone", "x", "y")) is None
    assert bounds(Outer, ("many", 0)) == (0, 9)
    assert bounds(Outer, ("inner", "rows")) == (1, None)
    assert bounds(Outer, ("gone",)) == (None, None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (3, "3"),
        (2.5, "2.5"),
        ("a", "the text 'a'"),
        ([], "a list"),
        ((), "a list"),
        ({}, "a mapping"),
        ("x" * 100, "the text '" + "x" * 56 + "..."),
        ("a\nb", "the text 'a\\nb'"),
        (10**99, "1" + "0" * 56 + "..."),
    ],
)
def test_describe(value, words):
    assert describe(value) == words


def test_wording():
    assert dotted(()) == "the spec"
    assert dotted(("op", "m", 1)) == "op.m[1]"
    assert quoted('"') == "'\"'"
    assert either(["a"]) == "a"
    assert either(["a", "b", "c"], "and") == "a, b and c"
    assert choose("sd", ["gc", "sc"]) == "use gc or sc" or choose("sd", ["gc", "sc"]).startswith(
        "did you mean 'sc'?"
    )
    assert choose(3, ["only"]) == "use only"
    assert flow({"a": {"b": [1]}, "c": "d"}) == "{a: {b: [1]}, c: d}"
