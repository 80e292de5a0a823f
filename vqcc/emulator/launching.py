"""Launching emulated kernels: buffers in, results and what they cost out."""

from __future__ import annotations

import ctypes
import math
import threading
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError, did_you_mean
from vqcc.emulator import native
from vqcc.emulator.arguments import Argument, Bound, Buffer, Pointer, Struct, bind, pack
from vqcc.emulator.errors import EmulationError
from vqcc.emulator.findings import make_finding
from vqcc.emulator.locations import Places
from vqcc.emulator.wording import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Counters", "Emulated", "LaunchReport"]

_DEFAULT_STEPS = 20_000_000_000
_SHARED_LIMIT = 1 << 20  # above every GPU's; the planner, not the emulator, knows the target's
_lock = threading.Lock()  # the runtime holds the state of one launch
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Counters:
    """What a launch did. Loads and stores count thread accesses; atomics are counted apart.

    Wavefronts are a warp's shared accesses with bank conflicts, `ideal` without; sectors are the 32-byte sectors
    each warp access touches, requests the warp accesses. Shuffles, votes, tensor multiplies and barriers count
    once per warp, block or cluster, arrivals at barriers of stages and waits there once per thread. A bulk copy is a
    load of global memory too. Accesses to shared memory of other blocks of the cluster are `remote`, and
    counted nowhere else.
    """

    shared_loads: int
    shared_stores: int
    shared_load_wavefronts: int
    shared_store_wavefronts: int
    shared_load_ideal: int
    shared_store_ideal: int
    global_loads: int
    global_stores: int
    global_load_bytes: int
    global_store_bytes: int
    global_load_sectors: int
    global_store_sectors: int
    global_load_requests: int
    global_store_requests: int
    shuffles: int
    votes: int
    warp_barriers: int
    block_barriers: int
    atomics: int
    shared_atomics: int
    tensor_multiplies: int
    remote_loads: int
    remote_stores: int
    remote_load_bytes: int
    remote_store_bytes: int
    remote_load_requests: int
    remote_store_requests: int
    cluster_barriers: int
    stage_arrivals: int
    stage_waits: int
    group_barriers: int
    bulk_copies: int
    bulk_copy_bytes: int


@dataclass(frozen=True)
class LaunchReport:
    """A launch that found no bug.

    `unwritten` maps each output and inout to a mask of its shape: True where an element has a byte that neither
    the caller nor the kernel wrote (an output's array keeps what it held there). `counters` is None unless
    counting was asked for; `steps` counts checked accesses and barriers.
    """

    unwritten: Mapping[str, NDArray[np.bool_]]
    counters: Counters | None
    steps: int

    def first_unwritten(self, buffer: str) -> tuple[int, ...] | None:
        """Index of the first element of `buffer` never written, or None."""
        mask = self.unwritten[buffer]
        if not mask.any():
            return None
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


