"""Numbers with their words."""

from __future__ import annotations

import pytest

from vqcc.report.text import counted


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 blocks"), (1, "1 block"), (2, "2 blocks"), (101376, "101376 blocks")]
)
def test_one_is_singular(count: int, expected: str) -> None:
    assert counted(count, "block") == expected


def test_plurals_of_their_own() -> None:
    assert counted(1, "launch", "launches") == "1 launch"
    assert counted(3, "launch", "launches") == "3 launches"


def test_thousands_are_grouped_where_asked() -> None:
    assert counted(101376, "byte", grouped=True) == "101,376 bytes"
    assert counted(1, "byte", grouped=True) == "1 byte"
