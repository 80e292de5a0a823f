"""Orders, coverage, statistics and matching of profiles, against counts by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from vqcc.algorithms import presets
from vqcc.hotness import Profile, TensorProfile, profile_tensor, summarize


def profile_of(counts: Any, preset: str = "vq-4-2-1") -> TensorProfile:
    array = np.array(counts, np.int64)
    return TensorProfile("w", presets.resolve(preset), (8, 32), "0" * 64, array)


def test_orders_are_stable() -> None:
    """Most look-ups first; equal ones by their number."""
    found = profile_of([[[3, 9, 3, 0]], [[5, 5, 5, 5]]]).orders()
    assert found.dtype == np.int64
    assert found.tolist() == [[[1, 0, 2, 3]], [[0, 1, 2, 3]]]


def test_coverage_weighs_tables_by_their_look_ups() -> None:
    found = profile_of([[[0, 6, 2, 0]], [[1, 1, 0, 2]]]).coverage()
    assert found.tolist() == [0, 8 / 12, 11 / 12, 1, 1]


def test_statistics_are_means_over_tables() -> None:
    counts = np.full((2, 1, 64), 10)
    counts[0, 0, 5] = 1000
    counts[1, 0, :2] = [9, 11]
    found = profile_of(counts).statistics()
    assert found.mean == pytest.approx((10 + 990 / 64 + 10) / 2)
    assert found.sigma == pytest.approx((counts[0].std() + counts[1].std()) / 2)
    # Table 1: sigma is 0.18, so that 11 is above mean + 3 sigma.
    assert (found.hot, found.hot_least, found.hot_most) == (1.0, 1, 1)
    assert found.cold == (63 + 1) / 2
    assert found.hot + found.medium + found.cold == 64


def test_even_counts_have_no_hot_entries() -> None:
    found = profile_of(np.full((1, 1, 4), 7)).statistics()
    assert (found.mean, found.sigma, found.hot, found.medium, found.cold) == (7, 0, 0, 4, 0)


@pytest.mark.parametrize(("mean", "entries"), [(4.5, 4096), (16, 4096), (300, 65536)])
def test_hot_by_chance_is_what_evenly_drawn_codes_have(mean: float, entries: int) -> None:
    found = profile_of(np.random.default_rng(0).poisson(mean, (20, 1, entries))).statistics()
    assert found.hot == pytest.approx(found.hot_by_chance, rel=0.2)


def test_hot_by_chance_of_many_look_ups_is_the_normal_distributions() -> None:
    for mean in (0.99e6, 1.01e6, 1e12):
        found = profile_of(np.full((1, 1, 1024), int(mean))).statistics()
        assert found.hot_by_chance == pytest.approx(1024 * 0.0013499, rel=0.04)


def test_matching_is_by_whole_algorithm_and_shape() -> None:
    first, other = profile_of(np.ones((1, 1, 4))), profile_of(np.ones((1, 1, 8)), "vq-4-3-1")
    profile = Profile((first, other, first), "0" * 64)
    assert profile.matching(presets.resolve("vq-4-2-1"), (8, 32)) == (first, first)
    assert profile.matching(presets.resolve("vq-4-3-1"), (8, 32)) == (other,)
    assert profile.matching(presets.resolve("vq-4-2-1"), (32, 8)) == ()
    scaled = presets.resolve("vq-4-2-1").model_copy(update={"scales": presets.resolve("gptvq-2").scales})
    assert profile.matching(scaled, (8, 32)) == ()


def test_a_summary_says_what_the_hottest_serve() -> None:
    algorithm = presets.resolve("vq-4-8-1")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 32, 64)
    profile = profile_tensor(tensor)
    found = summarize(profile)
    shares = dict(found.coverage)
    assert list(shares) == ["1", "8", "32", "10%", "50%"]
    ordered = np.sort(profile.counts[0, 0])[::-1]
    assert shares["8"] == ordered[:8].sum() / 512
    assert shares["10%"] == ordered[:26].sum() / 512
    assert (found.codes, found.books, found.tables, found.entries) == (512, 1, 1, 256)
    data = found.to_json()
    assert data["coverage"] == shares
    assert data["hot"] == found.statistics.hot
    assert data["consistency"]["hottest"] == 26


def test_small_tables_are_covered_whole() -> None:
    algorithm = presets.resolve("vq-4-1-1")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 4, 8)
    assert dict(summarize(profile_tensor(tensor)).coverage)["8"] == 1


def test_importing_needs_no_numpy() -> None:
    script = "import sys, vqcc.hotness; assert not {'numpy', 'rich', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
