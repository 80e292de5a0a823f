"""Nearest entries of the E8P codebook against all 65,536."""

from __future__ import annotations

import numpy as np
import pytest

from vqcc.algorithms.e8p import grid
from vqcc.tensors.lattice import encode, nearest_codes


@pytest.mark.parametrize("size", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_no_entry_is_nearer(size: float) -> None:
    vectors = (np.random.default_rng(0).standard_normal((200, 8)) * size).astype(np.float32)
    found = ((vectors - grid()[nearest_codes(vectors)]).astype(np.float64) ** 2).sum(axis=1)
    least = [((vector - grid()).astype(np.float64) ** 2).sum(axis=1).min() for vector in vectors]
    assert found == pytest.approx(np.array(least), rel=1e-6)


def test_every_entry_is_its_own_nearest() -> None:
    assert np.array_equal(nearest_codes(grid()), np.arange(65536))


@pytest.mark.parametrize("value", [0.0, 1e30, -1e30])
def test_vectors_far_outside_have_codes_too(value: float) -> None:
    assert nearest_codes(np.full((3, 8), value, np.float32)).dtype == np.uint16


def test_error_on_normal_vectors_is_the_codebooks_known_one() -> None:
    # A mean squared error of 0.0913 at scale 1.03 on unit normals: two bits of an ideal scalar quantizer
    # leave 0.1175.
    vectors = np.random.default_rng(0).standard_normal((20000, 8)).astype(np.float32)
    _, decoded = encode(vectors * np.float32(1.03), 1)
    assert np.mean((vectors - decoded / 1.03) ** 2) == pytest.approx(0.0913, abs=0.001)


def test_the_second_stage_refines_the_first() -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    codes, decoded = encode(vectors, 2)
    assert codes.shape == (2, 2000)
    expected = grid()[codes[0]] + grid()[codes[1]] / np.float32(3.45)
    assert np.allclose(decoded, expected, atol=1e-6)
    assert np.mean((vectors - decoded) ** 2) < 0.012
