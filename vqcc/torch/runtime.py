"""Compiled libraries in this process: their kernels on each device, and the emulator's for tensors on the CPU.

Custom operators name a library by its identity, a text made of its name and build id: a constant in a traced graph, the
same in every process, so that graphs may be cached and exported.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from vqcc.torch.arrays import TYPES
from vqcc.torch.errors import reported, require_gpu
from vqcc.torch.kernels import LoadedKernels, find_gpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vqcc.codegen.contract import StatusName
    from vqcc.compiled import CompiledKernel, CompiledLibrary
    from vqcc.torch.driver import Driver
    from vqcc.verify.backends import Runner

__all__ = ["Runtime", "current_stream", "on_device", "register", "registered"]

#: LinearLaunches or AttentionLaunches.
Launches = TypeVar("Launches")

AnyRuntime = TypeVar("AnyRuntime", bound="Runtime[Any]")

#: Any: of the kind that its operators need.
_registered: dict[str, Any] = {}
_registering = threading.Lock()


class Runtime(ABC, Generic[Launches]):
    """A library's kernels, loaded once for each device that they are asked for on."""

    def __init__(
        self,
        library: CompiledLibrary[CompiledKernel],
        launches_of: Callable[[Any, str], Launches],
        *,
        overlap: bool = False,
        emulator_cache: Path | None = None,
    ) -> None:
        self.library, self.overlap = library, overlap
        self.identity = f"{library.name}.{library.build_id}" + (".overlap" if overlap else "")
        self.types = {TYPES[kernel.variant.dtype]: kernel.variant.dtype for kernel in self._any_kernels()}
        self._launches_of = launches_of
        self._loaded: dict[int, tuple[Launches, LoadedKernels]] = {}
        self._emulator_cache = emulator_cache
        self._emulated: tuple[Launches, Runner] | None = None
        #: By the ids of tensors that have been checked: the device that all are on, and references that drop the entry
        #: when the first of them is freed, before another object can have its id.
        self._verified: dict[tuple[int, ...], tuple[torch.device, list[weakref.ref[Tensor]]]] = {}
        self._lock = threading.Lock()

    @property
    def emulator_cache(self) -> Path | None:
        """Where the emulator keeps what it compiles; None: no one has said."""
        return self._emulator_cache

    def _any_kernels(self) -> tuple[CompiledKernel, ...]:
        return next(iter(self.library.builds.values())).kernels

    @property
    def any_launches(self) -> Launches:
        """What can be said of launches without a device: all but grids is the same on every GPU."""
        return self._launches_of(self.library, self.library.gpus[0])

    @abstractmethod
    def check_packed(self, packed: Any, device: torch.device) -> None:
        """Refuse packed arrays that are not this library's or not on `device`."""

    def verify(self, packed: tuple[Tensor | None, ...], device: torch.device) -> None:
        """The same, once for each set of tensors: a launch is to cost microseconds, and what was checked stays so."""
        known = self._verified.get(tuple(map(id, packed)))
        if known is not None and known[0] == device:
            return
        self.check_packed(packed, device)
        key, table = tuple(map(id, packed)), self._verified
        tensors = [tensor for tensor in packed if tensor is not None]
        if all(type(tensor) is torch.Tensor for tensor in tensors):  # and no stand-ins of a trace
            # Weak, so that memory of a deleted model or cache is free.
            table[key] = (device, [weakref.ref(tensor, lambda _: table.pop(key, None)) for tensor in tensors])

    def check_memory(self, given: str, packed: Any, device: torch.device) -> None:
        """Refuse packed arrays or a workspace that lie elsewhere than what is `given`, or whose elements lie apart."""
        for what, tensor in zip(packed._fields, packed, strict=True):
            if tensor is None:
                continue
            if tensor.device != device:
                raise RuntimeError(
                    f"{given} on {device}, {what} on {tensor.device}: move one of them with .to()"
                )
            if not tensor.is_contiguous():
                raise ValueError(
                    f"{what} of library {self.library.name} must be contiguous: pass {what}.contiguous()"
                )

    def check_workspace(self, workspace: Tensor | None) -> None:
        """Refuse one whose elements are not bytes, in which its size is counted."""
        if workspace is not None and workspace.dtype != torch.uint8:
            raise ValueError(
                f"the workspace is {workspace.dtype}, not torch.uint8: take it from library.workspace(device)"
            )

    def loaded(self, device: int) -> tuple[Launches, LoadedKernels]:
        """The kernels on CUDA device number `device`, which the first call loads.

        Raises RuntimeError without a driver, for a GPU that the library is not for, and while a CUDA graph is
        captured, when nothing can be loaded.
        """
        found = self._loaded.get(device)
        return self._load(device) if found is None else found

    def _load(self, device: int) -> tuple[Launches, LoadedKernels]:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"library {self.library.name} is not loaded on cuda:{device} yet, and a CUDA graph is being captured, "
                f"when nothing can be loaded: call library.warm_up('cuda:{device}') before the capture"
            )
        require_gpu(torch.device("cuda", device))
        from vqcc.torch.driver import open_driver

        with self._lock, torch.cuda.device(device):
            if device not in self._loaded:
                self._loaded[device] = self.load_with(open_driver(), device)
            return self._loaded[device]

    def load_with(self, driver: Driver, device: int) -> tuple[Launches, LoadedKernels]:
        """Load the cubin that is made for a device into its context. Raises RuntimeError."""
        library = self.library
        context = driver.current_context(device)
        facts = driver.device_facts()
        targets = [(build.runs_on[0], build.sm_count) for build in library.builds.values()]
        index = find_gpu(targets, facts)
        if index is None:
            raise RuntimeError(
                f"library {library.name} was compiled for {', '.join(library.gpus)}; cuda:{device} is of compute "
                f"capability {facts[0]}.{facts[1]} with {facts[2]} SMs: compile the spec for this GPU"
            )
        gpu = library.gpus[index]
        cubin = library.cubin(gpu)
        if cubin is None:
            raise RuntimeError(
                f"{library.bundle.directory} holds no cubin for {gpu}: compile with --emit cubin among the others"
            )
        build = library.builds[gpu]
        loaded = LoadedKernels(driver, context, cubin, build.in_cubin, can_overlap=build.can_overlap)
        return self._launches_of(library, gpu), loaded

    def emulated(self) -> tuple[Launches, Runner]:
        """The emulator with the kernels of the library's first GPU, which the first call compiles for the CPU.

        Raises RuntimeError or ValueError if the bundle holds no source, or there is no C++ compiler.
        """
        with self._lock:
            if self._emulated is None:
                from vqcc.verify.backends import EmulatorBackend

                gpu = self.library.gpus[0]
                with reported():
                    runner = EmulatorBackend(self._emulator_cache or _temporary_cache()).load(
                        self.library, gpu
                    )
                self._emulated = self._launches_of(self.library, gpu), runner
            return self._emulated

    def join(self, other: Runtime[Launches]) -> None:
        """Serve what `other`, of the same identity, was made for: take over its files and its emulator's cache.

        Raises ValueError if both have a cache, and not the same: nothing is taken over then.
        """
        with self._lock:
            theirs = other._emulator_cache
            if theirs is not None and theirs != self._emulator_cache:
                if self._emulator_cache is not None:
                    raise ValueError(
                        f"library {self.library.name} is loaded in this process with "
                        f"emulator_cache={str(self._emulator_cache)!r}: load it with the same again, or leave it out"
                    )
                # What has been compiled into a temporary directory is compiled anew, for later processes to find.
                self._emulator_cache, self._emulated = theirs, None
            bundle = self.library.bundle
            files = {**other.library.bundle.files, **bundle.files}
            if len(files) > len(bundle.files):
                self.library = replace(self.library, bundle=replace(bundle, files=files))


