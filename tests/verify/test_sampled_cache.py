"""Caches for timing: what is checked of their sequences and heads is what a kernel must give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cache_libraries import fake_cache_library

from vqcc.verify.backends import EmulatorBackend
from vqcc.verify.cache_harness import random_sides
from vqcc.verify.sampled_cache import draw_sampled

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("algorithm", "op"),
    [
        ("cq-2", {"page_size": 64, "window": 16}),
        ({"key": "cq-4", "value": "kv-4-8-1"}, {"rope": "half", "q_heads": 2}),
    ],
)
def test_a_kernels_results_are_checked(
    tmp_path: Path, cache_directory: Path, algorithm: Any, op: dict[str, Any]
) -> None:
    library = fake_cache_library(tmp_path, algorithm, **op)
    (kernel,) = library.builds["h200"].kernels
    runner = EmulatorBackend(cache_directory / "emulator").load(library, "h200")
    rng = np.random.default_rng(0)
    sides = random_sides(library, rng)
    books = library.pack(*sides).arrays()
    cache = draw_sampled(library, kernel.variant, 150, rng)
    outputs = cache.outputs()
    runner.run(
        kernel,
        {**books, **cache.inputs, "pages": cache.pages()},
        outputs,
        cache.scalars,
        np.zeros(kernel.launch.workspace_bytes, np.uint8),
    )
    assert all(found.passed for found in cache.compare(library, kernel, sides, outputs))
    blocks = -(-(150 - library.op.window) // 32)
    assert cache.code_bytes == 2 * 2 * blocks * library.layout.block_bytes
    outputs["outputs"][1, 0, -1, 3] += np.float16(0.05)
    assert not all(found.passed for found in cache.compare(library, kernel, sides, outputs))


def test_new_tokens_are_those_that_the_lengths_count(tmp_path: Path) -> None:
    library = fake_cache_library(tmp_path, "cq-2", page_size=64, window=16)
    variant = library.builds["h200"].kernels[0].variant
    cache = draw_sampled(library, variant, 150, np.random.default_rng(0))
    inputs, scalars = cache.new_tokens()
    assert inputs["keys"].shape == inputs["values"].shape == (2, 1, 2, 64)
    assert (inputs["lengths"] == 150).all()
    append = library.builds["h200"].appends[0]
    named = {argument.name for argument in append.arguments}
    assert set(scalars) == {argument.name for argument in append.arguments if argument.role == "scalar"}
    assert set(inputs) < named
