"""Importing vqcc.torch, loading bundles, and kernels that are not there to be launched."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch_shim import Shim

import vqcc.torch
from vqcc.torch import runtime as runtime_module
from vqcc.torch.driver import open_driver
from vqcc.torch.linear_launch import LinearLaunches
from vqcc.torch.linear_runtime import LinearRuntime

if TYPE_CHECKING:
    Files = Any


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_vqcc_alone_imports_no_torch() -> None:
    done = python("import sys, vqcc, vqcc.api, vqcc.library; sys.exit('torch' in sys.modules)")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_torch_the_error_says_what_to_install() -> None:
    done = python("import sys; sys.modules['torch'] = None; import vqcc.torch")
    assert done.returncode == 1
    assert "ImportError: vqcc.torch needs PyTorch, which cannot be imported: " in done.stderr
    assert "Run: pip install 'vqcc[torch]'" in done.stderr.splitlines()[-1]


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[VQ07\d\d\] .*Help: "):
        vqcc.torch.load(tmp_path)
    with pytest.raises(ValueError, match=r"\[VQ07\d\d\]"):
        vqcc.torch.load(str(tmp_path / "nowhere"))


def test_a_bundle_is_known_once(gate: Files, tmp_path: Path) -> None:
    first = vqcc.torch.load(gate.bundle)
    assert runtime_module.registered(first._identity) is first._runtime
    copied = tmp_path / "gate"
    shutil.copytree(gate.bundle, copied)
    assert vqcc.torch.load(copied)._runtime is first._runtime
    overlapping = vqcc.torch.load(gate.bundle, overlap=True)
    assert overlapping._runtime is not first._runtime
    assert overlapping._identity == f"{first._identity}.overlap"
    assert overlapping.layout_id == first.layout_id


def test_rows_bound_the_workspace(gate: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def needed(self: LinearLaunches, dtype: str, m: int) -> int:
        return 100 * m + (dtype == "bfloat16")

    monkeypatch.setattr(LinearLaunches, "workspace_bytes", needed)
    found = [vqcc.torch.load(gate.bundle, rows=rows).workspace_bytes() for rows in (None, 1, 4)]
    assert found == [401, 101, 401]


def test_rows_that_no_launch_has(gate: Files, paged: Files) -> None:
    for rows in (0, -1, 5, 99):
        with pytest.raises(
            ValueError, match=rf"^rows is {rows}; launches of library gate have 1 to 4 rows of x$"
        ):
            vqcc.torch.load(gate.bundle, rows=rows)
    for wrong in ("3", 2.0, True):
        with pytest.raises(TypeError, match=rf"^rows is {type(wrong).__name__}, not int$"):
            vqcc.torch.load(gate.bundle, rows=wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^launches of attention have no rows of x, and library paged has no o"
    ):
        vqcc.torch.load(paged.bundle, rows=1)


def test_without_a_driver_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", refuse)
    open_driver.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"no NVIDIA driver is installed: libcuda.so.1.*vqcc doctor"):
            open_driver()
    finally:
        open_driver.cache_clear()


@pytest.mark.parametrize(
    ("cuda", "reason"), [(None, "was built without CUDA"), ("13.0", "finds no NVIDIA driver or GPU")]
)
def test_without_a_gpu_the_emulator_is_offered(
    gate: Files, paged: Files, monkeypatch: pytest.MonkeyPatch, cuda: str | None, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    linear, attention = (vqcc.torch.load(files.bundle) for files in (gate, paged))
    assert isinstance(linear, vqcc.torch.LinearLibrary)
    assert isinstance(attention, vqcc.torch.AttentionLibrary)
    for ask in (
        lambda: linear.weight(gate.packed),
        lambda: attention.books(paged.packed),
        lambda: attention.cache(batch=2, pages=5),
        linear.warm_up,
        lambda: linear.warm_up("cuda:1"),
    ):
        message = (
            rf"nothing can be on cuda(:1)?: PyTorch .* {reason}.*vqcc doctor`; with device='cpu' the emulator"
        )
        with pytest.raises(RuntimeError, match=message):
            ask()
    assert linear.weight(gate.packed, device="cpu").device.type == "cpu"


def test_nothing_is_loaded_while_a_graph_is_captured(gate: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    library = vqcc.torch.load(gate.bundle)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(
        RuntimeError, match=r"gate is not loaded on cuda:1 yet.*call library.warm_up\('cuda:1'\) before"
    ):
        library.warm_up("cuda:1")


def test_a_device_that_the_library_is_not_for(gate: Files, tmp_path: Path) -> None:
    shim = Shim(gate.library, tmp_path)
    runtime = LinearRuntime(gate.library, LinearLaunches)
    shim.set_device(8, 0, 108)
    with pytest.raises(
        RuntimeError, match=r"compiled for h200; cuda:0 is of compute capability 8.0 with 108 SMs"
    ):
        runtime.load_with(shim.driver, 0)
    shim.set_device(9, 0, 132)
    assert runtime.load_with(shim.driver, 0)[0].max_m == 4


def test_whether_launches_can_overlap_is_what_the_gpus_data_say(
    gate: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim, runtime = Shim(gate.library, tmp_path), LinearRuntime(gate.library, LinearLaunches)
    assert runtime.load_with(shim.driver, 0)[1]._can_overlap
    monkeypatch.setattr("vqcc.gpus.model.FIRST_DEPENDENT_LAUNCH", 100)
    assert not runtime.load_with(shim.driver, 0)[1]._can_overlap


def without(files: Files, directory: Path, *suffixes: str) -> Any:
    """The library of a bundle that lacks files."""
    from dataclasses import replace

    bundle = files.library.bundle
    kept = {name: data for name, data in bundle.files.items() if not name.endswith(suffixes)}
    return replace(files.library, bundle=replace(bundle, files=kept))


def test_bundles_without_what_is_run(gate: Files, tmp_path: Path) -> None:
    shim = Shim(gate.library, tmp_path)
    with pytest.raises(
        RuntimeError, match="holds no cubin for h200: compile with --emit cubin among the others"
    ):
        LinearRuntime(without(gate, tmp_path, ".cubin"), LinearLaunches).load_with(shim.driver, 0)
    emulated = LinearRuntime(without(gate, tmp_path, ".cu"), LinearLaunches, emulator_cache=tmp_path)
    with pytest.raises(ValueError, match=r"\[VQ0802\].*holds no source.*Help: compile with --emit cu"):
        emulated.emulated()


def test_a_build_has_one_runtime_with_the_files_of_all_its_bundles(
    gate: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an older library object warms up what operators use."""
    monkeypatch.setattr(runtime_module, "_registered", {})
    sources = runtime_module.register(LinearRuntime(without(gate, tmp_path, ".cubin"), LinearLaunches))
    cubins = LinearRuntime(without(gate, tmp_path, ".cu"), LinearLaunches)
    shim = Shim(gate.library, tmp_path)
    with pytest.raises(RuntimeError, match="holds no cubin"):
        sources.load_with(shim.driver, 0)
    assert runtime_module.register(cubins) is runtime_module.registered(cubins.identity) is sources
    assert sources.load_with(shim.driver, 0)[0].max_m == 4
    assert sources.library.source("h200") is not None
    assert vqcc.torch.load(gate.bundle)._runtime is sources


