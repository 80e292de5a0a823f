"""Libraries on a device: arguments in order, launches as planned, the right cubin for the device."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.diagnostics import ExitCode, VqccError
from vqcc.runtime.backend import CudaBackend, gpus_for
from vqcc.runtime.bench import Baselines, bench_library, describe_run
from vqcc.runtime.device import open_device
from vqcc.tensors.packing import unpack_codes
from vqcc.verify.harness import validate

if TYPE_CHECKING:
    from conftest import FakeDriver

    from vqcc.library import Library

N, K = 24, 64


def compute(library: Library) -> Any:
    """A kernel for the fake driver: y = x W^T + bias in float64, from packed weights.

    In its workspace it counts its launches, and it checks that nothing else was written there.
    """
    launched: Counter[str] = Counter()

    def kernel(*, name: str, arguments: tuple[Any, ...], memory: dict[int, bytearray]) -> None:
        codes, books, stage_scales, scales, x, bias, y, workspace, m, x_stride, y_stride = arguments
        assert (type(m), type(x_stride), type(y_stride)) == (np.int32, np.int64, np.int64)
        assert {type(pointer) for pointer in arguments[:8]} == {np.uint64}
        kernels = {each.name: each for build in library.builds.values() for each in build.kernels}
        needed = kernels[name].launch.workspace_bytes
        assert bool(int(workspace)) == bool(needed)
        if needed:
            scratch = np.frombuffer(memory[int(workspace)], dtype=np.uint8)
            assert len(scratch) >= needed
            assert int(scratch.sum()) == int(scratch[0]) == launched[name]
            launched[name] += 1
            scratch[0] += 1
        assert int(stage_scales) == 0

        def array(address: np.uint64, dtype: Any) -> Any:
            return np.frombuffer(memory[int(address)], dtype=dtype)

        words = array(codes, np.uint32)[: N * library.layout.row_words].reshape(N, -1)
        book = array(books, np.float16).reshape(16, 4).astype(np.float64)
        weights = book[unpack_codes(words, library.layout)[0]].reshape(N, K)
        weights = weights * array(scales, np.float32)[:N, None]
        rows = array(x, np.float16)[: int(m) * int(x_stride)].reshape(int(m), -1)[:, :K].astype(np.float64)
        result = rows @ weights.T
        if int(bias):
            result = result + array(bias, np.float16)[:N].astype(np.float64)
        out = array(y, np.float16)[: int(m) * int(y_stride)].reshape(int(m), -1)
        out[:, :N] = result

    return kernel


def test_validation_on_a_device(library: Library, driver: FakeDriver) -> None:
    driver.kernels = compute(library)
    with open_device() as device:
        backend = CudaBackend(device)
        results = list(validate(library, backend, gpus=backend.gpus(library, ())))
    assert [result.sizes["m"] for result in results] == [1, 2, 5]
    assert all(result.comparison.passed for result in results)
    assert {result.gpu for result in results} == {"h200"}
    kernels = {kernel.name: kernel for kernel in library.builds["h200"].kernels}
    assert ("module_from_buffer", library.cubin("h200")) in driver.calls
    for kernel in kernels.values():
        shared = kernel.launch.dynamic_shared_bytes
        assert ("set_attribute", kernel.name, "max_dynamic_shared", shared) in driver.calls
        assert kernel.launch.carveout_percent > 0
        assert ("set_attribute", kernel.name, 9, kernel.launch.carveout_percent) in driver.calls
    launches = [call for call in driver.calls if call[0] == "launch"]
    assert [call[1] for call in launches] == [result.kernel for result in results]
    for _, name, arguments, options in launches:
        planned = kernels[name].launch
        assert options["grid"] == (planned.grid, 1, 1)
        assert options["block"] == (planned.threads, 1, 1)
        assert options["shared"] == planned.dynamic_shared_bytes
        assert len(arguments) == 11


def test_a_workspace_on_a_device(scratched: Library, driver: FakeDriver) -> None:
    """The kernel for m up to 5 has one: it is there, zero before the first launch, and kept between launches."""
    driver.kernels = compute(scratched)
    with open_device() as device:
        results = list(validate(scratched, CudaBackend(device), gpus=("h200",)))
    assert all(result.comparison.passed for result in results)
    one, five = (kernel.name for kernel in scratched.builds["h200"].kernels)
    assert [call[1] for call in driver.calls if call[0] == "launch"] == [one, five, five, five, five]


def test_a_kernel_that_fails_on_the_device(library: Library, driver: FakeDriver) -> None:
    driver.failing.add("synchronize")
    with open_device() as device, pytest.raises(VqccError) as caught:
        list(validate(library, CudaBackend(device), gpus=("h200",)))
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert caught.value.diagnostics[0].code == "VQ0807"


def test_a_kernel_that_computes_nothing(library: Library, driver: FakeDriver) -> None:
    with open_device() as device:
        results = list(validate(library, CudaBackend(device), gpus=("h200",)))
    assert not any(result.comparison.passed for result in results)


@pytest.mark.parametrize(
    ("capability", "found"), [((9, 0), ("h200",)), ((8, 9), ("rtx4090", "a40")), ((8, 6), ("a40",))]
)
def test_cubins_that_a_device_runs(
    capability: tuple[int, int], found: tuple[str, ...], library: Library, driver: FakeDriver
) -> None:
    """That of its own architecture first: `bench` takes it."""
    driver.capability = capability
    with open_device() as device:
        assert gpus_for(library, device) == found


def test_a_device_that_runs_none(library: Library, driver: FakeDriver) -> None:
    driver.capability = (7, 5)
    with open_device() as device:
        with pytest.raises(VqccError) as caught:
            gpus_for(library, device)
        assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0805", ExitCode.NO_DEVICE)
        assert "sm_75" in caught.value.diagnostics[0].message
        backend = CudaBackend(device)
        assert backend.gpus(library, ("h200",)) == ("h200",)
        with pytest.raises(VqccError) as caught:
            backend.load(library, "h200")
        assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0805", ExitCode.NO_DEVICE)


def test_a_library_without_cubins(library: Library, driver: FakeDriver) -> None:
    bare = replace(library, bundle=replace(library.bundle, files={}))
    with open_device() as device, pytest.raises(VqccError) as caught:
        CudaBackend(device).load(bare, "h200")
    assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0802", ExitCode.INPUT)


def test_bench_rows(library: Library, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqcc.runtime import bench
    from vqcc.runtime.timing import Timing

    driver.kernels = compute(library)
    seen: list[int] = []

    def time_kernel(_device: Any, _runner: Any, _kernel: Any, copies: Any, _scalars: Any) -> Timing:
        seen.append(len(copies))
        return Timing(2.0, 1.5, 4.0)

    monkeypatch.setattr(bench, "time_kernel", time_kernel)
    monkeypatch.setattr(Baselines, "cublas", lambda *_: Timing(10.0, 9.0, 11.0))
    with open_device() as device:
        rows = list(bench_library(library, device, Baselines(device.l2_bytes)))
    assert [row["m"] for row in rows] == [1, 5]
    assert seen == [256, 256], "more copies than this would help nothing"
    for row, kernel in zip(rows, library.builds["h200"].kernels, strict=True):
        assert row["within_bound"] is True
        assert 0 < row["error"] < 1e-3
        described = {
            "op": "gemv",
            "algorithm": "vq-4-4-1",
            "level": "sc",
            "dtype": "float16",
            "n": N,
            "k": K,
            "us": 2.0,
            "us_min": 1.5,
            "us_max": 4.0,
            "baseline": "cublas_fp16",
            "baseline_us": 10.0,
            "grid": kernel.launch.grid,
            "threads": kernel.launch.threads,
        }
        assert described.items() <= row.items()
        assert row["floor_us"] >= 0


def test_copies_share_a_workspace(
    scratched: Library, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqcc.runtime import bench
    from vqcc.runtime.timing import Timing

    driver.kernels = compute(scratched)
    seen: list[set[int]] = []

    def time_kernel(_device: Any, _runner: Any, _kernel: Any, copies: Any, _scalars: Any) -> Timing:
        seen.append({copy["workspace"].address for copy in copies if "workspace" in copy})
        return Timing(2.0, 1.5, 4.0)

    monkeypatch.setattr(bench, "time_kernel", time_kernel)
    monkeypatch.setattr(Baselines, "cublas", lambda *_: None)
    with open_device() as device:
        rows = list(bench_library(scratched, device, Baselines(device.l2_bytes)))
    assert [row["workspace_bytes"] for row in rows] == [0, 1024]
    assert [len(addresses) for addresses in seen] == [0, 1]
    (address,) = seen[1]
    assert driver.memory[address][:1024] == b"\2" + bytes(1023), "as the two launches before left it"


def test_a_wrong_kernel_is_timed_and_marked(
    library: Library, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqcc.runtime import bench
    from vqcc.runtime.timing import Timing

    monkeypatch.setattr(bench, "time_kernel", lambda *_: Timing(1.0, 1.0, 1.0))
    monkeypatch.setattr(Baselines, "cublas", lambda *_: None)
    with open_device() as device:
        rows = list(bench_library(library, device, Baselines(device.l2_bytes)))
    assert {row["within_bound"] for row in rows} == {False}
    assert all("baseline_us" not in row for row in rows)


def test_a_run_is_described(driver: FakeDriver) -> None:
    with open_device() as device:
        meta = describe_run(device, "nvrtc 13.0", "vqcc bench out/x", "abc")
    assert meta["gpu"] == "Fake GPU"
    assert (meta["cuda"], meta["command"], meta["commit"]) == ("nvrtc 13.0", "vqcc bench out/x", "abc")
    assert {"driver", "torch", "date", "python"} <= set(meta)


def test_the_bench_command(
    library: Library, driver: FakeDriver, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows as text and as a file; a kernel outside its bound ends it with the mismatch's code."""
    import json

    from command import run

    from vqcc.runtime import bench
    from vqcc.runtime.timing import Timing

    monkeypatch.setattr(bench, "time_kernel", lambda *_: Timing(1.0, 1.0, 1.0))
    monkeypatch.setattr(Baselines, "cublas", lambda *_: None)
    driver.kernels = compute(library)
    done = run("bench", library.bundle.directory, "-o", tmp_path / "results.json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "vq-4-4-1 sc float16 24x64 m=5: 1.0 us" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"meta", "rows"}
    assert len(results["rows"]) == 2
    as_json = run("bench", library.bundle.directory, "--json")
    assert as_json.json["rows"] == results["rows"]
    assert as_json.json["diagnostics"] == []
    assert not list(tmp_path.glob("*.svg"))
    plot = tmp_path / "roofline.svg"
    assert run("bench", library.bundle.directory, "--plot", f"roofline={plot}").stderr == ""
    assert "vq-4-4-1" in plot.read_text()
    driver.kernels = lambda **_: None
    wrong = run("bench", library.bundle.directory)
    assert wrong.exit_code == 4
    assert wrong.stderr.count("error[VQ0801]") == 2
    assert "OUTSIDE ITS BOUND" in wrong.stdout
    assert run("bench", library.bundle.directory, "--json").codes == ["VQ0801"] * 2
