"""How well predicted times rank the candidates of a problem: rows of gemv-candidates.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.passes.agreement import DOUBT

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]
#: Within so much of the fastest measured candidate the chosen one counts as good.
NEAR = 1.1


@dataclass(frozen=True)
class Ranking:
    """Of some problems: percentiles 5 and 95 of predicted over measured time; time of the chosen over the best.

    Chosen is the candidate of least predicted time, in which dataflows are weighed as the planner does: `median`,
    `worst`, and `near`, the share of problems within NEAR. `correlation` is Spearman's, of predicted and measured
    times, the mean over problems of three candidates or more.
    """

    problems: int
    low: float
    high: float
    median: float
    worst: float
    near: float
    correlation: float


def summary(rows: Sequence[Row]) -> Ranking:
    """Of the problems that the rows are of: an algorithm, a shape and m."""
    problems: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        problems.setdefault((row["algorithm"], row["n"], row["k"], row["m"]), []).append(row)
    chosen = np.array([_chosen(own) for own in problems.values()])
    shares = [row["predicted_us"] / row["us"] for row in rows]
    low, high = np.percentile(shares, (5, 95))
    correlations = [_spearman(own) for own in problems.values() if len(own) > 2]  # two are in order or not
    return Ranking(
        len(problems),
        float(low),
        float(high),
        float(np.median(chosen)),
        float(chosen.max()),
        float(np.mean(chosen <= NEAR)),
        float(np.mean(correlations)) if correlations else float("nan"),
    )


def _chosen(rows: Sequence[Row]) -> float:
    """Measured time of the candidate of least predicted time over the least measured."""
    best = min(row["us"] for row in rows)
    chosen = min(rows, key=lambda row: row["predicted_us"] * DOUBT.get(row["dataflow"], 1.0))
    return float(chosen["us"] / best)


def _spearman(rows: Sequence[Row]) -> float:
    """Pearson's correlation of average ranks; 0 where all of one side are equal."""
    ranks = [_ranks([row[key] for row in rows]) for key in ("predicted_us", "us")]
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Sequence[float]) -> Any:
    """Ranks from 0; equal values share the mean of theirs."""
    array = np.asarray(values)
    return np.array([(np.sum(array < value) + np.sum(array <= value) - 1) / 2 for value in array])
