"""What is told of a profiled tensor: statistics, coverage and consistency, without its counts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.hotness.consistency import Consistency
    from vqcc.hotness.model import HotnessStatistics, TensorProfile

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True)
class Summary:
    """One tensor of a profile, for people and for JSON.

    `coverage` is (how many of the hottest entries, in words; the share of look-ups that they serve). `part_rows` and
    `consistency` are None for a profile read from its file.
    """

    name: str
    algorithm: Algorithm
    shape: tuple[int, int]
    codes: int
    codes_sha256: str
    books: int
    tables: int
    entries: int
    statistics: HotnessStatistics
    coverage: tuple[tuple[str, float], ...]
    part_rows: int | None
    consistency: Consistency | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, keys in a fixed order."""
        return {
            "tensor": self.name,
            "algorithm": self.algorithm.mapping(),
            "shape": list(self.shape),
            "codes": self.codes,
            "codes_sha256": self.codes_sha256,
            "books": self.books,
            "tables": self.tables,
            "entries": self.entries,
            **asdict(self.statistics),
            "coverage": dict(self.coverage),
            "part_rows": self.part_rows,
            "consistency": None if self.consistency is None else asdict(self.consistency),
        }


def summarize(profile: TensorProfile) -> Summary:
    """Work out what is told of `profile`."""
    books, tables, entries = profile.counts.shape
    served = profile.coverage()
    counts = [(str(count), count) for count in (1, 8, 32)]
    counts += [(f"{percent}%", math.ceil(entries * percent / 100)) for percent in (10, 50)]
    return Summary(
        name=profile.name,
        algorithm=profile.algorithm,
        shape=profile.shape,
        codes=int(profile.counts.sum()),
        codes_sha256=profile.codes_sha256,
        books=books,
        tables=tables,
        entries=entries,
        statistics=profile.statistics(),
        coverage=tuple((label, float(served[min(count, entries)])) for label, count in counts),
        part_rows=profile.parts.rows if profile.parts else None,
        consistency=profile.parts.consistency if profile.parts else None,
    )
