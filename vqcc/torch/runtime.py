"""Compiled libraries in this process: their kernels on each device, and the emulator's for tensors on the CPU.

Custom operators name a library by its identity, a text made of its name and build id: a constant in a traced graph, the
same in every process, so that graphs may be cached and exported.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from operator import is_
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from vqcc.torch.arrays import TYPES
from vqcc.torch.errors import reported
from vqcc.torch.kernels import LoadedKernels, find_gpu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from vqcc.compiled import CompiledKernel, CompiledLibrary
    from vqcc.torch.driver import Driver
    from vqcc.verify.backends import Runner

__all__ = ["Runtime", "current_stream", "on_device", "register", "registered"]

#: LinearLaunches or AttentionLaunches.
Launches = TypeVar("Launches")

AnyRuntime = TypeVar("AnyRuntime", bound="Runtime[Any]")

#: Any: of the kind that its operators need.
_registered: dict[str, Any] = {}


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
        #: By the id of the first: tensors that have been checked, and the device that all are on.
        self._verified: dict[int, tuple[weakref.ref[Tensor], torch.device, tuple[Tensor | None, ...]]] = {}
        self._lock = threading.Lock()

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
        first, others = packed[0], packed[1:]
        known = self._verified.get(id(first))
        # Tensors are compared as objects: `==` would compare their elements.
        if (
            known is not None
            and known[0]() is first
            and known[1] == device
            and all(map(is_, known[2], others))
        ):
            return
        self.check_packed(packed, device)
        if type(first) is torch.Tensor:  # and no stand-in of a trace
            key, table = id(first), self._verified
            forget = weakref.ref(first, lambda _: table.pop(key, None))
            table[key] = (forget, device, others)

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
        kernels = library.builds[gpu].in_cubin
        loaded = LoadedKernels(driver, context, cubin, kernels, can_overlap=facts[0] >= 9)
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
                    runner = EmulatorBackend(self._emulator_cache or _emulator_cache()).load(
                        self.library, gpu
                    )
                self._emulated = self._launches_of(self.library, gpu), runner
            return self._emulated


def _emulator_cache() -> Path:
    """Where `vqcc validate` keeps what it compiles for the CPU."""
    from vqcc.cli.support import default_cache_directory

    return default_cache_directory() / "emulator"


def register(runtime: AnyRuntime) -> AnyRuntime:
    """Make a runtime known to the operators; one of the same build that has all of its files stays."""
    known: AnyRuntime | None = _registered.get(runtime.identity)
    if known is not None and known.library.bundle.files.keys() >= runtime.library.bundle.files.keys():
        return known
    _registered[runtime.identity] = runtime
    return runtime


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


def on_device(device: int, launch: Callable[..., str], *arguments: Any) -> str:
    """Call `launch` with `device` current: the calling thread's context must be that of the launched kernel."""
    if torch._C._cuda_getDevice() == device:
        return launch(*arguments)
    with torch.cuda.device(device):
        return launch(*arguments)
