"""Micro-benchmarks on a device: samples of the numbers that the cost model takes from a GPU's data file.

The kernels are those of templates/kernels/calibrate.cu. Each number is measured REPEATS times. Numbers in cycles are a
block's by the clock of its SM, and do not depend on how fast that is; the others are between events on the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.calibration.measurements import Elapsed, difference, per_sub_partition
from vqcc.runtime.device import DeviceArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from vqcc.runtime.device import Device, Graph

__all__ = ["Benchmarks", "calibration_source"]

REPEATS = 15
#: Of calibrate.cu: chains of a thread, instructions of a step of bits, words of a thread at a time, bytes of a node.
MULTIPLY_CHAINS, CHAINS, CHAIN_INSTRUCTIONS, WORDS, WORD_BYTES, NODE_BYTES = 4, 8, 3, 8, 16, 128
#: Threads of a block that keeps its SM's units busy, and blocks of an SM where all are: they are resident everywhere.
THREADS, BLOCKS_PER_SM = 512, 2
#: Two float16 ones, and arguments of integer instructions, of which it matters only that no compiler knows them.
ONES, OTHER, SELECTOR, SHIFT = 0x3C003C00, 0x9E3779B9, 0x5410, 7
#: Steps of kernels that count instructions, a millisecond or so; and those of a warp alone whose clock is read.
STEPS, CLOCK_STEPS = 1 << 14, 1 << 20
#: Memory that is streamed: so many times the second-level cache, and at least so much.
CACHE_MULTIPLE, STREAM_BYTES = 16, 1 << 30
#: What one SM reads so many times from the second-level cache: past its own, and little of that cache.
CACHED_BYTES, CACHED_STEPS = 1 << 20, 32
#: Nodes of the ring that is chased, few enough to need few pages; links of a repetition: together no node twice.
NODES, HOPS = 1 << 19, 2048
#: Launches in the two graphs whose times are subtracted, of streams and of empty kernels.
STREAMS, EMPTY_LAUNCHES = (2, 10), (64, 576)
#: Launches of everything at once until the clock is the one under load, and steps of each.
LOAD_LAUNCHES, LOAD_STEPS = 600, 4096


def calibration_source() -> str:
    """The micro-benchmarks as one source that stands alone."""
    from vqcc.codegen.device_parts import inline_headers
    from vqcc.data_files import templates_directory

    return "\n\n".join(map(str, inline_headers(templates_directory(), ("kernels/calibrate.cu",)))) + "\n"


class Benchmarks:
    """The micro-benchmarks in a cubin, loaded; an SM has `sub_partitions`. All raise VQ0807 where the driver fails.

    Each method samples the GPU's number of its name.
    """

    def __init__(self, device: Device, cubin: bytes, sub_partitions: int) -> None:
        self._device = device
        self._module = device.load(cubin)
        self._functions: dict[str, Any] = {}
        self._sub_partitions = sub_partitions
        self._grid = BLOCKS_PER_SM * device.sm_count
        self._elapsed = device.upload(np.zeros(2, np.int64))
        self._out = device.allocate(4 * self._grid * THREADS)
        unit = WORDS * WORD_BYTES * self._grid * THREADS
        self._bytes = -(-max(STREAM_BYTES, CACHE_MULTIPLE * device.l2_bytes) // unit) * unit
        self._words = np.int64(self._bytes // WORD_BYTES)
        self._memory = device.allocate(self._bytes)
        self._fill()

    def samples(self) -> Iterator[tuple[str, list[float]]]:
        """Every number that is measured, by its field's name: the highest clock before the one under load."""
        yield "sm_count", [float(self._device.sm_count)]
        for method in (
            self.boost_hertz,
            self.launch_seconds,
            self.dram_bytes_per_second,
            self.l2_bytes_per_cycle,
            self.dram_latency_cycles,
            self.multiply_cycles,
            self.integer_cycles,
            self.shared_roundtrip_per_shuffle,
            self.sustained_hertz,
        ):
            yield method.__name__, method()

    def boost_hertz(self) -> list[float]:
        """The clock while one warp works and all others rest."""
        return [each.hertz for each in self._repeat(lambda: self._combine_bits(CLOCK_STEPS, threads=32))]

    def sustained_hertz(self) -> list[float]:
        """The clock once all SMs have multiplied, combined bits and read memory for a second or so."""
        for _ in range(LOAD_LAUNCHES):
            self._load_up()
        return [each.hertz for each in self._repeat(self._load_up)]

    def launch_seconds(self) -> list[float]:
        """From one kernel that does nothing to the next in a graph, each with a block for every SM."""
        return self._seconds_of_one(
            EMPTY_LAUNCHES, lambda: self._launch("empty", grid=self._device.sm_count, threads=256)
        )

    def dram_bytes_per_second(self) -> list[float]:
        """What the whole GPU reads of memory that is many times the second-level cache."""

        def stream() -> None:
            self._launch("stream", self._memory, self._words, self._out, grid=self._grid)

        return [self._bytes / each if each > 0 else 0.0 for each in self._seconds_of_one(STREAMS, stream)]

    def l2_bytes_per_cycle(self) -> list[float]:
        """What an SM reads from the second-level cache while no other does."""
        arguments = (np.int32(CACHED_BYTES // WORD_BYTES), np.int32(CACHED_STEPS), self._out, self._elapsed)
        repeated = self._repeat(lambda: self._launch("read_cached", self._memory, *arguments, threads=1024))
        return [CACHED_BYTES * CACHED_STEPS / max(1, each.cycles) for each in repeated]

    def dram_latency_cycles(self) -> list[float]:
        """Until a load is there that no cache holds: lines of a ring, each read once, after the caches were filled."""
        ring = self._device.allocate(NODES * NODE_BYTES)
        self._launch("link_nodes", ring, np.uint32(NODES), grid=self._grid)
        node, found = np.zeros(1, np.uint32), []
        for _ in range(REPEATS):
            self._fill()
            self._launch("chase", ring, node[0], np.int32(HOPS), self._out, self._elapsed, threads=1)
            found.append(self._read_elapsed().cycles / HOPS)
            node = self._read(self._out, np.uint32, 1)
        return found

    def multiply_cycles(self) -> list[float]:
        """Of a sub-partition, for an mma.sync m16n8k16, several of each of its warps being under way."""
        arguments = (np.uint32(ONES), np.int32(STEPS), self._out, self._elapsed)
        repeated = self._repeat(lambda: self._launch("multiply", *arguments))
        return [self._instruction_cycles(each, MULTIPLY_CHAINS * STEPS) for each in repeated]

    def integer_cycles(self) -> list[float]:
        """Of a sub-partition, for a warp's prmt, shf or lop3."""
        repeated = self._repeat(lambda: self._combine_bits(STEPS, threads=THREADS))
        return [self._instruction_cycles(each, CHAIN_INSTRUCTIONS * CHAINS * STEPS) for each in repeated]

    def shared_roundtrip_per_shuffle(self) -> list[float]:
        """A store to shared memory and a load of another lane's, over a shuffle; each waits for the one before."""
        arguments = (np.int32(1), np.int32(STEPS), self._out, self._elapsed)
        shuffles = self._repeat(lambda: self._launch("shuffle", *arguments, threads=32))
        trips = self._repeat(lambda: self._launch("round_trip", *arguments, threads=32, shared_bytes=256))
        return [trip.cycles / max(1, one.cycles) for trip, one in zip(trips, shuffles, strict=True)]

    def _instruction_cycles(self, elapsed: Elapsed, instructions: int) -> float:
        return per_sub_partition(elapsed.cycles, THREADS // 32, instructions, self._sub_partitions)

    def _fill(self) -> None:
        """Write the memory that is streamed; what the caches held before is gone then."""
        self._launch("fill", self._memory, self._words, grid=self._grid)

    def _combine_bits(self, steps: int, *, threads: int) -> None:
        values = (np.uint32(OTHER), np.uint32(SELECTOR), np.int32(SHIFT), np.int32(steps))
        self._launch("combine_bits", *values, self._out, self._elapsed, threads=threads)

    def _load_up(self) -> None:
        sizes = (self._words, np.uint32(ONES), np.int32(LOAD_STEPS))
        self._launch("load_up", self._memory, *sizes, self._out, self._elapsed, grid=self._grid)

    def _launch(
        self, name: str, *arguments: Any, grid: int = 1, threads: int = THREADS, shared_bytes: int = 0
    ) -> None:
        if name not in self._functions:
            self._functions[name] = self._module.function(name, shared_bytes)
        values = [np.uint64(each.address) if isinstance(each, DeviceArray) else each for each in arguments]
        self._device.launch(self._functions[name], values, grid, threads, shared_bytes)

    def _repeat(self, launch: Callable[[], None]) -> list[Elapsed]:
        """Launch once to bring the kernel into the caches, then REPEATS times."""
        launch()
        found = []
        for _ in range(REPEATS):
            launch()
            found.append(self._read_elapsed())
        return found

    def _seconds_of_one(self, counts: tuple[int, int], launch: Callable[[], None]) -> list[float]:
        """Seconds of one launch, from graphs of few and of many."""
        launch()  # loads lazily what recording must not
        self._device.synchronize()
        few, many = (self._time(self._record(count, launch)) for count in counts)
        return difference(few, many, counts[1] - counts[0])

    def _record(self, count: int, launch: Callable[[], None]) -> Graph:
        def enqueue() -> None:
            for _ in range(count):
                launch()

        return self._device.record_graph(enqueue)

    def _time(self, graph: Graph) -> list[float]:
        self._device.time_replays(graph, 2)
        return self._device.time_replays(graph, REPEATS)

    def _read_elapsed(self) -> Elapsed:
        self._device.synchronize()
        cycles, nanoseconds = self._read(self._elapsed, np.int64, 2)
        return Elapsed(int(cycles), int(nanoseconds))

    def _read(self, array: DeviceArray, dtype: type, count: int) -> Any:
        """The first `count` elements of device memory."""
        whole: NDArray[Any] = np.zeros(array.size // np.dtype(dtype).itemsize, dtype)
        self._device.download(array, whole)
        return whole[:count]