class Emulated:
    """A compiled source, ready to launch. Made by `build`."""

    def __init__(self, module: Path, runtime: Path) -> None:
        self._path = module
        self._runtime: Any = native.load_runtime(runtime)
        self._module = ctypes.CDLL(str(module))
        self._kernels = native.kernel_table(self._module)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels."""
        return tuple(self._kernels)

    def launch(
        self,
        kernel: str,
        grid: Triple,
        block: Triple,
        shared_bytes: int,
        arguments: Sequence[Argument],
        *,
        count: bool = False,
        step_limit: int = _DEFAULT_STEPS,
    ) -> LaunchReport:
        """Run a kernel; what it writes is in the arrays of outputs and inouts when it ends.

        `arguments` follow the kernel's parameters: a Buffer (or Pointer into one, or None for null) for a pointer,
        a plain number or a NumPy scalar of the parameter's size for a number, a Struct for a structure.
        `shared_bytes` is the dynamic shared memory of a block. Blocks run in clusters of the size that the kernel's
        `__cluster_dims__` names, by which the grid must be divisible. Raises EmulationError for a bug in the kernel,
        VQ0823 to VQ0826 for a launch that is wrong.
        """
        entry = self._entry(kernel)
        cluster = max(1, entry.cluster)
        _check_shape(grid, block, shared_bytes, cluster)
        bound = bind(kernel, entry, arguments)
        buffers = _buffers(bound)
        with _lock:
            addresses = self._place(buffers, shared_bytes, cluster)
            blocks = [pack(argument, addresses) for argument in bound]
            pointers = (ctypes.c_void_p * max(1, len(blocks)))(
                *(ctypes.cast(each, ctypes.c_void_p) for each in blocks)
            )
            request = native.Request(
                ctypes.pointer(entry),
                pointers,
                native.Index3(*grid),
                native.Index3(*block),
                shared_bytes,
                int(count),
                step_limit,
            )
            result = native.Result()
            self._runtime.vqcc_emulator_launch(ctypes.byref(request), ctypes.byref(result))
            if result.failure.kind == native.OUT_OF_MEMORY:
                raise _out_of_memory()
            if result.failure.kind:
                record = Record(result.failure, shared_bytes, buffers, self._places(entry, result.failure))
                raise EmulationError(make_finding(kernel, block, record))
            unwritten = {
                buffer.name: self._fetch(i, buffer)
                for i, buffer in enumerate(buffers)
                if buffer.role != "input"
            }
        counters = result.counters
        return LaunchReport(
            MappingProxyType(unwritten),
            Counters(**{name: getattr(counters, name) for name in native.COUNTER_NAMES}) if count else None,
            result.steps,
        )

    def _entry(self, kernel: str) -> native.KernelEntry:
        if kernel in self._kernels:
            return self._kernels[kernel]
        raise VqccError(
            Diagnostic(
                "VQ0823",
                f"the source holds no kernel {kernel}; it has {', '.join(self._kernels) or 'none'}",
                help=did_you_mean(kernel, self._kernels),
            )
        )

    def _place(self, buffers: Sequence[Buffer], shared_bytes: int, cluster: int) -> dict[int, int]:
        """Copies the buffers into the arena, behind `cluster` shared memories. Returns their addresses by id."""
        placements = (native.Placement * max(1, len(buffers)))()
        for placement, buffer in zip(placements, buffers, strict=False):
            placement.data = None if buffer.role == "output" else buffer.array.ctypes.data
            placement.bytes = buffer.array.nbytes
            placement.alignment = buffer.alignment
            placement.is_writable = buffer.role != "input"
        if self._runtime.vqcc_emulator_place(placements, len(buffers), shared_bytes, cluster):
            raise _out_of_memory()
        return {id(buffer): placement.address for buffer, placement in zip(buffers, placements, strict=False)}

    def _fetch(self, index: int, buffer: Buffer) -> NDArray[np.bool_]:
        array = buffer.array
        written = np.empty(array.nbytes, np.uint8)
        self._runtime.vqcc_emulator_fetch(index, array.ctypes.data, written.ctypes.data)
        mask: NDArray[np.bool_] = np.logical_not(written.reshape(*array.shape, array.itemsize).all(axis=-1))
        return mask

    def _places(self, entry: native.KernelEntry, failure: Any) -> Places:
        """Source lines of every code address a failure holds."""

        def symbol(site: int) -> tuple[str, int] | None:
            distance = ctypes.c_uint64()
            name = self._runtime.vqcc_emulator_symbol(ctypes.byref(entry), site, ctypes.byref(distance))
            return None if name is None else (name.decode(), distance.value)

        states = failure.threads[: failure.thread_count]
        sites = {failure.site, failure.other_site, *(state.site for state in states)}
        return Places(self._path, symbol, sites)


def _buffers(arguments: Sequence[Bound]) -> list[Buffer]:
    """Every buffer among the arguments, once."""
    found: dict[int, Buffer] = {}
    for argument in arguments:
        for part in argument.fields if isinstance(argument, Struct) else (argument,):
            buffer = part.buffer if isinstance(part, Pointer) else part
            if isinstance(buffer, Buffer):
                found[id(buffer)] = buffer
    return list(found.values())


def _check_shape(grid: Triple, block: Triple, shared_bytes: int, cluster: int) -> None:
    problems = []
    if min(grid) < 1 or grid[0] > 2**31 - 1 or max(grid[1:]) > 65535:
        problems.append(f"grid {grid}: 1 to 2^31 - 1 blocks along x and 1 to 65,535 along y and z")
    if grid[0] % cluster:
        problems.append(f"grid {grid}: the kernel's clusters of {cluster} blocks along x divide it")
    if min(block) < 1 or math.prod(block) > 1024 or block[2] > 64:
        problems.append(f"block {block}: 1 to 1024 threads, at most 64 along z")
    if not 0 <= shared_bytes <= _SHARED_LIMIT:
        problems.append(f"{shared_bytes} bytes of shared memory: 0 to {_SHARED_LIMIT}")
    if problems:
        raise VqccError(*(Diagnostic("VQ0825", problem) for problem in problems))


def _out_of_memory() -> VqccError:
    return VqccError(
        Diagnostic("VQ0826", "no address space for the buffers of this launch"), exit_code=ExitCode.TOOLCHAIN
    )