def test_a_build_has_one_emulator_cache_the_first_that_is_given(
    gate: Files, tmp_path: Path, cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "_registered", {})
    monkeypatch.setattr(runtime_module, "_temporary_cache", lambda: cache_directory / "emulator")
    first: Any = vqcc.torch.load(gate.bundle)
    first._runtime.emulated()
    own = tmp_path / "own"
    vqcc.torch.load(gate.bundle, emulator_cache=own)
    asked: list[Path] = []
    monkeypatch.setattr(
        "vqcc.verify.backends.EmulatorBackend.__init__", lambda self, directory: asked.append(directory)
    )
    monkeypatch.setattr("vqcc.verify.backends.EmulatorBackend.load", lambda self, library, gpu: None)
    first._runtime.emulated()
    assert asked == [own]
    for same in (None, own, str(tmp_path / "nowhere" / ".." / "own")):
        assert vqcc.torch.load(gate.bundle, emulator_cache=same)._runtime is first._runtime
    with pytest.raises(ValueError, match=r"emulator_cache='.*own': load it with the same again, or leave it"):
        vqcc.torch.load(gate.bundle, emulator_cache=tmp_path)
    # Kernels that overlap are loaded apart.
    vqcc.torch.load(gate.bundle, overlap=True, emulator_cache=tmp_path)


