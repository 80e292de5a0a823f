"""Hotness: which entries are looked up most (VQ-LLM, Sec. V-A, Figs. 8 and 9).

Entries are renamed by falling frequency, so two boundaries say which are kept where. Without a profile the order
stays as it is and no entry is hot.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from vqcc.plan import Decision, Hotness, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["Profiled", "Statistics", "coverage", "covered", "plan_hotness", "shares"]


class Statistics(Protocol):
    """What a profiled tensor's tables have on average: look-ups per entry, and numbers of entries."""

    @property
    def mean(self) -> float:
        """Look-ups of an entry."""
        ...

    @property
    def sigma(self) -> float:
        """Their standard deviation over the entries of a table."""
        ...

    @property
    def hot(self) -> float:
        """Entries of a table looked up more than mean + 3 sigma times."""
        ...

    @property
    def medium(self) -> float:
        """Entries between."""
        ...

    @property
    def cold(self) -> float:
        """Entries of a table looked up less than mean times."""
        ...


class _Shares(Protocol):
    def __getitem__(self, index: int, /) -> float: ...


class Profiled(Protocol):
    """What this pass asks of a profiled tensor."""

    def __hash__(self) -> int:
        """What it counts does not change: passes ask again and again."""
        ...

    @property
    def counts(self) -> NDArray[np.int64]:
        """Look-ups, [books, tables, entries]."""
        ...

    def statistics(self) -> Statistics:
        """Means over its tables."""
        ...

    def coverage(self) -> _Shares:
        """Share of look-ups that the first i entries in order serve, i from 0 to the entries of a table."""
        ...


def plan_hotness(problem: Problem, plan: Plan) -> Plan:
    """Choose the order of entries; count hot, medium and cold ones over the profiled tensors."""
    entries = problem.algorithm.table_entries
    profile: Sequence[Profiled] = problem.profile
    if not profile:
        return plan.decide(
            Decision(
                "entry_order",
                "identity",
                "entries keep their numbers without a profile",
                {"table_entries": entries},
                "nothing says which entries are looked up more often: none is hot, all count as medium",
                "V-A",
            ),
            hotness=Hotness("identity", 0.0, float(entries), 0.0),
        )
    found = [tensor.statistics() for tensor in profile]
    mean, sigma, hot, medium, cold = (
        _average([getattr(each, name) for each in found])
        for name in ("mean", "sigma", "hot", "medium", "cold")
    )
    by_table = tuple(
        _average(each) for each in zip(*(_hot_by_table(tensor) for tensor in profile), strict=True)
    )
    return plan.decide(
        Decision(
            "entry_order",
            "profile",
            "by look-ups, most first, then by number; hot: look-ups > mean + 3 sigma, cold: look-ups < mean",
            {
                "tensors": len(found),
                "table_entries": entries,
                "mean": mean,
                "sigma": sigma,
                "hot": hot,
                "hot_by_table": ", ".join(f"{each:g}" for each in by_table),
                "medium": medium,
                "cold": cold,
            },
            f"{hot:g} of {entries} entries of a table are hot and serve {coverage(problem, round(hot)):.1%} of the "
            f"look-ups; the {cold:g} cold ones serve {1 - coverage(problem, entries - round(cold)):.1%}",
            "V-A, Figs. 8 and 9",
            (
                Rejected(
                    "identity", "frequent entries would lie anywhere; two boundaries could not tell them"
                ),
                Rejected(
                    "an order per part of the tensor",
                    "the paper's tensors have the same entries hot all over (Fig. 9); vqcc profile counts by parts",
                ),
            ),
        ),
        hotness=Hotness("profile", hot, medium, cold, by_table),
    )


def coverage(problem: Problem, first: int) -> float:
    """Share of look-ups that the `first` entries of a table serve; all entries equally often without a profile."""
    entries = problem.algorithm.table_entries
    counted = min(max(first, 0), entries)
    if not problem.profile:
        return counted / entries
    return _average([tensor.coverage()[counted] for tensor in problem.profile])


def covered(problem: Problem, entries: Sequence[int]) -> float:
    """Share of look-ups that the first entries of each table serve, so many of table t: entries[t % len(entries)].

    Parts of the stages look up one count of tables after another: the counts are those of one part.
    """
    if len(set(entries)) == 1:
        return coverage(problem, entries[0])
    if not problem.profile:
        return _average([coverage(problem, each) for each in entries])
    most, tables = problem.algorithm.table_entries, problem.algorithm.table_count
    wanted = [min(max(entries[table % len(entries)], 0), most) for table in range(tables)]
    curves = [_coverage_by_table(tensor) for tensor in problem.profile]
    return _average([float(curve[table][first]) for curve in curves for table, first in enumerate(wanted)])


def shares(problem: Problem, first: int, last: int, table: int | None = None) -> tuple[float, ...]:
    """Share of look-ups of each of the entries [first, last) of a table, in their order.

    Of the mean table, or of table number `table` alone.
    """
    entries = problem.algorithm.table_entries
    first, last = max(first, 0), min(last, entries)
    if not problem.profile:
        return (1 / entries,) * max(0, last - first)
    curves: list[_Shares] = [
        tensor.coverage() if table is None else _coverage_by_table(tensor)[table]
        for tensor in problem.profile
    ]
    return tuple(
        float(sum(curve[i + 1] - curve[i] for curve in curves)) / len(curves) for i in range(first, last)
    )


@lru_cache(maxsize=64)
def _hot_by_table(tensor: Profiled) -> tuple[float, ...]:
    """Entries of each table looked up more than its mean + 3 sigma times: means over books."""
    limits = tensor.counts.mean(axis=-1) + 3 * tensor.counts.std(axis=-1)
    hot = (tensor.counts > limits[..., None]).sum(axis=-1)
    return tuple(hot.mean(axis=0).tolist())


@lru_cache(maxsize=64)
def _coverage_by_table(tensor: Profiled) -> tuple[tuple[float, ...], ...]:
    """Share of each table's look-ups that its first i entries in order serve, i from 0 to all: means over books."""
    ordered = tensor.counts.copy()
    ordered.sort(axis=-1)
    served = ordered[..., ::-1].cumsum(axis=-1).sum(axis=0)
    return tuple((0.0, *(curve / curve[-1]).tolist()) for curve in served)


def _average(values: Sequence[float]) -> float:
    """Mean of plain numbers, rounded so that the last bit of a sum is in no plan."""
    return round(float(sum(values)) / len(values), 9)
