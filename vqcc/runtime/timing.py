"""Timing: CUDA-graph replays over inputs that rotate past the second-level cache.

A graph holds one launch per copy of the inputs, several times over, and enough copies that a launch finds none
of its data in the L2. The figure is the median over replays of a graph's time divided by its launches.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.compiled import CompiledKernel
    from vqcc.runtime.backend import CudaRunner
    from vqcc.runtime.device import Device, DeviceArray, Graph

__all__ = ["Timing", "copies_past_cache", "launches_of_graph", "summarize", "time_kernel", "time_torch"]

#: Copies of the inputs together hold this many times the L2.
_CACHE_MULTIPLE = 4
_MAX_COPIES = 256
#: Launches of one graph: enough that its own start-up, about a microsecond, does not show.
LAUNCHES = 128
#: Seconds that a graph takes at most, as far as its launches are of different copies: fewer do for slow kernels.
LONGEST_GRAPH = 0.02
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


def launches_of_graph(seconds: float, copies: int) -> int:
    """Launches of a graph, of a kernel that takes so many seconds: each copy of its inputs equally often."""
    rounds = min(-(-LAUNCHES // copies), int(LONGEST_GRAPH / (seconds * copies)))
    return copies * max(1, rounds)


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

    def record(launches: int) -> Graph:
        def enqueue() -> None:
            for i in range(launches):
                runner.enqueue(kernel, copies[i % len(copies)], scalars)

        return device.record_graph(enqueue)

    runner.enqueue(kernel, copies[0], scalars)  # loads lazily what recording must not
    device.synchronize()
    trial = device.time_replays(record(len(copies)), 2)
    launches = launches_of_graph(trial[-1] / len(copies), len(copies))
    graph = record(launches)
    device.time_replays(graph, _WARM_UP)
    return summarize(device.time_replays(graph, REPLAYS), launches)


def time_torch(operation: Callable[[int], object], copies: int) -> Timing:
    """Time a PyTorch operation in the same way; `operation(i)` works on copy i."""
    import torch

    cuda: Any = torch.cuda  # its classes have no types
    stream = cuda.Stream()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    trials = min(copies, 3)
    with torch.cuda.stream(stream):
        operation(0)
        start.record(stream)
        for i in range(trials):
            operation(i)
        end.record(stream)
    stream.synchronize()
    launches = launches_of_graph(start.elapsed_time(end) * 1e-3 / trials, copies)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(launches):
            operation(i % copies)
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
