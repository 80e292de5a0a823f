"""The functions of libcuda that load and launch kernels, through ctypes: what vqcc/driver.h is for programs in C."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["INVALID_CONTEXT", "Driver", "LaunchAttribute", "LaunchConfig", "open_driver"]

#: CUDA_ERROR_INVALID_CONTEXT: the calling thread has no context yet.
INVALID_CONTEXT = 201

_INT, _UINT, _POINTER = ctypes.c_int, ctypes.c_uint, ctypes.c_void_p
_LAUNCH_SIZES = (_UINT,) * 7

#: CUfunction_attribute and CUdevice_attribute, by number, as the headers that vqcc emits have them.
_MAX_DYNAMIC_SHARED_BYTES, _PREFERRED_CARVEOUT = 8, 9
_SM_COUNT, _MAJOR, _MINOR = 16, 75, 76


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute; only programmatic stream serialization is ever asked for."""

    _fields_ = (("id", _INT), ("padding", _INT), ("value", ctypes.c_uint64 * 8))


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig: grid and block of three axes each."""

    _fields_ = (
        ("grid", _UINT * 3),
        ("block", _UINT * 3),
        ("shared_bytes", _UINT),
        ("stream", _POINTER),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", _UINT),
    )


class Driver:
    """Driver functions of a shared library. Those that launch return a CUresult, the others raise RuntimeError."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.launch_kernel = self._function(
            "cuLaunchKernel", _POINTER, *_LAUNCH_SIZES, _POINTER, _POINTER, _POINTER
        )
        #: None where the driver is too old for launches that overlap.
        self.launch_kernel_ex: Any = self._optional(
            "cuLaunchKernelEx", _POINTER, _POINTER, _POINTER, _POINTER
        )
        self.set_context = self._function("cuCtxSetCurrent", _POINTER)
        self._error_name = self._optional("cuGetErrorName", _INT, ctypes.POINTER(ctypes.c_char_p))
        self._load_function = self._optional("cuFuncLoad", _POINTER)

    def load_module(self, image: bytes) -> int:
        """Load a cubin into the current context."""
        module = _POINTER()
        self._call("cuModuleLoadData", (_POINTER, ctypes.c_char_p), ctypes.byref(module), image)
        return module.value or 0

    def unload_module(self, module: int) -> None:
        """Unload a module of the current context."""
        self._call("cuModuleUnload", (_POINTER,), module)

    def get_function(self, module: int, name: str) -> int:
        """The kernel of a name, with its code on the device: a first launch must not have to bring it there."""
        function = _POINTER()
        types = (_POINTER, _POINTER, ctypes.c_char_p)
        self._call("cuModuleGetFunction", types, ctypes.byref(function), module, name.encode())
        if self._load_function is not None:
            self._check("cuFuncLoad", self._load_function(function))
        return function.value or 0

    def allow_shared_bytes(self, function: int, shared_bytes: int, carveout_percent: int) -> None:
        """Allow a kernel its dynamic shared memory; a carve-out of 0 leaves the driver's choice."""
        wanted = [(_MAX_DYNAMIC_SHARED_BYTES, shared_bytes)]
        if carveout_percent:
            wanted.append((_PREFERRED_CARVEOUT, carveout_percent))
        for attribute, value in wanted:
            self._call("cuFuncSetAttribute", (_POINTER, _INT, _INT), function, attribute, value)

    def current_context(self, device: int) -> int:
        """The context that is current in this thread, which is the primary one of `device` if there was none."""
        context = _POINTER()
        self._call("cuCtxGetCurrent", (_POINTER,), ctypes.byref(context))
        if not context.value:
            number = _INT()
            self._call("cuDeviceGet", (_POINTER, _INT), ctypes.byref(number), device)
            self._call("cuDevicePrimaryCtxRetain", (_POINTER, _INT), ctypes.byref(context), number)
            self._check("cuCtxSetCurrent", self.set_context(context))
        return context.value or 0

    def device_facts(self) -> tuple[int, int, int]:
        """Compute capability (major, minor) and multiprocessors of the current context's device."""
        device = _INT()
        self._call("cuCtxGetDevice", (_POINTER,), ctypes.byref(device))
        major, minor, sm_count = (self._attribute(name, device.value) for name in (_MAJOR, _MINOR, _SM_COUNT))
        return major, minor, sm_count

    def error_text(self, function: str, result: int) -> str:
        """What a function that failed is reported as."""
        name = ctypes.c_char_p()
        if self._error_name is not None and self._error_name(result, ctypes.byref(name)) == 0 and name.value:
            return f"{function} failed: {name.value.decode()}"
        return f"{function} failed with CUresult {result}"

    def _attribute(self, attribute: int, device: int) -> int:
        value = _INT()
        types = (_POINTER, _INT, _INT)
        self._call("cuDeviceGetAttribute", types, ctypes.byref(value), attribute, device)
        return value.value

    def _call(self, name: str, types: tuple[Any, ...], *arguments: Any) -> None:
        self._check(name, self._function(name, *types)(*arguments))

    def _check(self, name: str, result: int) -> None:
        if result != 0:
            raise RuntimeError(self.error_text(name, result))

    def _function(self, name: str, *types: Any) -> Any:
        # From the symbol, not the attribute: ctypes shares the latter, and its types, with everyone.
        return ctypes.CFUNCTYPE(_INT, *types)((name, self._library))

    def _optional(self, name: str, *types: Any) -> Any | None:
        return self._function(name, *types) if hasattr(self._library, name) else None


@cache
def open_driver() -> Driver:
    """The driver of this machine. Raises RuntimeError without one."""
    try:
        return Driver(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        raise RuntimeError(
            f"no NVIDIA driver is installed: {error}. Run `vqcc doctor`; tensors on the CPU are emulated"
        ) from None
