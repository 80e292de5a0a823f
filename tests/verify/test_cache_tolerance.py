"""Bounds of attention: what rounding gives is within them, what is more is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cache_libraries import fake_cache_library

from vqcc.ops.attention.reference import attend
from vqcc.verify.cache_tolerance import compare_bytes, compare_log_sums, compare_outputs


@pytest.fixture
def kernel(tmp_path: Any) -> Any:
    """A library, and its kernel."""
    library = fake_cache_library(tmp_path, "cq-2", level="gc")
    return library, library.builds["h200"].kernels[0]


@pytest.fixture
def exact() -> Any:
    rng = np.random.default_rng(0)
    keys, values = ([rng.standard_normal((1, 40, 64)) for _ in "ab"] for _ in "kv")
    return attend(rng.standard_normal((2, 1, 2, 64)), keys, values, scale=0.125)


def test_rounding_is_within(kernel: Any, exact: Any) -> None:
    assert compare_outputs(exact.outputs.astype(np.float16), exact, *kernel, 40).passed
    assert compare_log_sums(exact.log_sums.astype(np.float32), exact, *kernel, 40).passed


@pytest.mark.parametrize("off", [3e-3, np.nan, np.inf])
def test_one_wrong_element_is_not(kernel: Any, exact: Any, off: float) -> None:
    outputs = exact.outputs.astype(np.float16)
    outputs[1, 0, 1, 7] += np.float16(off)
    found = compare_outputs(outputs, exact, *kernel, 40)
    assert not found.passed
    assert found.position == (1, 0, 1, 7)


def test_all_elements_slightly_off_are_not(kernel: Any, exact: Any) -> None:
    """A weight that is left out changes each output by less than its own bound might admit in a long context."""
    found = compare_outputs((exact.outputs * 1.004).astype(np.float16), exact, *kernel, 1 << 20)
    assert not found.passed


@pytest.mark.parametrize("off", [1e-4, np.nan])
def test_a_wrong_log_sum_is_not(kernel: Any, exact: Any, off: float) -> None:
    log_sums = exact.log_sums.astype(np.float32)
    log_sums[1, 0, 0] += np.float32(off)
    assert not compare_log_sums(log_sums, exact, *kernel, 40).passed


def test_empty_sequences(kernel: Any) -> None:
    """Their outputs are zero, their log-sum-exps minus infinity: nothing else passes."""
    nothing = np.zeros((1, 0, 64))
    exact = attend(np.ones((1, 1, 1, 64)), [nothing], [nothing], scale=1.0)
    assert compare_outputs(np.zeros((1, 1, 1, 64), np.float16), exact, *kernel, 0).passed
    assert compare_log_sums(np.full((1, 1, 1), -np.inf, np.float32), exact, *kernel, 0).passed
    assert not compare_log_sums(np.zeros((1, 1, 1), np.float32), exact, *kernel, 0).passed
    assert not compare_log_sums(np.full((1, 1, 1), np.nan, np.float32), exact, *kernel, 0).passed


def test_bytes() -> None:
    array = np.arange(16, dtype=np.uint32)
    assert compare_bytes(array.view(np.uint8), array).passed
    other = array.copy()
    other[3] ^= 1 << 9
    found = compare_bytes(other.view(np.uint8), array)
    assert not found.passed
    assert found.position == (13,)
