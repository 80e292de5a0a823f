"""Drawn weights look entries up as often as the profile says."""

from __future__ import annotations

import numpy as np
import pytest

from vqcc.algorithms.presets import resolve
from vqcc.hotness import profile_tensor
from vqcc.hotness.drawing import draw_tensor, shares_by_rank


@pytest.mark.parametrize("preset", ["aqlm-2x8", "gptvq-2", "quip-4", "vq-4-8-1"])
def test_a_drawn_tensor_has_the_profile_it_was_drawn_by(preset: str) -> None:
    algorithm = resolve(preset)
    weights = np.arange(1, algorithm.table_entries + 1) ** -1.0
    wanted = np.tile(weights / weights.sum(), (algorithm.table_count, 1))
    first = draw_tensor(np.random.default_rng(1), algorithm, (512, 2048), wanted)
    shares = shares_by_rank([profile_tensor(first)])
    assert shares.shape == wanted.shape
    assert shares.sum(axis=-1) == pytest.approx(1.0)
    assert (np.diff(shares, axis=-1) <= 0).all()
    again = draw_tensor(np.random.default_rng(2), algorithm, (512, 2048), shares)
    assert again.codes.dtype == first.codes.dtype
    assert shares_by_rank([profile_tensor(again)])[:, :8] == pytest.approx(shares[:, :8], rel=0.2)
    assert shares[:, 0] == pytest.approx(wanted[:, 0], rel=0.2)


def test_books_that_nothing_looks_up_count_as_even() -> None:
    algorithm = resolve("vq-4-8-1")
    profile = profile_tensor(algorithm.random_tensor(np.random.default_rng(0), "w", 64, 256))
    profile.counts[:] = 0
    assert shares_by_rank([profile]) == pytest.approx(1 / algorithm.table_entries)
