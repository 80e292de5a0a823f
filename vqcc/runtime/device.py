"""A CUDA device through PyCUDA: the only module that imports it.

The device's primary context is retained, so that PyTorch in the same process shares it. Whatever goes wrong,
the context is popped again and the error becomes a diagnostic: nothing here aborts the process.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Device", "DeviceArray", "Graph", "Module", "open_device"]

#: CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, by number: not every PyCUDA has a name for it.
_PREFERRED_CARVEOUT = 9
#: What helps those who have no device and want to see kernels run.
VALIDATE_WITHOUT = "`vqcc validate` runs kernels on the CPU without it"


class DeviceArray:
    """Device memory holding a copy of an array; freed with its device."""

    def __init__(self, allocation: Any, size: int) -> None:
        self.allocation = allocation
        self.size = size

    @property
    def address(self) -> int:
        """Device address."""
        return int(self.allocation)


class Module:
    """A loaded cubin."""

    def __init__(self, module: Any, driver: Any) -> None:
        self._module = module
        self._driver = driver

    def function(self, name: str, shared_bytes: int, carveout_percent: int = 0) -> Any:
        """Kernel `name`, allowed `shared_bytes` of dynamic shared memory.

        `carveout_percent` of an SM's shared memory is what its blocks need at a time; 0 leaves the driver's default.
        """
        with _reported(self._driver, f"kernel {name}"):
            function = self._module.get_function(name)
            attributes = self._driver.function_attribute
            function.set_attribute(attributes.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes)
            if carveout_percent:
                function.set_attribute(attributes(_PREFERRED_CARVEOUT), carveout_percent)
            return function


class Graph:
    """A recorded sequence of launches that replays without the CPU in its way."""

    def __init__(self, executable: Any, stream: Any) -> None:
        self._executable = executable
        self._stream = stream

    def replay(self) -> None:
        """Enqueue all of the recorded launches once."""
        from cuda.bindings import driver

        _check(driver.cuGraphLaunch(self._executable, self._stream.handle), "replaying a CUDA graph")


class Device:
    """One GPU with its primary context current."""

    def __init__(self, driver: Any, device: Any) -> None:
        self._driver = driver
        self._device = device
        self.stream = driver.Stream()
        self.name: str = device.name().strip("\0 ")
        self.compute_capability: tuple[int, int] = device.compute_capability()

    @property
    def target(self) -> str:
        """`sm_90` and the like."""
        return "sm_{}{}".format(*self.compute_capability)

    @property
    def sm_count(self) -> int:
        """Streaming multiprocessors that the driver shows."""
        return int(self._device.get_attribute(self._driver.device_attribute.MULTIPROCESSOR_COUNT))

    @property
    def l2_bytes(self) -> int:
        """Size of the second-level cache."""
        return int(self._device.get_attribute(self._driver.device_attribute.L2_CACHE_SIZE))

    @property
    def free_bytes(self) -> int:
        """Device memory that nobody has taken."""
        with _reported(self._driver, "asking for free memory"):
            return int(self._driver.mem_get_info()[0])

    @property
    def driver_release(self) -> str:
        """The driver's release, "580.65.06", where the system tells it; else the CUDA version it supports."""
        from pathlib import Path

        text = Path("/sys/module/nvidia/version")
        if text.is_file():
            return text.read_text(encoding="ascii").strip()
        version = int(self._driver.get_driver_version())
        return f"CUDA {version // 1000}.{version % 1000 // 10}"

    def load(self, cubin: bytes) -> Module:
        """Load a cubin. Raises VQ0807 if the driver refuses it."""
        with _reported(self._driver, "loading the cubin"):
            return Module(self._driver.module_from_buffer(cubin), self._driver)

    def upload(self, array: NDArray[Any]) -> DeviceArray:
        """Copy an array to the device."""
        import numpy as np

        contiguous = np.ascontiguousarray(array).view(np.uint8)
        with _reported(self._driver, f"allocating {contiguous.nbytes} bytes"):
            allocation = self._driver.mem_alloc(max(contiguous.nbytes, 16))
            self._driver.memcpy_htod(allocation, contiguous)
        return DeviceArray(allocation, contiguous.nbytes)

    def allocate(self, size: int) -> DeviceArray:
        """Device memory of `size` bytes that hold anything."""
        with _reported(self._driver, f"allocating {size} bytes"):
            return DeviceArray(self._driver.mem_alloc(max(size, 16)), size)

    def repeat(self, pattern: NDArray[Any], size: int) -> DeviceArray:
        """Device memory of `size` bytes that hold `pattern` over and over."""
        import numpy as np

        contiguous = np.ascontiguousarray(pattern).view(np.uint8).reshape(-1)
        made = self.allocate(size)
        with _reported(self._driver, f"filling {size} bytes"):
            filled = min(size, contiguous.nbytes)
            self._driver.memcpy_htod(made.allocation, contiguous[:filled])
            while filled < size:
                more = min(filled, size - filled)
                self._driver.memcpy_dtod(int(made.allocation) + filled, made.allocation, more)
                filled += more
        return made

    def clone(self, source: DeviceArray) -> DeviceArray:
        """Copy device memory to new device memory."""
        with _reported(self._driver, f"allocating {source.size} bytes"):
            allocation = self._driver.mem_alloc(max(source.size, 16))
            self._driver.memcpy_dtod(allocation, source.allocation, source.size)
        return DeviceArray(allocation, source.size)

    def download(self, source: DeviceArray, target: NDArray[Any]) -> None:
        """Copy device memory back over `target`."""
        import numpy as np

        staging = np.empty(source.size, dtype=np.uint8)
        with _reported(self._driver, "copying results back"):
            self._driver.memcpy_dtoh(staging, source.allocation)
        target[...] = staging.view(target.dtype).reshape(target.shape)

    def launch(
        self, function: Any, arguments: Sequence[Any], grid: int, threads: int, shared_bytes: int
    ) -> None:
        """Enqueue one launch on the device's stream."""
        with _reported(self._driver, "launching a kernel"):
            function(
                *arguments, grid=(grid, 1, 1), block=(threads, 1, 1), shared=shared_bytes, stream=self.stream
            )

    def synchronize(self) -> None:
        """Wait for the stream; what kernels did wrong surfaces here. Raises VQ0807."""
        with _reported(self._driver, "running a kernel", ExitCode.MISMATCH):
            self.stream.synchronize()

    def record_graph(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` launches on the device's stream."""
        from cuda.bindings import driver

        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _check(driver.cuStreamBeginCapture(self.stream.handle, mode), "recording a CUDA graph")
        try:
            enqueue()
        finally:
            captured = driver.cuStreamEndCapture(self.stream.handle)
        graph = _check(captured, "recording a CUDA graph")
        executable = _check(driver.cuGraphInstantiate(graph, 0), "instantiating a CUDA graph")
        return Graph(executable, self.stream)

    def time_replays(self, graph: Graph, count: int) -> list[float]:
        """Seconds of each of `count` replays, between events on the stream."""
        start, end = self._driver.Event(), self._driver.Event()
        seconds = []
        with _reported(self._driver, "timing"):
            for _ in range(count):
                start.record(self.stream)
                graph.replay()
                end.record(self.stream)
                end.synchronize()
                seconds.append(start.time_till(end) * 1e-3)
        return seconds


@contextmanager
def open_device(index: int = 0, *, without: str = VALIDATE_WITHOUT) -> Iterator[Device]:
    """Make GPU `index` current for the duration. Raises VQ0806 (exit code 5) without PyCUDA, driver or GPU.

    The help of that ends with what the user can do `without` a device.
    """
    try:
        from pycuda import driver
    except ImportError as error:
        raise _without_pycuda(error, without) from None
    try:
        driver.init()
        gpu = driver.Device(index)
        context = gpu.retain_primary_context()
        context.push()
    except driver.Error as error:
        raise _no_device(f"no CUDA device can be used: {error}", f"see `vqcc doctor`; {without}") from None
    try:
        with _reported(driver, "opening the device"):
            device = Device(driver, gpu)
        yield device
    finally:
        context.pop()


def _without_pycuda(error: ImportError, without: str) -> VqccError:
    """Name what to mend first: without a driver or a GPU, PyCUDA would help nobody."""
    from vqcc.doctor import why_no_gpu

    trouble = why_no_gpu()
    install = "pip install 'vqcc[gpu]' (it builds from source and needs a CUDA toolkit)"
    message = f"PyCUDA cannot be imported: {error}"
    if trouble is not None:
        message = f"{trouble.rstrip('.')}; and {message}"
        install = f"on a machine with an NVIDIA GPU and its driver, {install}"
    return _no_device(message, f"{install}; {without}")


def _no_device(message: str, help_text: str) -> VqccError:
    return VqccError(Diagnostic("VQ0806", message, help=help_text), exit_code=ExitCode.NO_DEVICE)


def _failed(doing: str, error: object, exit_code: ExitCode = ExitCode.NO_DEVICE) -> VqccError:
    return VqccError(
        Diagnostic("VQ0807", f"the CUDA driver failed while {doing}: {error}", help="run `vqcc doctor`"),
        exit_code=exit_code,
    )


@contextmanager
def _reported(driver: Any, doing: str, exit_code: ExitCode = ExitCode.NO_DEVICE) -> Iterator[None]:
    """Turn PyCUDA's errors into diagnostics; what a kernel did wrong is a mismatch, not a missing device."""
    try:
        yield
    except driver.Error as error:
        raise _failed(doing, error, exit_code) from None


def _check(result: tuple[Any, ...], doing: str) -> Any:
    """The value of a cuda-bindings call, whose first element is its error."""
    error, *values = result
    if int(error) != 0:
        raise _failed(doing, error.name)
    return values[0] if values else None
