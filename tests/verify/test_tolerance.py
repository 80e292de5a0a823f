"""The bound admits every rounding the arithmetic can do, and no bug."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.verify.tolerance import compare

TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def dot_in_fp32(x: np.ndarray, w: np.ndarray) -> np.float32:
    total = np.float32(0)
    for a, b in zip(x, w, strict=True):
        total = np.float32(total + np.float32(a) * np.float32(b))
    return total


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@given(seed=st.integers(0, 10_000), length=st.integers(1, 300))
def test_correct_sums_are_within_the_bound(dtype: str, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(length).astype(TYPES[dtype])
    w = rng.standard_normal(length)
    w32 = w.astype(np.float32)
    computed = np.array([dot_in_fp32(x, w32)]).astype(TYPES[dtype])
    exact = np.array([np.dot(x.astype(np.float64), w32.astype(np.float64))])
    magnitude = np.array([np.dot(np.abs(x.astype(np.float64)), np.abs(w32.astype(np.float64)))])
    assert compare(computed, exact, magnitude, 2 * length, dtype).passed


def test_a_lost_term_is_outside_the_bound() -> None:
    exact, magnitude = np.array([10.0, 3.0]), np.array([12.0, 5.0])
    found = compare(np.array([10.0, 2.95]).astype(np.float16), exact, magnitude, 500, "float16")
    assert not found.passed
    assert found.position == (1,)
    assert found.max_error == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(wrong: float) -> None:
    ones = np.ones(3)
    assert not compare(np.array([1.0, wrong, 1.0]).astype(np.float16), ones, ones, 10, "float16").passed


def test_overflow_of_the_exact_result_is_no_error() -> None:
    exact = np.array([70000.0])
    assert compare(np.array([np.inf]).astype(np.float16), exact, exact, 10, "float16").passed


def test_unwritten_zeros_fail() -> None:
    exact = np.array([0.5])
    assert not compare(np.zeros(1, np.float16), exact, exact, 10, "float16").passed
