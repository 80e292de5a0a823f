"""A CUDA driver that keeps device memory in bytearrays and records what it is asked for."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import build_fake, with_workspace

from vqcc.building import write_library
from vqcc.library import load_library

if TYPE_CHECKING:
    from collections.abc import Callable

    from vqcc.library import Library


class FakeDriver(ModuleType):
    """Stands for pycuda.driver. A name in `failing` makes that call raise, as the driver's errors do."""

    class Error(Exception):
        """As pycuda.driver.Error: the base of all others."""

    class LogicError(Error):
        """Most of them are of this kind."""

    class function_attribute(int):
        """As an enum of Boost.Python: numbers that have no name here are values of it too."""

        MAX_DYNAMIC_SHARED_SIZE_BYTES = "max_dynamic_shared"

    device_attribute = SimpleNamespace(L2_CACHE_SIZE="l2", MULTIPROCESSOR_COUNT="sms")

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.failing: set[str] = set()
        self.calls: list[Any] = []
        self.memory: dict[int, bytearray] = {}
        self.kernels: Callable[..., None] = lambda **_: None
        self.contexts = 0
        self.capability = (9, 0)
        self.name = "Fake GPU"
        self.attributes = {"l2": 50 << 20, "sms": 132}
        self.milliseconds = iter(range(1, 10**6))

    def called(self, name: str, *values: Any) -> None:
        self.calls.append((name, *values))
        if name in self.failing:
            raise self.LogicError(f"{name} failed: invalid something")

    def init(self) -> None:
        self.called("init")

    def Device(self, index: int) -> Any:
        self.called("Device", index)
        return SimpleNamespace(
            name=lambda: f"{self.name}\0",
            compute_capability=lambda: self.capability,
            retain_primary_context=self._context,
            get_attribute=lambda name: self.attributes[name],
        )

    def _context(self) -> Any:
        self.called("retain_primary_context")

        def push() -> None:
            self.called("push")
            self.contexts += 1

        def pop() -> None:
            self.contexts -= 1

        return SimpleNamespace(push=push, pop=pop)

    def Stream(self) -> Any:
        self.called("Stream")
        return SimpleNamespace(synchronize=lambda: self.called("synchronize"), handle=77)

    def Event(self) -> Any:
        def record(_stream: Any) -> None:
            self.called("record")

        return SimpleNamespace(
            record=record,
            synchronize=lambda: None,
            time_till=lambda _other: float(next(self.milliseconds)),
        )

    def get_driver_version(self) -> int:
        return 13020

    def mem_get_info(self) -> tuple[int, int]:
        self.called("mem_get_info")
        return 3 << 30, 8 << 30

    def mem_alloc(self, size: int) -> int:
        self.called("mem_alloc", size)
        address = 0x1000 * (len(self.memory) + 1)
        self.memory[address] = bytearray(size)
        return address

    def memcpy_htod(self, target: int, source: np.ndarray) -> None:
        self.called("memcpy_htod")
        data = source.tobytes()
        self.memory[target][: len(data)] = data

    def memcpy_dtod(self, target: int, source: int, size: int) -> None:
        self.called("memcpy_dtod", size)
        self.memory[target][:size] = self.memory[source][:size]

    def memcpy_dtoh(self, target: np.ndarray, source: int) -> None:
        self.called("memcpy_dtoh")
        target[...] = np.frombuffer(bytes(self.memory[source][: target.nbytes]), dtype=np.uint8)

    def module_from_buffer(self, cubin: bytes) -> Any:
        self.called("module_from_buffer", cubin)
        return SimpleNamespace(get_function=self._function)

    def _function(self, name: str) -> Any:
        self.called("get_function", name)
        driver = self

        class Function:
            def set_attribute(self, attribute: str, value: int) -> None:
                driver.called("set_attribute", name, attribute, value)

            def __call__(self, *arguments: Any, **launch: Any) -> None:
                driver.called("launch", name, arguments, launch)
                driver.kernels(name=name, arguments=arguments, memory=driver.memory)

        return Function()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """PyCUDA as far as vqcc uses it."""
    fake = FakeDriver()
    package = ModuleType("pycuda")
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    return fake


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library whose cubins are not, for an A40, an RTX 4090 and an H200."""
    directory = tmp_path_factory.mktemp("library") / "tiny"
    built = build_fake("vq-4-4-1", n=24, k=64, m=[1, 5], gpu=["a40", "rtx4090", "h200"])
    write_library(built, directory)
    return load_library(directory)


@pytest.fixture(scope="session")
def scratched(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library of which one kernel needs a workspace."""
    directory = tmp_path_factory.mktemp("scratched") / "tiny"
    built = build_fake("vq-4-4-1", n=24, k=64, m=[1, 5], gpu="h200")
    write_library(with_workspace(built, [0, 1024]), directory)
    return load_library(directory)
