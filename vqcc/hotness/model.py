"""A profile: the look-ups of every table entry of VQ tensors, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.hotness.consistency import Consistency

__all__ = ["HotnessStatistics", "Parts", "Profile", "TensorProfile", "frequency_orders"]

_BLOCK_COUNTS = 1 << 18
# From this mean on a Poisson distribution is normal for our purpose.
_NORMAL_FROM = 1e6


@dataclass(frozen=True)
class HotnessStatistics:
    """Look-ups per entry of a table, and its entries by hotness: means over the tables of a tensor (Sec. V-A).

    `hot` entries have more than mean + 3 sigma look-ups, `cold` ones fewer than the mean, `medium` the rest; sigma
    is that of the table's entries themselves. `hot_least` and `hot_most` are the extremes over the tables.
    `hot_by_chance` is what codes drawn evenly would have: few look-ups scatter, and some entries exceed the limit.
    """

    mean: float
    sigma: float
    hot: float
    medium: float
    cold: float
    hot_least: int
    hot_most: int
    hot_by_chance: float


@dataclass(frozen=True, eq=False)
class Parts:
    """Look-ups by parts of a tensor, each what one thread block works on: `rows` rows of a tile (Fig. 9).

    `first_book` int64 [parts, tables, entries] are those of book 0. `consistency` is measured over that book and
    others, None where no book has two parts.
    """

    rows: int
    first_book: NDArray[np.int64]
    consistency: Consistency | None


@dataclass(frozen=True, eq=False)
class TensorProfile:
    """The look-ups of one VQ tensor [n, k].

    counts int64 [books, tables, table entries]: a book has `Algorithm.table_count` tables; what a code looks up is
    `Algorithm.table_rows`. `codes_sha256` is that of the codes' bytes in the VQ tensor, in C order. `parts` is there
    where the codes were counted, not where a profile was read from its file.
    """

    name: str
    algorithm: Algorithm
    shape: tuple[int, int]
    codes_sha256: str
    counts: NDArray[np.int64]
    parts: Parts | None = None

    def orders(self) -> NDArray[np.int64]:
        """Return the row of each table that gets new number i, [books, tables, entries]: most look-ups first."""
        return frequency_orders(self.counts)

    def coverage(self) -> NDArray[np.float64]:
        """Return the share of look-ups that the first i entries of each table's order serve, [entries + 1]."""
        return self._coverage

    def statistics(self) -> HotnessStatistics:
        """Return mean, sigma, and the numbers of hot, medium and cold entries, averaged over the tables."""
        return self._statistics

    # Passes ask again and again.
    @cached_property
    def _coverage(self) -> NDArray[np.float64]:
        import numpy as np

        served = np.zeros(self.counts.shape[-1] + 1, np.int64)
        for tables in self._blocks():
            served[1:] -= np.cumsum(np.sort(-tables, axis=-1).sum(axis=0))
        shares: NDArray[np.float64] = served / served[-1]
        shares.setflags(write=False)
        return shares

    @cached_property
    def _statistics(self) -> HotnessStatistics:
        import numpy as np

        each = []
        for tables in self._blocks():
            means, sigmas = tables.mean(axis=-1), tables.std(axis=-1)
            hot = np.count_nonzero(tables > (means + 3 * sigmas)[:, None], axis=-1)
            cold = np.count_nonzero(tables < means[:, None], axis=-1)
            each.append(np.stack([means, sigmas, hot, cold]))
        means, sigmas, hot, cold = np.concatenate(each, axis=1)
        entries = self.counts.shape[-1]
        return HotnessStatistics(
            mean=float(means.mean()),
            sigma=float(sigmas.mean()),
            hot=float(hot.mean()),
            medium=entries - float(hot.mean()) - float(cold.mean()),
            cold=float(cold.mean()),
            hot_least=int(hot.min()),
            hot_most=int(hot.max()),
            hot_by_chance=entries * sum(_exceeding(mean, entries) for mean in means.tolist()) / means.size,
        )

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """Yield all tables [some, entries], few enough for the cache: what is computed of them stays small."""
        entries = self.counts.shape[-1]
        tables = self.counts.reshape(-1, entries)
        step = max(1, _BLOCK_COUNTS // entries)
        for first in range(0, len(tables), step):
            yield tables[first : first + step]


@dataclass(frozen=True, eq=False)
class Profile:
    """Profiled tensors, in the order of their file; `sha256` (hex) is that of the file's bytes."""

    tensors: tuple[TensorProfile, ...]
    sha256: str

    def matching(self, algorithm: Algorithm, shape: tuple[int, int]) -> tuple[TensorProfile, ...]:
        """Return the tensors of this algorithm, every field of it, and this shape [n, k]."""
        wanted = algorithm.mapping()
        return tuple(
            tensor
            for tensor in self.tensors
            if tensor.shape == tuple(shape) and tensor.algorithm.mapping() == wanted
        )


@cache
def _exceeding(mean: float, entries: int) -> float:
    """Return the share of Poisson counts of `mean` that exceed mean + 3 sigma, as estimated from `entries` of them."""
    if not 0 < mean < _NORMAL_FROM:
        return 0.5 * math.erfc(3 / math.sqrt(2)) if mean else 0.0
    sigma = math.sqrt(mean)
    limit = mean + 3 * sigma
    # Sigma is estimated: a count near the limit exceeds it at times.
    scatter = 3 * sigma / math.sqrt(2 * entries)
    first = max(0, math.floor(limit - 5 * scatter))
    # Ten sigma further the terms are nothing.
    last = first + math.ceil(10 * sigma) + 20
    return sum(
        math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
        * 0.5
        * math.erfc((limit - count) / (scatter * math.sqrt(2)))
        for count in range(first, last)
    )


def frequency_orders(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each new number along the last axis, the old one: count descending, then index ascending."""
    import numpy as np

    return np.argsort(-counts, axis=-1, kind="stable")
