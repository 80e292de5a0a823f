"""Nothing but integers and vetted text reaches a template."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.codegen.render import environment
from vqcc.codegen.text import Fragment, c_identifier, comment, enumerator, finalize, integers

HOSTILE = [
    "*/ int x; /*",
    "a\n#include <evil>",
    "line \\",
    "tab\there",
    "\x00",
    "\u2028",
    "\u202e",
    "??/",
    "/* nested",
    "caf\u00e9",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_comments_cannot_be_left(text: str) -> None:
    with pytest.raises(ValueError, match="not fit for a comment"):
        comment(text)


@pytest.mark.parametrize("text", [*HOSTILE, "", "1a", "a-b", "a b", "a;b", "x" * 300, "kernel()", "a::b"])
def test_identifiers_are_identifiers(text: str) -> None:
    with pytest.raises(ValueError, match="not a C identifier"):
        c_identifier(text)


@pytest.mark.parametrize("text", [*HOSTILE, "int", "std::x", "vqcc::", "vqcc::a b", "vqcc::a;", "vqcc::kX()"])
def test_enumerators_are_ours(text: str) -> None:
    with pytest.raises(ValueError, match="not a name of the device headers"):
        enumerator(text)


@given(st.text(max_size=40))
def test_what_a_comment_takes_is_one_harmless_line(text: str) -> None:
    try:
        line = comment(text)
    except ValueError:
        return
    assert line.isascii()
    assert line.isprintable() or line == ""
    assert "*/" not in line
    assert "\\" not in line


@pytest.mark.parametrize("value", [None, True, False, 1.5, "text", b"bytes", [1], object()])
def test_templates_print_nothing_else(value: object) -> None:
    with pytest.raises(TypeError, match="a template tried to print"):
        finalize(value)
    template = environment().from_string("x = ${ value };")
    with pytest.raises(TypeError, match="a template tried to print"):
        template.render(value=value)


def test_integers() -> None:
    assert integers((1, -2, 30)) == "1, -2, 30"
    assert isinstance(integers(()), Fragment)
    for wrong in ("1", True, 1.5):
        with pytest.raises(TypeError, match="not integers"):
            integers((wrong,))  # type: ignore[arg-type]
