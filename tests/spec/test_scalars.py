"""Plain scalars by YAML 1.2's core schema, where YAML 1.1 surprises."""

from __future__ import annotations

import math

import pytest

from vqcc.spec.scalars import resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None), ("nULL", "nULL"), ("none", "none"),
        ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("N", "N"),
        ("0", 0), ("17", 17), ("-3", -3), ("+3", 3), ("017", 17), ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"),
        ("1_000", "1_000"), ("12:30", "12:30"), ("0o8", "0o8"), ("-0x1", "-0x1"), ("0x", "0x"),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e-5", 1e-5), ("1E3", 1000.0), ("-1.5e+3", -1500.0),
        ("1e", "1e"), (".", "."), ("1.2.3", "1.2.3"), ("9.0a", "9.0a"), ("1e400", math.inf), ("-", "-"), ("+", "+"),
        (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), (".iNF", ".iNF"), ("inf", "inf"),
        ("2026-01-01", "2026-01-01"), ("=", "="), ("90a", "90a"),
        ("\u0661", "\u0661"), ("1\u0661", "1\u0661"), ("\u00b2", "\u00b2"),
    ],
)  # fmt: skip
def test_resolve(text, value):
    found = resolve(text)
    assert (type(found), found) == (type(value), value)


def test_nan():
    assert math.isnan(resolve(".NaN"))


@pytest.mark.parametrize("text", ["1" * 401, "0x" + "f" * 400, "0o" + "7" * 400])
def test_numbers_too_long_to_mean(text):
    with pytest.raises(ValueError, match=r"a number of 40[12] characters"):
        resolve(text)


def test_long_text_is_text():
    assert resolve("x" * 10_000) == "x" * 10_000
