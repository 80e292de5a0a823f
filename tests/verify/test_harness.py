"""Validation: which launches are made, and what becomes of right, wrong and careless kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import build_fake

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
        self.gpu = ""

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
    ) -> None:
        self.backend.runs.append((self.gpu, kernel.name, scalars["m"]))
        codes = unpack_codes(inputs["codes"], self.library.layout)[0]
        book = inputs["books"].view(np.float16).reshape(16, 4).astype(np.float64)
        weights = book[codes].reshape(N, K) * inputs["scales"].astype(np.float64)[:, None]
        x = inputs["x"][:, :K].astype(np.float64)
        bias = inputs["bias"].astype(np.float64) if "bias" in inputs else 0.0
        outputs["y"][:, :N] = x @ weights.T + bias
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
    for part in ("its shape is [24, 128]", "its vector_size is 8", "its entries is 8", "its residuals is 2"):
        assert part in message


def test_the_emulator_needs_source(library: Library, tmp_path: Path) -> None:
    from dataclasses import replace

    bare = replace(library.bundle, files={})
    with pytest.raises(VqccError) as caught:
        EmulatorBackend(tmp_path).load(replace(library, bundle=bare), "h200")
    assert caught.value.diagnostics[0].code == "VQ0802"


def test_the_emulator_runs_the_library(library: Library, cache_directory: Path) -> None:
    backend = EmulatorBackend(cache_directory)
    assert backend.gpus(library, ()) == ("h200", "a100")
    results = list(validate(library, backend, gpus=("h200",)))
    assert [result.comparison.passed for result in results] == [True] * 3


def test_what_a_kernel_does_not_write_keeps_its_value(library: Library, cache_directory: Path) -> None:
    """As on a device: the rows past m are as they were before the launch."""
    runner = EmulatorBackend(cache_directory).load(library, "h200")
    kernel = library.builds["h200"].kernels[1]
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", N, K)
    from vqcc.tensors.packing import pack_tensor

    x = np.ones((5, K), dtype=np.float16)
    y = np.full((5, N), 7, dtype=np.float16)
    inputs = {**pack_tensor(tensor, library.layout).arrays(), "x": x}
    runner.run(kernel, inputs, {"y": y}, {"m": 2, "x_stride": K, "y_stride": N})
    assert (y[2:] == 7).all()
    assert not (y[:2] == 7).all()
