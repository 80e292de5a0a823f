"""A library's kernels in one context, and how one is launched with parameters of Python numbers."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import TYPE_CHECKING, Any

from vqcc.torch.driver import INVALID_CONTEXT, LaunchAttribute, LaunchConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.compiled import CompiledKernel
    from vqcc.ops.base import Argument
    from vqcc.torch.driver import Driver

__all__ = ["LoadedKernels", "find_gpu"]

#: Native sizes and alignment: parameters lie as a C struct's members do.
_FORMATS = {"int32_t": "i", "int64_t": "q", "float": "f"}
_OVERLAPS = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


class _Parameters(threading.local):
    """Where a thread's parameters lie while the driver copies them; ctypes lets other threads run meanwhile."""

    def __init__(self, arguments: Sequence[Argument]) -> None:
        formats = [_FORMATS.get(argument.c_type, "Q") for argument in arguments]
        layout = struct.Struct("@" + "".join(formats))
        self._buffer = ctypes.create_string_buffer(layout.size)
        start = ctypes.addressof(self._buffer)
        ends = [struct.calcsize("@" + "".join(formats[: i + 1])) for i in range(len(formats))]
        places = [start + end - struct.calcsize(each) for end, each in zip(ends, formats, strict=True)]
        self.pointers = (ctypes.c_void_p * len(places))(*places)
        self._pack_into = layout.pack_into

    def store(self, values: Sequence[Any]) -> None:
        """Put the values of all parameters where `pointers` point."""
        self._pack_into(self._buffer, 0, *values)


class LoadedKernels:
    """Kernels of a cubin, in the context that was current when it was loaded; they stay for the process's life."""

    def __init__(
        self,
        driver: Driver,
        context: int,
        cubin: bytes,
        kernels: Sequence[CompiledKernel],
        *,
        can_overlap: bool = False,
    ) -> None:
        """Load them into `context`, which is current, or none if one cannot be. Raises RuntimeError."""
        self._driver = driver
        self._can_overlap = can_overlap and driver.launch_kernel_ex is not None
        self._context = context
        module = driver.load_module(cubin)
        try:
            self._launches = [self._prepared(module, kernel) for kernel in kernels]
        except RuntimeError:
            driver.unload_module(module)
            raise

    def _prepared(self, module: int, kernel: CompiledKernel) -> tuple[Any, ...]:
        function, launch = self._driver.get_function(module, kernel.name), kernel.launch
        self._driver.allow_shared_bytes(function, launch.dynamic_shared_bytes, launch.carveout_percent)
        return function, launch.threads, launch.dynamic_shared_bytes, _Parameters(kernel.arguments)

    def launch(self, kernel: int, blocks: int, values: Sequence[Any], stream: int, *, overlap: bool) -> None:
        """Enqueue kernel number `kernel` on a CUstream; `values` are its parameters. Raises RuntimeError.

        With `overlap` it may start while the kernel before it ends, where GPU and driver can.
        """
        function, threads, shared_bytes, parameters = self._launches[kernel]
        parameters.store(values)
        if overlap and self._can_overlap:
            config = _overlapping(blocks, threads, shared_bytes, stream)
            name, launch = "cuLaunchKernelEx", self._driver.launch_kernel_ex
            arguments: tuple[Any, ...] = (ctypes.byref(config), function, parameters.pointers, None)
        else:
            name, launch = "cuLaunchKernel", self._driver.launch_kernel
            arguments = (
                function,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                shared_bytes,
                stream,
                parameters.pointers,
                None,
            )
        result = launch(*arguments)
        if result == INVALID_CONTEXT and self._driver.set_context(self._context) == 0:
            # A thread that has called nothing of CUDA's runtime yet: tensors from PyTorch's cache do not.
            result = launch(*arguments)
        if result != 0:
            raise RuntimeError(self._driver.error_text(name, result))


def _overlapping(blocks: int, threads: int, shared_bytes: int, stream: int) -> LaunchConfig:
    attribute = LaunchAttribute(_OVERLAPS)
    attribute.value[0] = 1
    return LaunchConfig((blocks, 1, 1), (threads, 1, 1), shared_bytes, stream, ctypes.pointer(attribute), 1)


def find_gpu(gpus: Sequence[tuple[str, int]], device: tuple[int, int, int]) -> int | None:
    """Which of a library's GPUs, by target and multiprocessors, a device is, as `_find_gpu` of the C header says.

    The one of its compute capability that is made for as many multiprocessors as it has, or for the most below that.
    """
    major, minor, sm_count = device
    fitting = [
        index
        for index, (target, count) in enumerate(gpus)
        if target == f"sm_{major}{minor}" and count <= sm_count
    ]
    return max(fitting, key=lambda index: (gpus[index][1], -index), default=None)
