"""The order of entries, and how many look-ups the first ones serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from plans import hot_profile
from problems import kmeans, problem

from vqcc.passes.hotness import coverage, covered, plan_hotness, shares
from vqcc.passes.wavefronts import uniform_wavefronts, weighted_wavefronts
from vqcc.plan import Hotness, Plan


@dataclass(frozen=True)
class Statistics:
    mean: float = 10.0
    sigma: float = 5.0
    hot: float = 2.0
    medium: float = 100.0
    cold: float = 154.0


@dataclass(frozen=True)
class Tensor:
    """Stands in for a profiled tensor: entry i of 256 is looked up 256 - i times."""

    found: Statistics = Statistics()
    first_counts: int = 0

    @property
    def counts(self) -> Any:
        return np.array([[[256 - i + self.first_counts * (i == 0) for i in range(256)]]])

    def statistics(self) -> Statistics:
        return self.found

    def coverage(self) -> list[float]:
        counts = self.counts[0, 0].tolist()
        return [sum(counts[:i]) / sum(counts) for i in range(257)]


def planned(*profile: Any, preset: str = "aqlm-2x8") -> Plan:
    task = problem(preset, profile=profile)
    return plan_hotness(task, Plan(task.kernel, task.level))


def test_without_a_profile_no_entry_is_hot() -> None:
    plan = planned()
    assert plan.hotness == Hotness("identity", 0.0, 256.0, 0.0)
    (decision,) = plan.decisions
    assert (decision.name, decision.value, decision.section) == ("entry_order", "identity", "V-A")


def test_computed_decoders_count_the_rows_of_their_table() -> None:
    assert planned(preset="quip-4").hotness == Hotness("identity", 0.0, 256.0, 0.0)


def test_a_profile_orders_by_frequency() -> None:
    plan = planned(Tensor())
    assert plan.hotness == Hotness("profile", 2.0, 100.0, 154.0, (0.0,))
    (decision,) = plan.decisions
    assert decision.value == "profile"
    assert {
        name: decision.inputs[name] for name in ("mean", "sigma", "hot", "medium", "cold", "tensors")
    } == {
        "mean": 10.0,
        "sigma": 5.0,
        "hot": 2.0,
        "medium": 100.0,
        "cold": 154.0,
        "tensors": 1,
    }
    served = sum(256 - i for i in range(2)) / sum(range(257))
    assert f"2 of 256 entries of a table are hot and serve {served:.1%}" in decision.reason
    assert [each.value for each in decision.rejected] == ["identity", "an order per part of the tensor"]


def test_several_tensors_are_averaged() -> None:
    plan = planned(Tensor(), Tensor(Statistics(mean=20.0, sigma=6.0, hot=5.0, medium=99.0, cold=152.0)))
    assert plan.hotness == Hotness("profile", 3.5, 99.5, 153.0, (0.0,))
    assert plan.decisions[-1].inputs["mean"] == 15.0
    one, other = Tensor(), Tensor(first_counts=1000)
    task = problem("aqlm-2x8", profile=(one, other))
    assert coverage(task, 1) == pytest.approx((one.coverage()[1] + other.coverage()[1]) / 2)


@pytest.mark.parametrize("profile", [(), (Tensor(),), (Tensor(), Tensor(first_counts=500))])
def test_coverage_and_shares_agree(profile: tuple[Any, ...]) -> None:
    task = problem("aqlm-2x8", profile=profile)
    assert coverage(task, 0) == 0
    assert coverage(task, 256) == coverage(task, 1000) == 1
    assert coverage(task, -3) == 0
    values = [coverage(task, i) for i in range(257)]
    assert values == sorted(values)
    for first, last in ((0, 256), (0, 8), (8, 100), (100, 300)):
        assert len(shares(task, first, last)) == min(last, 256) - first
        assert sum(shares(task, first, last)) == pytest.approx(
            coverage(task, last) - coverage(task, first), abs=1e-6
        )
    assert shares(task, 300, 400) == ()


def test_without_a_profile_look_ups_are_uniform() -> None:
    task = problem("aqlm-3")
    assert coverage(task, 1024) == 0.25
    assert shares(task, 4094, 4096) == (1 / 4096, 1 / 4096)


def test_many_small_shares_keep_their_sum() -> None:
    """Shares that were rounded would add up to more than all look-ups."""

    class Even(Tensor):
        def coverage(self) -> list[float]:
            return [i / 65536 for i in range(65537)]

    even = shares(problem("aqlm-1x16", profile=(Even(),)), 0, 65536)
    assert sum(even) == pytest.approx(1, abs=1e-12)
    assert weighted_wavefronts(even, 16) == pytest.approx(uniform_wavefronts(65536, 16), rel=0.02)


def test_hot_entries_are_counted_table_by_table() -> None:
    """A stage with nine of them and one with none are not two stages with half of nine."""
    task = problem("aqlm-2x8")
    profile = hot_profile(task, 9, 0)
    plan = planned(profile)
    assert plan.hotness is not None
    assert (plan.hotness.hot, plan.hotness.hot_by_table) == (4.5, (9.0, 0.0))
    assert plan.decisions[-1].inputs["hot_by_table"] == "9, 0"
    both = planned(profile, hot_profile(task, 1, 3))
    assert both.hotness is not None
    assert both.hotness.hot_by_table == (5.0, 1.5)


def test_coverage_of_tables_apart() -> None:
    task = problem("aqlm-2x8")
    task = problem("aqlm-2x8", profile=(hot_profile(task, 9, 0),))
    (profile,) = task.profile
    hot, flat = profile.counts[0, 0, :9].sum() / profile.counts[0, 0].sum(), 9 / 256
    assert covered(task, (9, 0)) == pytest.approx(hot / 2)
    assert covered(task, (0, 9)) == pytest.approx(flat / 2)
    assert covered(task, (9, 9)) == pytest.approx((hot + flat) / 2) == pytest.approx(coverage(task, 9))
    assert covered(task, (256, 0)) == 0.5
    assert covered(problem("aqlm-2x8"), (128, 0)) == 0.25
    assert sum(shares(task, 0, 9, 0)) == pytest.approx(hot)
    assert sum(shares(task, 0, 9, 1)) == pytest.approx(flat)


def test_counts_of_a_part_are_those_of_every_part() -> None:
    """Two parts of four stages: counts of tables 0 and 1 are those of tables 2 and 3."""
    stages = kmeans(residuals=4)
    task = problem(stages)
    task = problem(stages, profile=(hot_profile(task, 9, 0, 0, 5),))
    curves = [sum(shares(task, 0, first, table)) for table, first in enumerate((3, 7, 3, 7))]
    assert covered(task, (3, 7)) == pytest.approx(sum(curves) / 4)
