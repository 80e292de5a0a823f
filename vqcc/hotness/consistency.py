"""How consistent the hot set is across the parts of a tensor: Fig. 9 as numbers.

One order serves a whole table, though parts of a tensor may have hot entries of their own; this says what that
costs. Each part is compared with the other parts of its table together, so that it never meets itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Consistency", "measure"]

# Counts compared at a time.
_PAIR_COUNTS = 1 << 18


@dataclass(frozen=True)
class Consistency:
    """Means over `parts` pairs of a part and the others of its table; `hottest` entries make a hot set.

    `overlap`: |hot set of the part and of the others| / hottest. `kept`: look-ups of all parts that their others' hot
    sets serve, over those that their own would. `correlation`: Pearson's, of the look-ups of each entry; None where
    they are constant. Entries that tie for the last places of a hot set share them.
    """

    parts: int
    hottest: int
    overlap: float
    kept: float
    correlation: float | None


def measure(books: Iterable[NDArray[np.int64]]) -> Consistency | None:
    """Compare the parts of each book [parts, tables, entries]; None if no book has two parts."""
    import numpy as np

    overlaps: list[float] = []
    correlations: list[float] = []
    kept = best = 0.0
    hottest = 0
    for parts, others in _pairs(books):
        hottest = -(-parts.shape[1] // 10)
        own, theirs = _hot_sets(parts, hottest), _hot_sets(others, hottest)
        overlaps += ((own * theirs).sum(axis=1) / hottest).tolist()
        kept += float((parts * theirs).sum())
        best += float((parts * own).sum())
        found = _correlations(parts, others)
        correlations += found[np.isfinite(found)].tolist()
    if not overlaps:
        return None
    return Consistency(
        parts=len(overlaps),
        hottest=hottest,
        overlap=sum(overlaps) / len(overlaps),
        kept=kept / best if best else 1.0,
        correlation=sum(correlations) / len(correlations) if correlations else None,
    )


def _pairs(books: Iterable[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield parts of a table [some, entries] with the sums of its other parts, few enough to stay in the cache."""
    for book in books:
        parts, tables, entries = book.shape
        step = max(1, _PAIR_COUNTS // entries)
        for table in range(tables if parts > 1 else 0):
            total = book[:, table].sum(axis=0)
            for first in range(0, parts, step):
                some = book[first : first + step, table]
                yield some, total - some


def _hot_sets(counts: NDArray[np.int64], hottest: int) -> NDArray[np.float64]:
    """Return how far each entry [parts, entries] is one of its part's `hottest`: 1, 0, or a share of tied places."""
    import numpy as np

    least = np.partition(counts, -hottest, axis=1)[:, -hottest, None]
    inside, tied = counts > least, counts == least
    places = hottest - inside.sum(axis=1, keepdims=True)
    sets: NDArray[np.float64] = inside + tied * (places / tied.sum(axis=1, keepdims=True))
    return sets


def _correlations(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Pearson's coefficient of each row; not finite where a row is constant."""
    import numpy as np

    first, second = (counts - counts.mean(axis=1, keepdims=True) for counts in (one, other))
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (first * second).sum(axis=1) / norms
    return found
