"""Timing of attention on a stand-in for a device whose kernels the emulator runs: what is checked and timed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cache_libraries import cache_spec_text, fake_cache_library
from libraries import FakeToolchain

import vqcc.runtime.cache_bench
from vqcc.cache_building import cache_problems_of
from vqcc.runtime.cache_bench import longest_context
from vqcc.runtime.timing import Timing
from vqcc.runtime.tuning import CacheBench
from vqcc.spec.load import parse_spec
from vqcc.tuning.lock import Lock, problem_identity
from vqcc.tuning.session import Tools, Work, tune
from vqcc.verify.backends import EmulatorBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.spec.model import Spec
    from vqcc.tuning.session import Step


@dataclass
class HostArray:
    """Device memory that is the host's."""

    array: NDArray[Any]


class HostDevice:
    """As much of a device as timing asks for."""

    name, driver_release, target = "Host", "1", "sm_90"
    l2_bytes = 1 << 14

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def upload(self, array: NDArray[Any]) -> HostArray:
        return HostArray(array.copy())

    def repeat(self, pattern: NDArray[Any], size: int) -> HostArray:
        return HostArray(np.resize(pattern.view(np.uint8), size))

    def clone(self, source: HostArray) -> HostArray:
        return HostArray(source.array.copy())

    def download(self, source: HostArray, target: NDArray[Any]) -> None:
        target[...] = source.array

    def synchronize(self) -> None:
        """Nothing is on its way."""


@dataclass
class EmulatingRunner:
    """Runs launches at once; `spoil` may change the outputs of launch number `count`."""

    runner: Any
    spoil: Callable[[int, NDArray[Any]], None]
    count: int = 0

    def enqueue(self, kernel: Any, arrays: Mapping[str, HostArray], scalars: Mapping[str, float]) -> None:
        held = {name: each.array for name, each in arrays.items()}
        outputs = {name: held.pop(name) for name in ("outputs", "log_sums")}
        self.runner.run(kernel, held, outputs, scalars, held["workspace"])
        self.count += 1
        self.spoil(self.count, outputs["outputs"])


