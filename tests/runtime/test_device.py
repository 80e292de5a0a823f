"""The one module that talks to PyCUDA: what it asks of the driver, and what becomes of the driver's errors."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from vqcc.diagnostics import ExitCode, VqccError
from vqcc.runtime.device import open_device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import FakeDriver

    from vqcc.runtime.device import Device


def refusal(action: Callable[[], object]) -> VqccError:
    with pytest.raises(VqccError) as caught:
        action()
    assert len(caught.value.diagnostics) == 1
    return caught.value


def opened(use: Callable[[Device], object] = lambda device: None) -> None:
    with open_device() as device:
        use(device)


def test_without_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    error = refusal(opened)
    assert (error.diagnostics[0].code, error.exit_code) == ("VQ0806", ExitCode.NO_DEVICE)
    assert "PyCUDA cannot be imported" in error.diagnostics[0].message
    assert "pip install 'vqcc[gpu]'" in str(error.diagnostics[0].help)


@pytest.mark.parametrize(
    "trouble", ["no CUDA driver: libcuda.so.1 not found", "the driver shows no GPU", None]
)
def test_a_missing_driver_or_gpu_is_named_before_pycuda(
    trouble: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setattr("vqcc.doctor.why_no_gpu", lambda: trouble)
    (found,) = refusal(opened).diagnostics
    assert "PyCUDA cannot be imported" in found.message
    first = "PyCUDA" if trouble is None else trouble
    assert found.message.startswith(first)
    assert found.help is not None
    assert found.help.startswith("pip install") is (trouble is None)
    assert "on the CPU" in found.help


def test_with_a_pycuda_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extension without the driver's library raises ImportError when its driver module is imported."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text("raise ImportError('libcuda.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    error = refusal(opened)
    sys.modules.pop("pycuda", None)
    assert error.diagnostics[0].code == "VQ0806"
    assert "libcuda.so.1: cannot open" in error.diagnostics[0].message


@pytest.mark.parametrize("call", ["init", "Device", "retain_primary_context", "push"])
def test_a_device_that_cannot_be_used(call: str, driver: FakeDriver) -> None:
    driver.failing.add(call)
    error = refusal(opened)
    assert (error.diagnostics[0].code, error.exit_code) == ("VQ0806", ExitCode.NO_DEVICE)
    assert f"{call} failed" in error.diagnostics[0].message
    assert driver.contexts == 0


def test_the_context_is_popped_whatever_happens(driver: FakeDriver) -> None:
    opened(lambda _: None)
    assert driver.contexts == 0

    def fail(_device: Device) -> None:
        assert driver.contexts == 1
        raise KeyError("anything")

    with pytest.raises(KeyError):
        opened(fail)
    assert driver.contexts == 0
    driver.failing.add("Stream")
    assert refusal(opened).diagnostics[0].code == "VQ0807"
    assert driver.contexts == 0


def test_what_a_device_says_of_itself(driver: FakeDriver) -> None:
    with open_device(2) as device:
        assert device.name == "Fake GPU"
        assert device.target == "sm_90"
        assert device.l2_bytes == 50 << 20
        assert device.sm_count == 132
        assert device.free_bytes == 3 << 30
        assert device.driver_release
    assert ("Device", 2) in driver.calls
    driver.capability = (12, 0)
    with open_device() as device:
        assert device.target == "sm_120"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.uint8, np.float32])
def test_arrays_come_back_as_they_went(dtype: type, driver: FakeDriver) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)
    with open_device() as device:
        there = device.upload(array[:, ::2])
        copy = device.clone(there)
        assert there.size == copy.size == array[:, ::2].nbytes
        assert there.address != copy.address
        back = np.zeros((4, 3), dtype=dtype)
        device.download(copy, back)
    assert np.array_equal(back, array[:, ::2])


def test_an_empty_array_has_an_address(driver: FakeDriver) -> None:
    with open_device() as device:
        assert device.upload(np.zeros((0,), dtype=np.float16)).address
        assert device.upload(np.zeros((1,), dtype=np.float16)).size == 2


@pytest.mark.parametrize(
    ("call", "use", "exit_code"),
    [
        ("module_from_buffer", lambda device: device.load(b"cubin"), ExitCode.NO_DEVICE),
        ("get_function", lambda device: device.load(b"cubin").function("k", 64), ExitCode.NO_DEVICE),
        ("set_attribute", lambda device: device.load(b"cubin").function("k", 64), ExitCode.NO_DEVICE),
        ("mem_get_info", lambda device: device.free_bytes, ExitCode.NO_DEVICE),
        ("mem_alloc", lambda device: device.upload(np.ones(3)), ExitCode.NO_DEVICE),
        ("mem_alloc", lambda device: device.allocate(64), ExitCode.NO_DEVICE),
        ("memcpy_htod", lambda device: device.upload(np.ones(3)), ExitCode.NO_DEVICE),
        ("memcpy_dtod", lambda device: device.clone(device.upload(np.ones(3))), ExitCode.NO_DEVICE),
        (
            "memcpy_dtoh",
            lambda device: device.download(device.upload(np.ones(3)), np.ones(3)),
            ExitCode.NO_DEVICE,
        ),
        (
            "launch",
            lambda device: device.launch(device.load(b"cubin").function("k", 64), [], 1, 32, 64),
            ExitCode.NO_DEVICE,
        ),
        ("synchronize", lambda device: device.synchronize(), ExitCode.MISMATCH),
        (
            "record",
            lambda device: device.time_replays(SimpleNamespace(replay=lambda: None), 2),
            ExitCode.NO_DEVICE,
        ),
    ],
)
def test_the_drivers_errors_are_diagnostics(
    call: str, use: Callable[[Any], object], exit_code: ExitCode, driver: FakeDriver
) -> None:
    driver.failing.add(call)
    error = refusal(lambda: opened(use))
    assert (error.diagnostics[0].code, error.exit_code) == ("VQ0807", exit_code)
    assert f"{call} failed" in error.diagnostics[0].message
    assert driver.contexts == 0


def test_a_launch(driver: FakeDriver) -> None:
    with open_device() as device:
        function = device.load(b"the cubin").function("kernel", 70000, 44)
        device.launch(function, [np.uint64(1), np.int32(2)], 7, 96, 70000)
        device.synchronize()
    assert ("module_from_buffer", b"the cubin") in driver.calls
    assert ("set_attribute", "kernel", "max_dynamic_shared", 70000) in driver.calls
    assert ("set_attribute", "kernel", 9, 44) in driver.calls
    (launch,) = [call for call in driver.calls if call[0] == "launch"]
    assert launch[1:3] == ("kernel", (np.uint64(1), np.int32(2)))
    assert launch[3] == {"grid": (7, 1, 1), "block": (96, 1, 1), "shared": 70000, "stream": device.stream}


def test_without_a_carveout_the_drivers_default_stays(driver: FakeDriver) -> None:
    with open_device() as device:
        device.load(b"the cubin").function("kernel", 0)
    assert [call for call in driver.calls if call[0] == "set_attribute"] == [
        ("set_attribute", "kernel", "max_dynamic_shared", 0)
    ]


def test_times_are_in_seconds(driver: FakeDriver) -> None:
    replays = []
    with open_device() as device:
        seconds = device.time_replays(SimpleNamespace(replay=lambda: replays.append(1)), 3)
    assert seconds == pytest.approx([1e-3, 2e-3, 3e-3])
    assert len(replays) == 3


class FakeGraphs:
    """Stands for cuda.bindings.driver: functions that return an error first."""

    class CUstreamCaptureMode:
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = "thread local"

    class Status(int):
        name = "CUDA_ERROR_UNKNOWN"

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[tuple[Any, ...]] = []

    def _answer(self, name: str, *values: Any) -> tuple[Any, ...]:
        self.calls.append((name, *values))
        return (self.Status(999 if name == self.failing else 0), f"result of {name}")

    def cuStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        return self._answer("begin", stream, mode)

    def cuStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        return self._answer("end", stream)

    def cuGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return self._answer("instantiate", graph, flags)

    def cuGraphLaunch(self, executable: Any, stream: Any) -> tuple[Any, ...]:
        return self._answer("launch", executable, stream)


def graphs(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> FakeGraphs:
    fake = FakeGraphs(failing)
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=fake))
    return fake


def test_graphs(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = graphs(monkeypatch)
    recorded = []
    with open_device() as device:
        graph = device.record_graph(lambda: recorded.append(len(fake.calls)))
        graph.replay()
    assert recorded == [1]
    assert fake.calls == [
        ("begin", 77, "thread local"),
        ("end", 77),
        ("instantiate", "result of end", 0),
        ("launch", "result of instantiate", 77),
    ]


@pytest.mark.parametrize("call", ["begin", "end", "instantiate", "launch"])
def test_errors_of_graphs_are_diagnostics(
    call: str, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs(monkeypatch, call)
    error = refusal(lambda: opened(lambda device: device.record_graph(lambda: None).replay()))
    assert error.diagnostics[0].code == "VQ0807"
    assert "CUDA_ERROR_UNKNOWN" in error.diagnostics[0].message
    assert driver.contexts == 0


def test_recording_ends_when_enqueueing_fails(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the stream would stay in capture mode, and every later call on it fail."""
    fake = graphs(monkeypatch)
    driver.failing.add("launch")

    def record(device: Device) -> None:
        function = device.load(b"").function("k", 0)
        device.record_graph(lambda: device.launch(function, [], 1, 32, 0))

    assert "launch failed" in refusal(lambda: opened(record)).diagnostics[0].message
    assert [call[0] for call in fake.calls] == ["begin", "end"]
