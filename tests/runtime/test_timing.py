from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.runtime.timing import (
    LAUNCHES,
    REPLAYS,
    Timing,
    copies_past_cache,
    launches_of_graph,
    summarize,
    time_kernel,
)


def test_medians_in_microseconds() -> None:
    timing = summarize([3e-3, 1e-3, 2e-3, 10e-3, 2.5e-3], 100)
    assert (timing.us, timing.us_min, timing.us_max) == pytest.approx((25.0, 10.0, 100.0))


@given(st.lists(st.floats(1e-7, 1.0), min_size=1, max_size=50), st.integers(1, 1000))
def test_the_median_lies_between_the_ends(seconds: list[float], launches: int) -> None:
    timing = summarize(seconds, launches)
    assert timing.us_min <= timing.us <= timing.us_max
    assert timing.us_max == pytest.approx(1e6 * max(seconds) / launches)


@given(st.integers(0, 1 << 34), st.integers(1 << 20, 1 << 28))
def test_copies_together_pass_the_cache(moved: int, l2_bytes: int) -> None:
    copies = copies_past_cache(moved, l2_bytes)
    assert 2 <= copies <= 256
    assert copies == 256 or copies * moved >= 4 * l2_bytes
    assert copies == 2 or (copies - 1) * moved < 4 * l2_bytes


def test_known_numbers_of_copies() -> None:
    megabyte = 1 << 20
    assert copies_past_cache(8 * megabyte, 50 * megabyte) == 25
    assert copies_past_cache(1 << 30, 50 * megabyte) == 2
    assert copies_past_cache(100, 50 * megabyte) == 256


@pytest.mark.parametrize("count", [2, 25, 100, 256])
def test_every_copy_is_launched_equally_often(count: int) -> None:
    enqueued: list[int] = []
    replays: list[int] = []

    def record_graph(enqueue: Any) -> str:
        del enqueued[:]
        enqueue()
        return "graph"

    def time_replays(graph: str, replayed: int) -> list[float]:
        assert graph == "graph"
        replays.append(replayed)
        return [len(enqueued) * 5e-6] * replayed

    device = SimpleNamespace(synchronize=lambda: None, record_graph=record_graph, time_replays=time_replays)
    runner = SimpleNamespace(enqueue=lambda _kernel, arrays, _scalars: enqueued.append(arrays))
    copies: Any = list(range(count))
    timing = time_kernel(device, runner, None, copies, {})  # type: ignore[arg-type]
    assert timing == Timing(pytest.approx(5.0), pytest.approx(5.0), pytest.approx(5.0))
    assert len(enqueued) >= LAUNCHES
    assert {enqueued.count(copy) for copy in copies} == {len(enqueued) // count}
    assert replays[-1] == REPLAYS
    assert len(replays) == 3, "a trial and a warm-up come first and do not count"


@pytest.mark.parametrize(
    ("seconds", "copies", "launches"),
    [(5e-6, 2, 128), (5e-6, 100, 200), (1e-3, 2, 20), (1e-3, 16, 16), (1.0, 2, 2)],
)
def test_slow_kernels_are_launched_less_often(seconds: float, copies: int, launches: int) -> None:
    """Of a graph of 20 ms, unless there are more copies: all of them are launched."""
    assert launches_of_graph(seconds, copies) == launches
