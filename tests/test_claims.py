"""C names that specs of one command claim: whatever cannot stand together is told of, at little cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqcc.claims import Claim, claim
from vqcc.codegen.symbols import Headers, library_headers
from vqcc.diagnostics import VqccError

ONE, TWO = Path("one.yaml"), Path("two.yaml")


def libraries(*identifiers: str) -> list[Headers]:
    return [
        library_headers(identifier, "cache", "attention_decode.h.j2", ["h200"]) for identifier in identifiers
    ]


def unasked() -> list[Headers]:
    raise AssertionError("headers were asked for")


def test_other_names_are_taken_without_a_look_at_headers() -> None:
    taken: dict[str, Claim] = {}
    claim(["a", "a_b"], unasked, ONE, taken)
    claim(["ab", "b_a"], unasked, TWO, taken)
    assert {name: each.spec for name, each in taken.items()} == {"a": ONE, "a_b": ONE, "ab": TWO, "b_a": TWO}


def test_all_shared_symbols_are_told_and_nothing_is_taken_then() -> None:
    taken: dict[str, Claim] = {}
    claim(["a", "b_find"], lambda: libraries("a", "b_find"), ONE, taken)
    own = ("a_sliding", "a_2", "b")
    with pytest.raises(VqccError) as error:
        claim(own, lambda: libraries(*own), TWO, taken)
    assert [(item.code, item.message) for item in error.value.diagnostics] == [
        ("VQ0709", f"{TWO} and {ONE} make a_sliding and a, whose headers would both define A_SLIDING_WINDOW"),
        ("VQ0709", f"{TWO} and {ONE} make b and b_find, whose headers would both define b_find_gpu"),
    ]
    assert list(taken) == ["a", "b_find"]


def test_a_name_that_is_taken_is_told_by_itself() -> None:
    taken: dict[str, Claim] = {}
    claim(["a"], unasked, ONE, taken)
    for spec, text in (
        (ONE, "one.yaml is given twice"),
        (TWO, "two.yaml and one.yaml both make a library a"),
    ):
        with pytest.raises(VqccError) as error:
            claim(["a_2", "a"], unasked, spec, taken)
        assert [item.message for item in error.value.diagnostics] == [text]
