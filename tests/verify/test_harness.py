"""Validation: which launches are made, and what becomes of right, wrong and careless kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import build_fake, with_workspace

from vqcc.algorithms.presets import resolve
from vqcc.building import write_library
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.library import load_library
from vqcc.tensors.packing import unpack_codes
from vqcc.verify.backends import EmulatorBackend
from vqcc.verify.harness import check_tensors, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.library import Kernel, Library

N, K = 24, 64


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    directory = tmp_path_factory.mktemp("library") / "tiny"
    write_library(build_fake("vq-4-4-1", n=N, k=K, m=[1, 5], gpu=["h200", "a100"]), directory)
    return load_library(directory)


class Exact:
    """A backend whose kernels compute in float64 from packed weights, and then do what `spoil` does."""

    name = "exact"

    def __init__(self, spoil: Callable[[Mapping[str, NDArray[Any]]], None] = lambda outputs: None) -> None:
        self.spoil = spoil
        self.runs: list[tuple[str, str, int]] = []
        #: What kernels add to the counter of their workspace, which they read, and to their scratch, which they do
        #: not; where these lie; and what all bytes of the workspace add up to before each launch.
        self.leaves = 0
        self.scribbles = 0
        self.counter: dict[str, int] = {}
        self.scratch: dict[str, int] = {}
        self.found: list[int] = []

    def gpus(self, library: Library, names: Any) -> tuple[str, ...]:
        return tuple(names) or library.gpus

    def load(self, library: Library, gpu: str) -> _Runner:
        return _Runner(self, library, gpu)


class _Runner:
    def __init__(self, backend: Exact, library: Library, gpu: str) -> None:
        self.backend, self.library, self.gpu = backend, library, gpu

    def run(
        self,
        kernel: Kernel,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        scalars: Mapping[str, int],
        workspace: NDArray[np.uint8],
    ) -> None:
        self.backend.runs.append((self.gpu, kernel.name, scalars["m"]))
        codes = unpack_codes(inputs["codes"], self.library.layout)[0]
        book = inputs["books"].view(np.float16).reshape(16, 4).astype(np.float64)
        weights = book[codes].reshape(N, K) * inputs["scales"].astype(np.float64)[:, None]
        x = inputs["x"][:, :K].astype(np.float64)
        bias = inputs["bias"].astype(np.float64) if "bias" in inputs else 0.0
        self.backend.found.append(int(workspace.sum()))
        counter, scratch = (
            at.get(kernel.name, 8 * i) for i, at in enumerate((self.backend.counter, self.backend.scratch))
        )
        outputs["y"][:, :N] = x @ weights.T + bias + int(workspace[counter : counter + 1].sum()) * 1e-3
        workspace[counter : counter + 1] += self.backend.leaves
        workspace[scratch : scratch + 1] += self.backend.scribbles
        self.backend.spoil(outputs)


def test_every_kernel_at_its_bound_and_below(library: Library) -> None:
    backend = Exact()
    results = list(validate(library, backend))
    expected = []
    for gpu in ("h200", "a100"):
        one, five = (kernel.name for kernel in library.builds[gpu].kernels)
        expected += [(gpu, one, 1), (gpu, five, 2), (gpu, five, 5)]
    assert backend.runs == expected
    assert [(r.gpu, r.kernel, r.sizes["m"]) for r in results] == backend.runs
    assert all(result.comparison.passed for result in results)
    assert {result.tensor for result in results} == {"random"}


def test_chosen_gpus_and_tensors(library: Library) -> None:
    rng = np.random.default_rng(1)
    tensors = [library.algorithm.random_tensor(rng, name, N, K) for name in ("a", "b")]
    results = list(validate(library, Exact(), tensors=tensors, gpus=("a100",)))
    assert [(result.tensor, result.gpu) for result in results] == [("a", "a100")] * 3 + [("b", "a100")] * 3


def test_json_is_flat(library: Library) -> None:
    result = next(validate(library, Exact())).to_json()
    assert (result["gpu"], result["kernel"], result["m"], result["passed"]) == (
        "h200",
        library.builds["h200"].kernels[0].name,
        1,
        True,
    )
    assert not [value for value in result.values() if isinstance(value, dict)]


def nothing_written(outputs: Mapping[str, NDArray[Any]]) -> None:
    outputs["y"][:, :N] = np.nan


def one_element_off(outputs: Mapping[str, NDArray[Any]]) -> None:
    outputs["y"][0, 7] += np.float16(0.5)


@pytest.mark.parametrize("spoil", [nothing_written, one_element_off])
def test_a_wrong_result_is_yielded(spoil: Callable[..., None], library: Library) -> None:
    results = list(validate(library, Exact(spoil)))
    assert len(results) == 6
    assert not any(result.comparison.passed for result in results)
    if spoil is one_element_off:
        assert {result.comparison.position for result in results} == {(0, 7)}


def test_a_write_outside_the_output_is_an_error(library: Library) -> None:
    def past_the_row(outputs: Mapping[str, NDArray[Any]]) -> None:
        outputs["y"][0, N] = 1.0

    with pytest.raises(VqccError) as caught:
        list(validate(library, Exact(past_the_row)))
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert [item.code for item in caught.value.diagnostics] == ["VQ0804"]


@pytest.fixture(scope="module")
def with_scratch(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """As `library`, with a workspace for some of the kernels."""
    directory = tmp_path_factory.mktemp("scratch") / "tiny"
    built = build_fake("vq-4-4-1", n=N, k=K, m=[1, 5], gpu=["h200", "a100"])
    write_library(with_workspace(built, [0, 256], [512, 64]), directory)
    return load_library(directory)


def test_kernels_with_a_workspace_are_launched_again_after_all_others(with_scratch: Library) -> None:
    backend = Exact()
    results = list(validate(with_scratch, backend))
    assert all(result.comparison.passed for result in results)
    h200, a100 = ([kernel.name for kernel in with_scratch.builds[gpu].kernels] for gpu in ("h200", "a100"))
    assert [(r.gpu, r.kernel, r.sizes["m"]) for r in results] == [
        *(("h200", h200[0], 1), ("h200", h200[1], 2), ("h200", h200[1], 5)),
        *(("a100", a100[0], 1), ("a100", a100[1], 2), ("a100", a100[1], 5)),
    ]
    assert backend.runs == [
        *(("h200", h200[0], 1), ("h200", h200[1], 2), ("h200", h200[1], 5)),
        *(("h200", h200[1], 2), ("h200", h200[1], 5)),
        *(("a100", a100[0], 1), ("a100", a100[1], 2), ("a100", a100[1], 5)) * 2,
    ]


def test_all_kernels_of_a_gpu_share_one_workspace(with_scratch: Library) -> None:
    """It is zero at first, and then as the launch before left it, whichever kernel that was of."""
    backend = Exact()
    backend.scribbles = 1
    assert len(list(validate(with_scratch, backend, gpus=("a100",)))) == 3
    assert backend.found == list(range(6))


def test_a_kernel_that_leaves_its_counters_changed(with_scratch: Library) -> None:
    """The first result is right; a later launch finds what it left."""
    backend = Exact()
    backend.leaves = 1
    seen: list[bool] = []
    with pytest.raises(VqccError) as caught:
        seen.extend(result.comparison.passed for result in validate(with_scratch, backend, gpus=("a100",)))
    assert seen[0]
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert [item.code for item in caught.value.diagnostics] == ["VQ0808"]
    assert with_scratch.builds["a100"].kernels[0].name in caught.value.diagnostics[0].message


def test_a_kernel_whose_sums_lie_over_anothers_counters(with_scratch: Library) -> None:
    """Every kernel alone is right, and right in this order: only the next round shows it."""
    first, second = (kernel.name for kernel in with_scratch.builds["a100"].kernels)
    backend = Exact()
    backend.counter = {first: 60, second: 0}
    backend.scratch = {first: 70, second: 60}
    backend.scribbles = 1
    seen: list[bool] = []
    with pytest.raises(VqccError) as caught:
        seen.extend(result.comparison.passed for result in validate(with_scratch, backend, gpus=("a100",)))
    assert seen == [True] * 3
    assert [item.code for item in caught.value.diagnostics] == ["VQ0808"]
    assert first in caught.value.diagnostics[0].message


def test_sums_in_another_order_are_noticed(with_scratch: Library) -> None:
    """Both results are within the bound; they differ by one unit in the last place."""
    calls = iter(range(100))

    def later(outputs: Mapping[str, NDArray[Any]]) -> None:
        if next(calls) >= 3:
            outputs["y"][0, 3] = np.nextafter(outputs["y"][0, 3], np.float16(9))

    with pytest.raises(VqccError) as caught:
        list(validate(with_scratch, Exact(later), gpus=("a100",)))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0808"]


def test_an_output_that_only_the_first_launch_writes_is_noticed(with_scratch: Library) -> None:
    calls = iter(range(100))

    def nothing_later(outputs: Mapping[str, NDArray[Any]]) -> None:
        if next(calls) >= 3:
            outputs["y"][:, :N] = np.nan

    with pytest.raises(VqccError) as caught:
        list(validate(with_scratch, Exact(nothing_later), gpus=("a100",)))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0808"]


def test_the_seed_decides_the_data(library: Library) -> None:
    def errors(seed: int) -> list[float]:
        return [result.comparison.max_error for result in validate(library, Exact(), seed=seed)]

    assert errors(0) == errors(0) != errors(1)


def test_tensors_that_do_not_fit_are_refused_before_anything_runs(library: Library) -> None:
    rng = np.random.default_rng(0)
    good = library.algorithm.random_tensor(rng, "good", N, K)
    tall = library.algorithm.random_tensor(rng, "tall", N + 1, K)
    backend = Exact()
    with pytest.raises(VqccError) as caught:
        list(validate(library, backend, tensors=[good, tall]))
    assert caught.value.exit_code == ExitCode.INPUT
    assert backend.runs == []
    check_tensors(library, [good])


def test_all_that_does_not_fit_is_said(library: Library) -> None:
    other = resolve("vq-8-3-2").random_tensor(np.random.default_rng(0), "w", N, 2 * K)
    with pytest.raises(VqccError) as caught:
        check_tensors(library, [other])
    message = caught.value.diagnostics[0].message
    for part in (
        "it has shape [24, 128]",
        "vector_size 8 instead",
        "entries 8 instead",
        "residuals 2 instead",
    ):
        assert part in message


def test_the_emulator_needs_source(library: Library, tmp_path: Path) -> None:
    bare = replace(library.bundle, files={})
    with pytest.raises(VqccError) as caught:
        EmulatorBackend(tmp_path).load(replace(library, bundle=bare), "h200")
    assert caught.value.diagnostics[0].code == "VQ0802"


def test_the_emulator_runs_the_library(library: Library, cache_directory: Path) -> None:
    backend = EmulatorBackend(cache_directory / "emulator")
    assert backend.gpus(library, ()) == ("h200", "a100")
    results = list(validate(library, backend, gpus=("h200",)))
    assert [result.comparison.passed for result in results] == [True] * 3


@pytest.mark.parametrize(
    ("line", "codes"),
    [("", []), ("if (threadIdx.x == 0) *arrivals = 0u;", ["VQ0808"])],
    ids=["sound", "left"],
)
def test_the_emulator_runs_kernels_whose_blocks_share_rows(
    line: str, codes: list[str], tmp_path: Path, cache_directory: Path
) -> None:
    """With one launch after another on one workspace; a kernel that leaves its counters as they are is found."""
    built = build_fake("gptvq-2", n=16, k=16384, m=[1, 3], level="o3")
    source = built.files["tiny.h200.cu"].decode()
    assert line in source
    planted = {**built.files, "tiny.h200.cu": source.replace(line, ";").encode() if line else source.encode()}
    write_library(replace(built, files=planted), tmp_path / "tiny")
    library = load_library(tmp_path / "tiny")
    assert all(kernel.launch.workspace_bytes for kernel in library.builds["h200"].kernels)
    found: list[str] = []
    passed: list[bool] = []
    try:
        passed.extend(
            result.comparison.passed
            for result in validate(library, EmulatorBackend(cache_directory / "emulator"))
        )
    except VqccError as error:
        found = [item.code for item in error.diagnostics]
    assert found == codes
    assert passed[0]
    assert all(passed) or line


def test_what_a_kernel_does_not_write_keeps_its_value(library: Library, cache_directory: Path) -> None:
    """As on a device: the rows past m are as they were before the launch."""
    runner = EmulatorBackend(cache_directory / "emulator").load(library, "h200")
    kernel = library.builds["h200"].kernels[1]
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", N, K)
    from vqcc.tensors.packing import pack_tensor

    x = np.ones((5, K), dtype=np.float16)
    y = np.full((5, N), 7, dtype=np.float16)
    inputs = {**pack_tensor(tensor, library.layout).arrays(), "x": x}
    workspace = np.zeros(0, dtype=np.uint8)
    runner.run(kernel, inputs, {"y": y}, {"m": 2, "x_stride": K, "y_stride": N}, workspace)
    assert (y[2:] == 7).all()
    assert not (y[:2] == 7).all()


@pytest.mark.parametrize(
    ("shape", "help_text"),
    [
        ((2 * N, K), "one in 2 of the rows: if 2 ranks share"),
        ((N, 3 * K), "one in 3 of the columns: if 3 ranks share"),
        ((2 * N, 2 * K), "compile a spec with the tensor's algorithm and shape"),
        ((N // 2, K), "compile a spec with the tensor's algorithm and shape"),
    ],
)
def test_a_whole_weight_for_the_library_of_a_rank(
    shape: tuple[int, int], help_text: str, library: Library
) -> None:
    tensor = library.algorithm.random_tensor(np.random.default_rng(1), "whole", *shape)
    with pytest.raises(VqccError) as caught:
        check_tensors(library, [tensor])
    (item,) = caught.value.diagnostics
    assert item.help is not None
    assert help_text in item.help
