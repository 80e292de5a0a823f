"""Attention in float64, and the turns of positions that kernels rotate by."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.ops.attention.reference import attend, rotate, turn_steps

RNG = np.random.default_rng(5)


def test_a_query_that_sees_one_token_takes_its_value() -> None:
    queries = RNG.standard_normal((1, 1, 2, 8))
    keys, values = RNG.standard_normal((2, 1, 1, 8))
    found = attend(queries, [keys], [values], scale=0.5)
    np.testing.assert_allclose(found.outputs[0, 0], np.repeat(values[0], 2, axis=0))
    np.testing.assert_allclose(found.log_sums[0, 0], 0.5 * queries[0, 0] @ keys[0, 0])


def test_an_empty_sequence_has_no_sum() -> None:
    found = attend(np.ones((1, 1, 1, 8)), [np.zeros((1, 0, 8))], [np.zeros((1, 0, 8))], scale=1.0)
    assert not found.outputs.any()
    assert found.log_sums[0, 0, 0] == -math.inf


def test_query_tokens_do_not_see_what_is_after_them() -> None:
    queries = RNG.standard_normal((1, 2, 1, 8))
    keys, values = RNG.standard_normal((2, 1, 5, 8))
    both = attend(queries, [keys], [values], scale=1.0)
    first = attend(queries[:, :1], [keys[:, :4]], [values[:, :4]], scale=1.0)
    np.testing.assert_allclose(both.outputs[:, :1], first.outputs)
    narrow = attend(queries, [keys], [values], scale=1.0, sliding_window=1)
    np.testing.assert_allclose(narrow.outputs[0, :, 0], values[0, 3:])


def test_a_cap_bounds_scores() -> None:
    keys = np.full((1, 3, 8), 100.0)
    found = attend(np.ones((1, 1, 1, 8)), [keys], [keys], scale=1.0, softcap=2.0)
    assert found.log_sums[0, 0, 0] == pytest.approx(2.0 + math.log(3))


@pytest.mark.parametrize("rope", ["half", "interleaved"])
def test_products_of_rotated_vectors_depend_on_their_distance(rope: str) -> None:
    keys = RNG.standard_normal((1, 1, 16))
    near, far = (
        rotate(keys, np.array([first]), rope) @ rotate(keys, np.array([first + 7]), rope)[0].T  # type: ignore[arg-type]
        for first in (3, 1000)
    )
    np.testing.assert_allclose(near, far)
    assert rotate(keys, np.array([5]), "none") is keys


@given(
    position=st.integers(0, 2**20),
    base=st.floats(2.0, 1e6),
    scaling=st.floats(0.25, 64.0),
    pair=st.integers(0, 31),
)
def test_a_positions_turn_is_exact_to_2_44(position: int, base: float, scaling: float, pair: int) -> None:
    step = int(turn_steps(64, base, scaling)[pair])
    frequency = float(np.power(base, -np.arange(32) / 32)[pair] / scaling)
    exact = Fraction(frequency) * position / (2 * Fraction("3.14159265358979323846264338327950288"))
    counted = Fraction(step * position % 2**64, 2**64)
    off = (counted - exact) % 1
    assert min(off, 1 - off) <= Fraction(1, 2**44)


def test_scaling_divides_positions() -> None:
    keys = RNG.standard_normal((1, 1, 16))
    np.testing.assert_allclose(
        rotate(keys, np.array([12]), "half", scaling=4.0), rotate(keys, np.array([3]), "half")
    )


def test_a_negative_scale_is_that_of_negated_queries() -> None:
    """What rounding can do to scores is relative to magnitudes, whatever the sign."""
    rng = np.random.default_rng(0)
    queries, keys, values = (rng.standard_normal(shape) for shape in ((1, 2, 2, 8), (1, 5, 8), (1, 5, 8)))
    found = attend(queries, [keys], [values], scale=-0.5)
    other = attend(-queries, [keys], [values], scale=0.5)
    for name in ("outputs", "log_sums", "magnitudes", "scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(other, name))
    assert (found.scores > 0).all()
