"""Overlapping launches on a stand-in for cuda-bindings: the same launch, asked for with one attribute more."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.diagnostics import VqccError
from vqcc.runtime.backend import CudaBackend
from vqcc.runtime.device import open_device
from vqcc.runtime.overlap import OverlappingModule

if TYPE_CHECKING:
    from conftest import FakeDriver

    from vqcc.library import Library


class FakeBindings:
    """Stands for cuda.bindings.driver: functions that return an error first."""

    class Status(int):
        name = "CUDA_ERROR_UNKNOWN"

    class CUlaunchAttribute:
        def __init__(self) -> None:
            self.id: Any = None
            self.value = SimpleNamespace(programmaticStreamSerializationAllowed=0)

    CUlaunchAttributeID = SimpleNamespace(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION=6)
    CUfunction_attribute = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT=9,
    )
    CUlaunchConfig = SimpleNamespace

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.settings: list[tuple[Any, ...]] = []
        self.launches: list[tuple[Any, ...]] = []

    def _answer(self, name: str, value: Any = None) -> tuple[Any, ...]:
        return (self.Status(999 if name == self.failing else 0), value)

    def cuModuleLoadData(self, cubin: bytes) -> tuple[Any, ...]:
        return self._answer("load", f"module of {len(cubin)} bytes")

    def cuModuleGetFunction(self, _module: Any, name: bytes) -> tuple[Any, ...]:
        return self._answer("function", name.decode())

    def cuFuncSetAttribute(self, *values: Any) -> tuple[Any, ...]:
        self.settings.append(values)
        return self._answer("attribute")

    def cuLaunchKernelEx(self, *values: Any) -> tuple[Any, ...]:
        self.launches.append(values)
        return self._answer("launch")


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> FakeBindings:
    fake = FakeBindings()
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=fake))
    return fake


def test_a_launch_asks_to_overlap(library: Library, driver: FakeDriver, bindings: FakeBindings) -> None:
    kernel = library.builds["h200"].kernels[0]
    with open_device() as device:
        runner = CudaBackend(device, overlap=True).load(library, "h200")
        arrays = {"x": device.upload(np.zeros(8, np.uint8))}
        runner.enqueue(kernel, arrays, {"m": 2, "x_stride": 64, "y_stride": 24})
    ((config, function, (values, types), extra),) = bindings.launches
    assert (function, extra) == (kernel.name, 0)
    assert (config.gridDimX, config.blockDimX, config.hStream) == (
        kernel.launch.grid,
        kernel.launch.threads,
        77,
    )
    assert config.sharedMemBytes == kernel.launch.dynamic_shared_bytes
    (attribute,) = config.attrs
    assert (config.numAttrs, attribute.id, attribute.value.programmaticStreamSerializationAllowed) == (
        1,
        6,
        1,
    )
    named = dict(zip((each.name for each in library.op.arguments(kernel.variant)), values, strict=True))
    assert (named["m"], named["x_stride"], named["y_stride"]) == (2, 64, 24)
    assert (named["x"], named["bias"]) == (arrays["x"].address, 0)
    assert len(types) == len(values)
    assert not [call for call in driver.calls if call[0] == "launch"]
    asked = {name for name, *_ in bindings.settings}
    assert asked == {each.name for each in library.builds["h200"].kernels if each.launch.dynamic_shared_bytes}


@pytest.mark.parametrize("call", ["load", "function", "attribute", "launch"])
def test_errors_are_diagnostics(call: str, library: Library, bindings: FakeBindings) -> None:
    bindings.failing = call
    kernel = library.builds["h200"].kernels[0]
    with pytest.raises(VqccError) as caught:
        OverlappingModule(b"cubin", [kernel]).enqueue(kernel, 1, [np.uint64(1), np.int32(2)], 77)
    assert [item.code for item in caught.value.diagnostics] == ["VQ0807"]
    assert "CUDA_ERROR_UNKNOWN" in caught.value.diagnostics[0].message
