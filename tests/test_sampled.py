"""Samples of rows by which timed kernels are checked: the values that the whole weight has there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.tensors.packing import unpack_codes
from vqcc.tensors.vq_tensor import VQTensor

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (450, 2056)


@pytest.mark.parametrize("level", ["gc", "best"])
@pytest.mark.parametrize("algorithm", ["gptvq-2", "aqlm-2x8", "quip-4", "vq-2-8-1"])
def test_samples_are_the_weights_rows(algorithm: str, level: str, bench: Callable[[str], Any]) -> None:
    light, sampled, levels = bench("light"), bench("sampled"), bench("gemm_levels")
    built = levels.Case(algorithm, level, SHAPE, (32,)).build("h200")
    library = light.as_loaded(built)
    arrays, book = light.weights_of(library, np.random.default_rng(1))
    codes = unpack_codes(arrays["codes"], library.layout, SHAPE[0])
    books = None
    if book.codebooks is not None:
        books = np.repeat(book.codebooks, library.algorithm.scope.books(*SHAPE), axis=0)
    scales = arrays.get("scales")
    whole = VQTensor("w", library.algorithm, SHAPE, "float16", codes, books, None, scales)
    values = library.algorithm.decode(whole)
    samples = sampled.samples_of(library, arrays["codes"], book)
    assert [sample.first for sample in samples] == [0, 192, 384]
    for sample in samples:
        assert np.array_equal(sample.values, values[sample.first : sample.first + sampled.ROWS])
