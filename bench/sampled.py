"""Some rows of random weights in float64, to hold results of timed kernels against: packing all would take minutes.

Codes are random words; those of some rows are taken out of them and decoded, with the one book that all tiles have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.code_layouts import FragmentLayout, PackedLayout
from vqcc.tensors.packing import unpack_codes
from vqcc.verify.tolerance import compare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.library import Kernel, Library
    from vqcc.tensors.vq_tensor import VQTensor
    from vqcc.verify.tolerance import Comparison

#: Rows of a sample, whole blocks of every layout, and samples: the first, some between, the last.
ROWS, SAMPLES = 64, 3


@dataclass(frozen=True)
class Sample:
    """Rows `first` to `first` + ROWS of a weight: their values [ROWS, k], and the sums of their terms' magnitudes."""

    first: int
    values: NDArray[np.float64]
    magnitudes: NDArray[np.float64]


def samples_of(library: Library, words: NDArray[np.uint32], book: VQTensor) -> tuple[Sample, ...]:
    """Samples of the weight that `words` are the codes of; `book` is a tensor of ROWS rows of one tile of codebooks.

    Raises ValueError for layouts of which rows cannot be taken out.
    """
    n, k = library.op.weight_shape
    vectors = k // library.algorithm.vector_size
    firsts = sorted({(n - ROWS) * i // (SAMPLES - 1) // ROWS * ROWS for i in range(SAMPLES)})
    found = []
    for first in firsts:
        codes = unpack_codes(_rows_of(words, library.layout, first), library.layout)[:, :ROWS, :vectors]
        values, magnitudes = _decoded(codes, book, k)
        found.append(Sample(first, values, magnitudes))
    return tuple(found)


def _rows_of(words: NDArray[np.uint32], layout: Any, first: int) -> NDArray[np.uint32]:
    """The words of ROWS rows from `first` on."""
    if isinstance(layout, FragmentLayout):
        block = first // layout.BLOCK_ROWS
        return words[:, block : block + ROWS // layout.BLOCK_ROWS]
    if isinstance(layout, PackedLayout):
        return words[first : first + ROWS]
    raise ValueError(f"rows cannot be taken out of codes that are {layout.kind}")


def _decoded(
    codes: NDArray[np.uint16], book: VQTensor, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and magnitudes of codes [residuals, ROWS, vectors], tile by tile; a row's scale is 1."""
    algorithm = book.algorithm
    scales = None if book.scales is None else np.ones_like(book.scales)
    tile_columns = min(book.shape[1], columns)
    parts: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for start in range(0, columns, tile_columns):
        width = min(tile_columns, columns - start)
        size = algorithm.vector_size
        own = codes[:, :, start // size : (start + width) // size].astype(book.codes.dtype)
        tile = replace(book, shape=(ROWS, width), codes=own, scales=scales)
        parts[0].append(algorithm.decode(tile))
        parts[1].append(algorithm.decode(tile, magnitudes=True))
    return np.concatenate(parts[0], axis=1), np.concatenate(parts[1], axis=1)


def compare_samples(
    library: Library,
    kernel: Kernel,
    samples: Sequence[Sample],
    inputs: Mapping[str, NDArray[Any]],
    y: NDArray[Any],
) -> list[Comparison]:
    """Each sample's part of y [m, n] with the bound of float64."""
    x = inputs["x"].astype(np.float64)
    roundings = library.op.longest_sum(kernel.tile, library.algorithm)
    found = []
    for sample in samples:
        rows = slice(sample.first, sample.first + ROWS)
        bias = inputs["bias"][rows].astype(np.float64) if "bias" in inputs else np.zeros(ROWS)
        exact = x @ sample.values.T + bias
        magnitude = np.abs(x) @ sample.magnitudes.T + np.abs(bias)
        found.append(compare(y[:, rows], exact, magnitude, roundings, kernel.variant.dtype))
    return found