def test_without_an_emulator_cache_there_is_one_until_the_process_ends(tmp_path: Path) -> None:
    code = "from vqcc.torch import runtime; cache = runtime._temporary_cache()\nassert cache.is_dir(); print(cache)\n"
    done = python(f"{code}assert runtime._temporary_cache() is cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(done.stdout.strip()).exists()


def test_warming_up_the_cpu_is_nothing(gate: Files) -> None:
    library = vqcc.torch.load(gate.bundle)
    library.warm_up("cpu")
    assert library.workspace(torch.device("cpu")) is None


class FakeDeviceGuard:
    """In the place of torch.cuda.device, where there is no CUDA."""

    entered: list[int] = []  # noqa: RUF012

    def __init__(self, device: int) -> None:
        self.device = device

    def __enter__(self) -> None:
        self.entered.append(self.device)

    def __exit__(self, *error: object) -> None:
        self.entered.append(-1)


def test_launches_are_on_the_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 0, raising=False)
    monkeypatch.setattr(torch.cuda, "device", FakeDeviceGuard)
    assert runtime_module.on_device(0, "{} {}".format, 1, 2) == "1 2"
    assert FakeDeviceGuard.entered == []
    assert runtime_module.on_device(1, "{}".format, 3) == "3"
    assert FakeDeviceGuard.entered == [1, -1]


def test_packed_tensors_are_checked_once_and_anew_when_others_are_given(
    gate: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = LinearRuntime(gate.library, LinearLaunches)
    checked: list[Any] = []
    monkeypatch.setattr(runtime, "check_packed", lambda packed, device: checked.append(packed))
    cpu, meta = torch.device("cpu"), torch.device("meta")
    first, second = (torch.zeros(3), torch.zeros(3), None), (torch.zeros(3), torch.zeros(3), None)
    for packed, device in (
        (first, cpu),
        (first, cpu),
        (second, cpu),
        (first, cpu),
        (first, meta),
        (first, meta),
    ):
        runtime.verify(packed, device)
    runtime.verify((first[0], second[1], None), meta)
    assert len(checked) == 4


def test_what_was_checked_is_not_kept_alive(gate: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two caches over the same books, launched in turn, each is checked once; a deleted one is free."""
    runtime = LinearRuntime(gate.library, LinearLaunches)
    checked: list[Any] = []
    monkeypatch.setattr(runtime, "check_packed", lambda packed, device: checked.append(device))
    cpu, books = torch.device("cpu"), torch.zeros(3)
    one, other = ([torch.zeros(3), torch.zeros(3)] for _ in range(2))
    for cache in (one, other) * 3:
        runtime.verify((books, None, *cache), cpu)
    assert (len(checked), len(runtime._verified)) == (2, 2)
    watched = [weakref.ref(tensor) for tensor in one]
    del one, cache
    gc.collect()
    assert [reference() for reference in watched] == [None, None]
    assert len(runtime._verified) == 1
    runtime.verify((books, None, *other), cpu)
    assert len(checked) == 2
    del books
    gc.collect()
    assert not runtime._verified
