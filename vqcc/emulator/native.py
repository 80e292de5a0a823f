"""The C++ runtime as Python sees it. The structures mirror host/runtime/result.h, launch.cc and kernel.h."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OUT_OF_MEMORY = 23  # kind of a failure that is not the kernel's

COUNTER_NAMES = (  # in the order of the runtime's structure
    "shared_loads",
    "shared_stores",
    "shared_load_wavefronts",
    "shared_store_wavefronts",
    "shared_load_ideal",
    "shared_store_ideal",
    "global_loads",
    "global_stores",
    "global_load_bytes",
    "global_store_bytes",
    "global_load_sectors",
    "global_store_sectors",
    "global_load_requests",
    "global_store_requests",
    "shuffles",
    "votes",
    "warp_barriers",
    "block_barriers",
    "atomics",
    "shared_atomics",
    "tensor_multiplies",
    "remote_loads",
    "remote_stores",
    "remote_load_bytes",
    "remote_store_bytes",
    "remote_load_requests",
    "remote_store_requests",
    "cluster_barriers",
    "stage_arrivals",
    "stage_waits",
    "group_barriers",
    "bulk_copies",
    "bulk_copy_bytes",
)

__all__ = [
    "COUNTER_NAMES",
    "OUT_OF_MEMORY",
    "Counted",
    "Failure",
    "Index3",
    "KernelEntry",
    "Placement",
    "Request",
    "Result",
    "kernel_table",
    "load_runtime",
]


class Index3(ctypes.Structure):
    """Three coordinates."""

    _fields_ = (("x", c_uint32), ("y", c_uint32), ("z", c_uint32))

    def as_tuple(self) -> tuple[int, int, int]:
        """As (x, y, z)."""
        return (self.x, self.y, self.z)


class ThreadState(ctypes.Structure):
    """Where one thread of the block stood."""

    _fields_ = (
        ("wait", c_uint8),
        ("operation", c_uint8),
        ("unused", c_uint16),
        ("site", c_uint32),
        ("mask", c_uint32),
    )


class Failure(ctypes.Structure):
    """The first bug of a launch; kind 0 if there is none."""

    _fields_ = (
        ("kind", c_int32),
        ("region", c_int32),
        ("owner", c_int32),
        ("offset", c_int64),
        ("address", c_uint64),
        ("bytes", c_uint32),
        ("access", c_uint8),
        ("other_access", c_uint8),
        ("thread", c_uint16),
        ("block", Index3),
        ("site", c_uint32),
        ("other_site", c_uint32),
        ("other_thread", c_uint32),
        ("other_block", c_uint32),
        ("mask", c_uint32),
        ("thread_count", c_uint32),
        ("threads", ThreadState * 1024),
    )


class Counted(ctypes.Structure):
    """Counters of a launch."""

    _fields_ = tuple((name, c_uint64) for name in COUNTER_NAMES)


class Result(ctypes.Structure):
    """What a launch returns."""

    _fields_ = (("failure", Failure), ("counters", Counted), ("steps", c_int64))


class Parameter(ctypes.Structure):
    """One parameter of a kernel."""

    _fields_ = (("bytes", c_uint32), ("alignment", c_uint32), ("kind", c_char))


class KernelEntry(ctypes.Structure):
    """One line of a module's table of kernels; the table ends with a null name."""

    _fields_ = (
        ("name", c_char_p),
        ("function", c_void_p),
        ("invoke", c_void_p),
        ("parameters", ctypes.POINTER(Parameter)),
        ("parameter_count", c_uint32),
        ("cluster", c_uint32),
    )


class Placement(ctypes.Structure):
    """A buffer to lay out; the runtime fills in its address."""

    _fields_ = (
        ("data", c_void_p),
        ("bytes", c_uint64),
        ("alignment", c_uint64),
        ("is_writable", c_uint32),
        ("unused", c_uint32),
        ("address", c_uint64),
    )


class Request(ctypes.Structure):
    """A launch."""

    _fields_ = (
        ("kernel", ctypes.POINTER(KernelEntry)),
        ("arguments", ctypes.POINTER(c_void_p)),
        ("grid", Index3),
        ("block", Index3),
        ("shared_bytes", c_uint32),
        ("counting", c_uint32),
        ("steps", c_int64),
    )


def load_runtime(path: Path) -> Any:
    """The runtime library. Kernels' modules find it by its soname, so it must be loaded before them.

    Its name holds the hash of all it is made of. A copy of the same name from another cache directory is the
    same library, and must not be loaded beside the first: modules bind to the one that came first.
    """
    if path.name not in _LOADED:
        _LOADED[path.name] = _load(path)
    return _LOADED[path.name]


_LOADED: dict[str, Any] = {}


def _load(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    library.vqcc_emulator_place.argtypes = [ctypes.POINTER(Placement), c_uint64, c_uint64, c_uint64]
    library.vqcc_emulator_place.restype = c_int32
    library.vqcc_emulator_launch.argtypes = [ctypes.POINTER(Request), ctypes.POINTER(Result)]
    library.vqcc_emulator_launch.restype = None
    library.vqcc_emulator_fetch.argtypes = [c_uint64, c_void_p, c_void_p]
    library.vqcc_emulator_fetch.restype = None
    library.vqcc_emulator_symbol.argtypes = [ctypes.POINTER(KernelEntry), c_uint32, ctypes.POINTER(c_uint64)]
    library.vqcc_emulator_symbol.restype = c_char_p
    return library


def kernel_table(module: ctypes.CDLL) -> dict[str, KernelEntry]:
    """The kernels of a loaded module, by name."""
    table: dict[str, KernelEntry] = {}
    address = ctypes.addressof(c_void_p.in_dll(module, "vqcc_emulator_kernels"))
    while True:
        entry = KernelEntry.from_address(address)
        if entry.name is None:
            return table
        table[entry.name.decode()] = entry
        address += ctypes.sizeof(KernelEntry)
