"""Validation of libraries over KV caches: what is right passes on the emulator, and what is wrong is noticed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cache_libraries import fake_cache_library

from vqcc.diagnostics import VqccError
from vqcc.verify.backends import EmulatorBackend
from vqcc.verify.cache_cases import append_case, attend_case, lengths_of
from vqcc.verify.cache_harness import check_cache_tensors, random_sides, validate_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.verify.backends import Runner

    Spoil = Callable[[Any, Mapping[str, NDArray[Any]]], None]


@pytest.fixture(scope="module")
def modules(cache_directory: Path) -> Path:
    return cache_directory / "emulator"


class Spoiled(EmulatorBackend):
    """The emulator, with an error in what kernels write."""

    def __init__(self, directory: Path, spoil: Spoil) -> None:
        super().__init__(directory)
        self.spoil = spoil

    def load(self, library: Any, gpu: str) -> Runner:
        runner, spoil = super().load(library, gpu), self.spoil

        class Wrapped:
            def run(self, kernel: Any, inputs: Any, outputs: Any, scalars: Any, workspace: Any) -> None:
                runner.run(kernel, inputs, outputs, scalars, workspace)
                spoil(kernel, outputs)

        return Wrapped()


@pytest.mark.parametrize(
    ("algorithm", "level", "op"),
    [
        ("cq-2", "best", {"page_size": 64, "window": 16}),
        ("cq-2", "best", {"page_size": [32, 64], "window": 8}),
        ("cq-2", "gc", {"rope": "half", "query_tokens": 2, "softcap": True}),
        (
            {"key": "cq-4", "value": "kv-4-8-1"},
            "best",
            {"q_heads": 2, "sliding_window": 70, "dtype": ["bfloat16", "float16"]},
        ),
    ],
)
def test_what_is_right(modules: Path, tmp_path: Path, algorithm: Any, level: str, op: dict[str, Any]) -> None:
    library = fake_cache_library(tmp_path, algorithm, level=level, **op)
    results = list(validate_cache(library, EmulatorBackend(modules)))
    assert all(result.comparison.passed for result in results)
    kernels = library.builds["h200"].in_cubin
    assert {result.kernel for result in results} == {kernel.name for kernel in kernels}
    assert {result.tensor for result in results} >= {"outputs", "log-sum-exps", "token blocks"}
    assert all(result.exact == ("append" in result.kernel) for result in results)
    again = list(validate_cache(library, EmulatorBackend(modules)))
    assert [result.to_json() for result in again] == [result.to_json() for result in results]


def test_each_kernel_has_pages_of_its_size(tmp_path: Path) -> None:
    """One that had the other's would read, and write, other pages' codes."""
    library = fake_cache_library(tmp_path, "cq-2", level="gc", page_size=[64, 32], batch=3)
    rng = np.random.default_rng(0)
    sides = random_sides(library, rng)
    build = library.builds["h200"]
    blocks = [
        attend_case(library, kernel.variant, sides, [100, 0, 33], 1, rng).scalars["page_blocks"]
        for kernel in build.kernels
    ]
    assert blocks == [1, 2]
    appended = [
        append_case(library, kernel, sides, 2, rng)[0].scalars["page_blocks"] for kernel in build.appends
    ]
    assert appended == [1, 1, 2, 2]


def one_output_off(kernel: Any, outputs: Mapping[str, NDArray[Any]]) -> None:
    if "outputs" in outputs:
        outputs["outputs"][0, 0, 1, 5] += np.asarray(0.05).astype(outputs["outputs"].dtype)


def one_sum_off(kernel: Any, outputs: Mapping[str, NDArray[Any]]) -> None:
    if "log_sums" in outputs:
        outputs["log_sums"][0, 0, 1] += 0.01


def one_code_off(kernel: Any, outputs: Mapping[str, NDArray[Any]]) -> None:
    if "outputs" not in outputs:
        outputs["pages"].reshape(-1)[0] ^= 1


def one_slot_off(kernel: Any, outputs: Mapping[str, NDArray[Any]]) -> None:
    if "outputs" not in outputs:
        outputs["value_window"][0, 0, 0, 0] = 9.0


@pytest.mark.parametrize(
    ("spoil", "tensor"),
    [
        (one_output_off, "outputs"),
        (one_sum_off, "log-sum-exps"),
        (one_code_off, "token blocks"),
        (one_slot_off, "window of values"),
    ],
)
def test_what_is_wrong(modules: Path, tmp_path: Path, spoil: Spoil, tensor: str) -> None:
    library = fake_cache_library(tmp_path, "cq-2", page_size=64, window=16)
    results = list(validate_cache(library, Spoiled(modules, spoil)))
    failed = {result.tensor for result in results if not result.comparison.passed}
    assert failed == {tensor}


def test_what_is_written_between_heads(modules: Path, tmp_path: Path) -> None:
    def spoil(kernel: Any, outputs: Mapping[str, NDArray[Any]]) -> None:
        if "outputs" in outputs:
            outputs["outputs"][0, 0, 0, -1] = 0

    library = fake_cache_library(tmp_path, "cq-2", page_size=64, window=16)
    with pytest.raises(VqccError) as caught:
        list(validate_cache(library, Spoiled(modules, spoil)))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0804"]


def test_another_result_the_second_time(modules: Path, tmp_path: Path) -> None:
    launches: dict[str, int] = {}

    def spoil(kernel: Any, outputs: Mapping[str, NDArray[Any]]) -> None:
        launches[kernel.name] = launches.get(kernel.name, 0) + 1
        if "outputs" in outputs and launches[kernel.name] > 1:
            outputs["outputs"][0, 0, 0, 0] += np.float16(2**-6)

    library = fake_cache_library(tmp_path, "cq-2", page_size=64, window=16)
    with pytest.raises(VqccError) as caught:
        list(validate_cache(library, Spoiled(modules, spoil)))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0808"]


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    library = fake_cache_library(tmp_path, {"key": "cq-2", "value": "cq-4"})
    keys, values = random_sides(library, np.random.default_rng(0))
    check_cache_tensors(library, keys, values)
    with pytest.raises(VqccError) as caught:
        check_cache_tensors(library, values, keys)
    assert [item.code for item in caught.value.diagnostics] == ["VQ0803", "VQ0803"]
    assert "vector_size 2 instead of the library's 4" in caught.value.diagnostics[0].message
    with pytest.raises(VqccError) as caught:
        check_cache_tensors(library, replace(keys, shape=(3, 1, 64)), values)
    assert "3 kv-heads of 64 channels instead of 2 of 64" in caught.value.diagnostics[0].message


@pytest.mark.parametrize("query_tokens", [1, 3])
def test_lengths(query_tokens: int) -> None:
    lengths = lengths_of(9, 300, query_tokens, 1024)
    assert len(lengths) == 9
    assert lengths[0] == 300
    assert {0, 32, 33, 65, 31} <= set(lengths)
    assert all(length == 0 or query_tokens <= length <= 300 for length in lengths)
    assert lengths_of(1, 4096, query_tokens, 1024) == [512]
