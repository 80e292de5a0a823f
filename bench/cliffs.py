"""Steps of latency from one m to the next: rows of gemv-curves.json."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]
#: One row of x more that costs more than this is a cliff; one that costs less than this is a dip: the kernel for more
#: rows would have served the fewer ones faster.
CLIFF, DIP = 1.25, 0.9


@dataclass(frozen=True)
class Step:
    """From m to m + 1: `ratio` is the time at m + 1 over that at m."""

    m: int
    ratio: float


@dataclass(frozen=True)
class Curve:
    """The steps of an algorithm, shape and kind of library: the largest, those that are cliffs, those that are dips."""

    algorithm: str
    n: int
    k: int
    kind: str
    steps: tuple[Step, ...]

    @property
    def largest(self) -> Step:
        """The step of the largest ratio, the first of equal ones."""
        return max(self.steps, key=lambda step: step.ratio)

    @property
    def cliffs(self) -> tuple[Step, ...]:
        """Steps up that are too large."""
        return tuple(step for step in self.steps if step.ratio > CLIFF)

    @property
    def dips(self) -> tuple[Step, ...]:
        """Steps down: the library for m was not the best that there was for m."""
        return tuple(step for step in self.steps if step.ratio < DIP)


def cliffs(rows: Sequence[Row]) -> list[Curve]:
    """The curves of `rows` in their order; a step needs both of its m, and a curve a step."""
    curves: dict[tuple[str, int, int, str], dict[int, float]] = {}
    for row in rows:
        key = (row["algorithm"], row["n"], row["k"], row["kind"])
        curves.setdefault(key, {})[row["m"]] = row["us"]
    found = [Curve(*key, steps=_steps(times)) for key, times in curves.items()]
    return [curve for curve in found if curve.steps]


def _steps(times: dict[int, float]) -> tuple[Step, ...]:
    """Of microseconds by m, in order of m."""
    return tuple(Step(m, times[after] / times[m]) for m, after in pairwise(sorted(times)) if after == m + 1)