@functools.cache
def _temporary_cache() -> Path:
    """Where the emulator keeps what it compiles if no one has said where: until the process ends."""
    directory = tempfile.mkdtemp(prefix="vqcc-emulator-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def register(runtime: AnyRuntime) -> AnyRuntime:
    """Make a runtime known to the operators. One of its identity that is known stays the only one, and is returned.

    So whatever library object loads kernels or warms up does it for the operators. Raises ValueError as `join` does.
    """
    with _registering:
        known: AnyRuntime = _registered.setdefault(runtime.identity, runtime)
        if known is not runtime:
            known.join(runtime)
        return known


def registered(identity: str) -> Any:
    """The runtime that an operator names. Raises RuntimeError for one that no one has loaded."""
    found = _registered.get(identity)
    if found is None:
        raise RuntimeError(
            f"no library {identity} is loaded in this process: call vqcc.torch.load() with its bundle first"
        )
    return found


def current_stream(device: int) -> int:
    """PyTorch's current stream on a device, as a CUstream."""
    stream: int = torch._C._cuda_getCurrentRawStream(device)
    return stream


def on_device(device: int, launch: Callable[..., StatusName], *arguments: Any) -> StatusName:
    """Call `launch` with `device` current: the calling thread's context must be that of the launched kernel."""
    if torch._C._cuda_getDevice() == device:
        return launch(*arguments)
    with torch.cuda.device(device):
        return launch(*arguments)
