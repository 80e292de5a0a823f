"""Which combinations of values are in `make test`, where all of them would take long."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["every_other"]


def every_other(*axes: Iterable[Any]) -> Sequence[Any]:
    """All combinations for `parametrize`; every other one of them is left to `make test-full`.

    Of three axes and more, any two values of different axes are still together in one that is not. A value that is a
    tuple stands for several parameters.
    """
    found = []
    for combination in product(*(enumerate(axis) for axis in axes)):
        values = [
            each for _, value in combination for each in (value if isinstance(value, tuple) else (value,))
        ]
        odd = sum(number for number, _ in combination) % 2
        found.append(pytest.param(*values, marks=pytest.mark.full if odd else ()))
    return found
