"""Timing: CUDA-graph replays over inputs that rotate past the second-level cache.

A graph holds one launch per copy of the inputs, several times over, and enough copies that a launch finds none
of its data in the L2. The figure is the median over replays of a graph's time divided by its launches.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.compiled import CompiledKernel
    from vqcc.runtime.backend import CudaRunner
    from vqcc.runtime.device import Device, DeviceArray

__all__ = ["Timing", "copies_past_cache", "summarize", "time_kernel", "time_torch"]

#: Copies of the inputs together hold this many times the L2.
_CACHE_MULTIPLE = 4
_MAX_COPIES = 256
#: Launches of one graph: enough that its own start-up, about a microsecond, does not show.
LAUNCHES = 128
REPLAYS = 25
_WARM_UP = 5


@dataclass(frozen=True)
class Timing:
    """Microseconds of one launch: median, smallest and largest over the replays."""

    us: float
    us_min: float
    us_max: float


def copies_past_cache(bytes_per_launch: int, l2_bytes: int) -> int:
    """How many copies of the inputs defeat an L2 of `l2_bytes`."""
    return max(2, min(_MAX_COPIES, -(-_CACHE_MULTIPLE * l2_bytes // max(1, bytes_per_launch))))


def summarize(seconds: Sequence[float], launches: int) -> Timing:
    """Microseconds per launch from the seconds of each replay of `launches` launches."""
    each = [1e6 * value / launches for value in seconds]
    return Timing(statistics.median(each), min(each), max(each))


def time_kernel(
    device: Device,
    runner: CudaRunner,
    kernel: CompiledKernel,
    copies: Sequence[Mapping[str, DeviceArray]],
    scalars: Mapping[str, float],
) -> Timing:
    """Time one kernel over `copies` of its arrays."""
    launches = -(-LAUNCHES // len(copies)) * len(copies)

    def enqueue() -> None:
        for i in range(launches):
            runner.enqueue(kernel, copies[i % len(copies)], scalars)

    runner.enqueue(kernel, copies[0], scalars)  # loads lazily what recording must not
    device.synchronize()
    graph = device.record_graph(enqueue)
    device.time_replays(graph, _WARM_UP)
    return summarize(device.time_replays(graph, REPLAYS), launches)


def time_torch(operation: Callable[[int], object], copies: int) -> Timing:
    """Time a PyTorch operation in the same way; `operation(i)` works on copy i."""
    import torch

    launches = -(-LAUNCHES // copies) * copies
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(min(copies, 3)):
            operation(i)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(launches):
            operation(i % copies)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    seconds = []
    with torch.cuda.stream(stream):
        for i in range(_WARM_UP + REPLAYS):
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            if i >= _WARM_UP:
                seconds.append(start.elapsed_time(end) * 1e-3)
    return summarize(seconds, launches)
