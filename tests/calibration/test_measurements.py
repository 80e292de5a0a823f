"""From cycles and seconds to a GPU's numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.calibration.measurements import Elapsed, Measurement, difference, per_sub_partition, summarize
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.gpus.model import RANGES


def test_the_clock_is_cycles_by_seconds() -> None:
    assert Elapsed(1_980_000, 1_000_000).hertz == pytest.approx(1.98e9)
    assert Elapsed(1_980_000, 0).hertz == 0


def test_the_median_stands_for_the_samples() -> None:
    found = summarize("launch_seconds", [1.2e-6, 0.9e-6, 1.0561e-6])
    assert found == Measurement("launch_seconds", 1.06e-6, 0.9e-6, 1.2e-6)
    assert found.spread == pytest.approx(0.3 / 1.06)


@given(st.lists(st.floats(1e9, 1e13), min_size=1, max_size=9))
def test_a_value_is_near_its_samples(samples: list[float]) -> None:
    found = summarize("dram_bytes_per_second", samples)
    assert found.low <= found.high
    assert found.low * 0.995 <= found.value <= found.high * 1.005


def test_counts_are_whole() -> None:
    found = summarize("sm_count", [132.0])
    assert (found.value, type(found.value)) == (132, int)


def test_an_instruction_takes_a_cycle_at_least() -> None:
    assert summarize("integer_cycles", [0.99, 0.98, 0.99]).value == 1.0


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("launch_seconds", [-1e-7] * 3),
        ("dram_bytes_per_second", [0.0] * 3),
        ("dram_bytes_per_second", [2e12, math.inf, 2e12]),
        ("boost_hertz", [math.nan] * 2),
        ("integer_cycles", [0.5]),
        ("multiply_cycles", [RANGES["multiply_cycles"][1] * 2]),
    ],
)
def test_what_no_gpu_can_have_is_refused(name: str, samples: list[float]) -> None:
    with pytest.raises(VqccError) as caught:
        summarize(name, samples)
    (item,) = caught.value.diagnostics
    assert (item.code, caught.value.exit_code) == ("VQ0409", ExitCode.MISMATCH)
    assert name in item.message


def test_what_both_runs_take_cancels_out() -> None:
    assert difference([5.0, 5.2, 4.8], [25.0, 26.0], 20) == pytest.approx([1.0, 1.05])


def test_warps_share_sub_partitions() -> None:
    assert per_sub_partition(8 * 4 * 100, warps=16, instructions=100, sub_partitions=4) == 8
