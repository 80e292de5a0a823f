"""Appending to a cache, on the emulator: exactly the codes that NumPy gives, in place, and windows that turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from device.attention import Books, Case, append_source, run_append

from vqcc.emulator import build

if TYPE_CHECKING:
    from pathlib import Path

ONE = (1, 1, 1)
CASES = {
    "token by token": (Case(), [ONE] * 40),
    "many, then some": (Case(), [(70, 0, 33), ONE, (5, 40, 1)]),
    "rotated": (Case(key_order="rotated", head_dim=128), [(70, 0, 33), (1, 1, 0), ONE, (5, 40, 1)]),
    "in the order of fragments": (
        Case(key_order="fragment", head_dim=128, keys=Books(2), window=8),
        [(70, 0, 33), (1, 1, 0), ONE, (5, 40, 1)],
    ),
    "a window": (
        Case(window=40),
        [(3, 39, 41), ONE, ONE, (60, 100, 10), (90, 0, 37), *[ONE] * 10],
    ),
    "a window, pages": (Case(page_tokens=64, window=8, key_order="rotated"), [(3, 39, 41), ONE, (100, 2, 3)]),
    "codes across words": (
        Case(keys=Books(8, 10, 1, "head"), values=Books(4, 5, 2, "layer"), key_order="rotated"),
        [(3, 39, 41), *[ONE] * 40],
    ),
    "bfloat16": (
        Case(dtype="bfloat16", keys=Books(2), values=Books(16, 12, 1, "layer")),
        [(3, 39, 41), *[ONE] * 5],
    ),
    "few entries": (Case(keys=Books(4, 3, 3), values=Books(2, 1)), [(33, 1, 0), *[ONE] * 3]),
    "nothing at all": (Case(), [(0, 0, 0)]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shares", [1, 3])
def test_append(name: str, shares: int, cache_directory: Path) -> None:
    case, steps = CASES[name]
    emulated = build(append_source(case), cache_directory=cache_directory / "emulator")
    run_append(case, emulated, steps, shares)


@pytest.mark.parametrize("window", [0, 4])
def test_empty_sequences_get_nothing(window: int, cache_directory: Path) -> None:
    """Batches are padded by sequences of length 0: no slot of another's window is written for them."""
    case = Case(window=window)
    emulated = build(append_source(case), cache_directory=cache_directory / "emulator")
    run_append(case, emulated, [(3, 0, 5), (1, 0, 1), (1, 0, 1), (40, 0, 7)], claim_more=True)