class Timed:
    """A session on such a device: what was timed over which copies, and what became of each candidate."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.copies: list[Any] = []
        self.scalars: list[Any] = []
        self.lock = Lock()
        self.spoil: Callable[[int, NDArray[Any]], None] = lambda count, outputs: None
        emulator = EmulatorBackend(directory)

        def backend(_device: Any, **_: Any) -> Any:
            return SimpleNamespace(
                load=lambda library, gpu: EmulatingRunner(emulator.load(library, gpu), self.spoil)
            )

        def time_kernel(_device: Any, _runner: Any, _kernel: Any, copies: Any, scalars: Any) -> Timing:
            self.copies.append(copies)
            self.scalars.append(scalars)
            return Timing(5.0, 4.0, 6.0)

        monkeypatch.setattr(vqcc.runtime.cache_bench, "CudaBackend", backend)
        monkeypatch.setattr(vqcc.runtime.cache_bench, "time_kernel", time_kernel)

    def tune(self, spec: Spec, free_bytes: int = 1 << 30) -> list[Step]:
        bench: Any = CacheBench(HostDevice(free_bytes))  # type: ignore[arg-type]

        def save(lock: Lock) -> None:
            self.lock = lock

        tools = Tools(FakeToolchain())
        return list(tune((Work(spec),), spec.gpu[0], Lock(), lambda _: bench, tools, save=save, most=1))


@pytest.fixture
def timed(cache_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Timed:
    return Timed(cache_directory / "emulator", monkeypatch)


def make_spec(**op: Any) -> Spec:
    return parse_spec(cache_spec_text("cq-2", **{"context": 256, "batch": 2, **op}).encode(), "spec.yaml")


def test_candidates_are_checked_and_timed_over_whole_contexts(timed: Timed) -> None:
    """One of each dataflow; kernels that append are not timed."""
    steps = timed.tune(make_spec(batch=[1, 2]))
    assert {(step.us, step.reason) for step in steps} == {(5.0, "")}
    assert [step.dataflow for step in steps] == ["decode", "decode", "score", "score"]
    assert [scalars["batch"] for scalars in timed.scalars] == [1, 2, 1, 2]
    assert all("softmax_scale" in scalars for scalars in timed.scalars)
    for copies, scalars in zip(timed.copies, timed.scalars, strict=True):
        assert (copies[0]["lengths"].array == [256] * int(scalars["batch"])).all()
        pages = [copy["pages"] for copy in copies]
        assert len({id(each.array) for each in pages}) == len(pages)
        assert sum(each.array.nbytes for each in pages) >= 4 * HostDevice.l2_bytes
    assert {kernel.device for kernel in timed.lock.kernels} == {"Host, driver 1"}
    assert all(kernel.complete for kernel in timed.lock.kernels)


def test_kernels_are_timed_over_pages_of_their_size(timed: Timed) -> None:
    """What is measured of one holds for a library of that page size alone."""
    steps = timed.tune(make_spec(level="best", page_size=[32, 64]))
    assert [(step.kernel, step.us) for step in steps] == [
        ("b2_p32_float16", 5.0),
        ("b2_p64_float16", 5.0),
    ] * 2
    assert [scalars["page_blocks"] for scalars in timed.scalars] == [1, 2, 1, 2]
    kernels = {kernel.kernel: kernel for kernel in timed.lock.kernels}
    for page_tokens in (32, 64):
        spec = make_spec(level="best", page_size=page_tokens)
        (problem,) = cache_problems_of(spec, spec.gpu[0])
        found = timed.lock.find("h200", problem_identity(problem), "")
        assert found == kernels[f"b2_p{page_tokens}_float16"]


def test_rows_tell_page_sizes_apart(timed: Timed, tmp_path: Path) -> None:
    """A kernel that appends is timed over the cache of the one that attends to such pages."""
    library = fake_cache_library(tmp_path, "cq-2", level="gc", page_size=[64, 32], context=64)
    device: Any = HostDevice(1 << 30)
    rows = list(vqcc.runtime.cache_bench.bench_cache_library(library, device, None))
    assert [(row["op"], row["page_tokens"]) for row in rows] == [
        (op, page_tokens) for page_tokens in (32, 64) for op in ("attention_decode", "kv_append")
    ]
    assert all(row["within_bound"] for row in rows)
    assert [scalars["page_blocks"] for scalars in timed.scalars] == [1, 1, 2, 2]


def test_what_does_not_fit_is_timed_over_shorter_contexts(timed: Timed) -> None:
    """Of the larger batch alone, and the lock says so."""
    spec = make_spec(batch=[1, 8], context=1024)
    layout_bytes = (
        2 * 32 * 2 * 16
    )  # of a token block of two kv-heads: 16 codes of a byte of keys and of values
    two_copies = 2 * 8 * (1024 // 32) * layout_bytes
    steps = timed.tune(spec, free_bytes=two_copies)
    note = "sequences of 512 tokens: longer ones do not fit its free memory"
    assert [(step.us, step.reason) for step in steps] == [(5.0, ""), (5.0, note)] * 2
    lengths = [set(copies[0]["lengths"].array.tolist()) for copies in timed.copies]
    assert lengths == [{1024}, {512}] * 2
    assert [kernel.device for kernel in timed.lock.kernels] == ["Host, driver 1", f"Host, driver 1; {note}"]


def test_wrong_results_are_told(timed: Timed) -> None:
    def spoil(_count: int, outputs: NDArray[Any]) -> None:
        outputs[-1, 0, -1, 3] += np.float16(0.05)

    timed.spoil = spoil
    steps = timed.tune(make_spec())
    assert {(step.us, step.reason) for step in steps} == {(None, "outside its bound of float64")}
    assert timed.lock == Lock()


def test_other_bits_at_the_second_launch_are_told(timed: Timed) -> None:
    def spoil(count: int, outputs: NDArray[Any]) -> None:
        if count == 2:
            outputs[0, 0, 0, 0] = np.nextafter(outputs[0, 0, 0, 0], np.float16(9))

    timed.spoil = spoil
    steps = timed.tune(make_spec())
    assert {(step.us, step.reason) for step in steps} == {
        (None, "gives other bits when it is launched again")
    }
    assert timed.copies == []


@pytest.mark.parametrize(
    ("free", "context"),
    [(1 << 40, 4096), (2 * 4096, 4096), (2 * 4096 - 2, 2048), (1200, 512), (0, 64)],
)
def test_contexts_are_halved_until_copies_fit(free: int, context: int) -> None:
    """In four fifths of the memory, here counted by a token's bytes; never below what a launch needs."""
    spec = make_spec(context=4096, batch=16, window=64)
    assert spec.over_cache is not None
    keys, values, op = spec.over_cache
    layout = op.layout(keys, values, "plain")
    token = layout.heads * layout.block_bytes // 32
    room = math.ceil(16 * token * free / 0.8)
    assert longest_context(op, layout, 16, l2_bytes=1, free_bytes=room) == context
    large = replace(layout, page_tokens=4096)
    assert longest_context(op, large, 16, l2_bytes=1, free_bytes=16 * token * 4096) == 64, "pages are whole"
