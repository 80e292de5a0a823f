"""Statuses that operators speak of are those of the C headers that they stand beside."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import vqcc.torch
from vqcc.codegen.contract import Header, names_of

PACKAGE = Path(vqcc.torch.__file__).parent
HEADERS: dict[str, Header] = {
    "linear_launch.py": "weights",
    "linear_op.py": "weights",
    "attention.py": "cache",
    "attention_launch.py": "cache",
    "attention_op.py": "cache",
    "host_view.py": "cache",
}


def statuses_in(path: Path) -> set[str]:
    """Strings of a module that look like a status."""
    strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return {each for each in strings if isinstance(each, str) and re.fullmatch("OK|ERROR_[A-Z_]*", each)}


@pytest.mark.parametrize(("name", "header"), HEADERS.items())
def test_statuses_are_the_headers(name: str, header: Header) -> None:
    found = statuses_in(PACKAGE / name)
    assert "OK" in found
    assert found <= set(names_of(header))


def test_no_other_module_speaks_of_statuses() -> None:
    assert {path.name for path in PACKAGE.glob("*.py") if statuses_in(path)} == set(HEADERS)


def test_what_arguments_alone_decide_is_checked_as_the_header_does() -> None:
    """Each status that `_supports` or `_check_cache` of a header can give, but for what only the driver says."""
    of_driver = {"GPU", "LOAD", "SYMBOL", "SHARED_MEMORY", "LAUNCH", "CONTEXT", "OUT_OF_MEMORY"}
    for header, names in (
        ("weights", ["linear_launch.py"]),
        ("cache", ["attention_launch.py", "host_view.py"]),
    ):
        found = set().union(*(statuses_in(PACKAGE / name) for name in names))
        expected = set(names_of("weights" if header == "weights" else "cache"))
        assert found == expected - {f"ERROR_{word}" for word in of_driver}
