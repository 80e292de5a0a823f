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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("lost", "passed"), [(0, True), (4, False), (16, False), (128, False)])
def test_lost_columns_of_long_rows_fail(dtype: str, lost: int, passed: bool) -> None:
    """The worst case of a long sum admits more than a few lost terms, all elements together do not."""
    rng = np.random.default_rng(1)
    x, w = (
        rng.standard_normal(28672).astype(TYPES[dtype]).astype(np.float64),
        rng.standard_normal((64, 28672)),
    )
    if dtype == "bfloat16" and lost == 4:
        lost = 16  # 8 bits fewer of the output
    kept = x.copy()
    kept[len(x) - lost :] = 0
    computed = (w @ kept).astype(TYPES[dtype])
    found = compare(computed, w @ x, np.abs(w) @ np.abs(x), 500_000, dtype)
    assert found.worst <= 1
    assert found.passed == passed


def test_sums_that_cancel_are_not_held_to_what_is_left_of_them() -> None:
    exact, magnitude = np.full(64, 1e-5), np.full(64, 100.0)
    computed = (exact + 1e-4 * np.random.default_rng(0).standard_normal(64)).astype(np.float16)
    assert compare(computed, exact, magnitude, 10_000, "float16").passed


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


def test_an_infinity_of_the_wrong_sign_fails() -> None:
    exact = np.array([70000.0])
    assert not compare(np.array([-np.inf]).astype(np.float16), exact, exact, 10, "float16").passed


def test_stages_that_cancel_are_bounded_by_their_magnitudes() -> None:
    """A weight that is the small difference of large entries is off by their rounding, not by its own."""
    from vqcc.algorithms import from_mapping
    from vqcc.tensors.vq_tensor import VQTensor

    algorithm = from_mapping(
        {"family": "kmeans", "vector_size": 4, "entries": 2, "residuals": 2, "codebook_dtype": "int8"}
    )
    scale = np.float32(1000.1)
    tensor = VQTensor(
        name="w",
        algorithm=algorithm,
        shape=(3, 8),
        dtype="float16",
        codes=np.zeros((2, 3, 2), np.uint8),
        codebooks=np.full((1, 2, 2, 4), 127, np.int8),
        codebook_scales=np.array([[scale, -np.nextafter(scale, np.float32(np.inf))]], np.float32),
        scales=None,
    )
    weights, magnitudes = algorithm.decode(tensor), algorithm.decode(tensor, magnitudes=True)
    assert np.abs(weights).max() < 0.1
    np.testing.assert_allclose(magnitudes, 2 * 127 * 1000.1, rtol=1e-6)
