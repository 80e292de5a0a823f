"""Quantization of a weight to k-means codebooks: scales, then books per tile, then codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Finding, raise_findings
from vqcc.report.text import counted
from vqcc.tensors import residual, scaling
from vqcc.tensors.vq_tensor import VQTensor, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.kmeans import KMeans

_INT8_MAX = 127
# Rounding beyond these would give infinity.
LARGEST = {"float16": 65504.0, "bfloat16": float(0xFF << 120)}


def learn_kmeans(
    algorithm: KMeans,
    name: str,
    weights: NDArray[np.float32],
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> VQTensor:
    """Quantize finite `weights` [n, k]; the same arguments give the same tensor on the same machine.

    Codes refer to codebooks as they are stored, rounded. Raises VqccError: VQ0306 for a tile with fewer
    vectors than entries, VQ0528 without faiss.
    """
    import numpy as np

    n, k = weights.shape
    raise_findings(_too_few_vectors(algorithm, n, k))
    faiss = residual.load_faiss()
    size, stages = algorithm.vector_size, algorithm.residuals
    books = algorithm.scope.books(n, k)
    step = _steps(books * (residual.steps(algorithm) + 1), progress)

    scales = scaling.root_mean_square(algorithm.scales, weights)
    scaled = scaling.divide(algorithm.scales, scales, weights)
    unit = scaling.unit(scaled)
    scaled /= unit
    importance = scaling.importance(algorithm.scales, scales, (n, k))
    codes = np.empty((stages, n, k // size), algorithm.codes_dtype)
    codebooks = np.empty((books, stages, algorithm.entries, size), numpy_dtype(algorithm.codebook_dtype))
    codebook_scales = np.empty((books, stages), np.float32)
    with residual.settled(faiss):
        for book, (rows, columns) in enumerate(algorithm.scope.slices(n, k)):
            shape = (rows.stop - rows.start, (columns.stop - columns.start) // size)
            vectors = np.ascontiguousarray(scaled[rows, columns]).reshape(-1, size)
            weight = mean_one(importance[rows, columns][:, ::size])
            learnt = residual.learn(vectors, weight, algorithm, seed + book * stages, step)
            codebooks[book], codebook_scales[book] = _round(
                algorithm, np.stack(learnt).astype(np.float64) * unit
            )
            values = _values(algorithm, codebooks[book], codebook_scales[book]) / unit
            found, decoded = residual.encode(vectors, list(values.astype(np.float32)))
            codes[:, rows, columns.start // size : columns.stop // size] = found.reshape(stages, *shape)
            # From here on only what the tile decodes to is needed of it.
            scaled[rows, columns] = decoded.reshape(shape[0], -1) * unit
            step()
    return VQTensor(
        name=name,
        algorithm=algorithm,
        shape=(n, k),
        dtype="float32",
        codes=codes,
        codebooks=codebooks,
        codebook_scales=codebook_scales if algorithm.has_codebook_scales else None,
        scales=scaling.refit(algorithm.scales, scales, weights, scaled),
    )


def mean_one(importance: NDArray[Any]) -> NDArray[np.float32]:
    """Return the importance of a codebook's vectors, flat, scaled to a mean of one.

    faiss gives an empty cluster half of one that weighs more than one; with a smaller mean there may be
    none, and it would look forever. Where every scale is zero, so is the weight, and any importance will do.
    """
    import numpy as np

    mean = importance.mean(dtype=np.float64)
    scaled = importance / mean if mean > 0 else np.ones_like(importance)
    return scaled.astype(np.float32).reshape(-1)


def _too_few_vectors(algorithm: KMeans, n: int, k: int) -> Iterator[Finding]:
    """Yield a problem for the smallest tile, if it has fewer vectors than a codebook has entries."""
    rows, columns = min(
        algorithm.scope.slices(n, k),
        key=lambda tile: (tile[0].stop - tile[0].start) * (tile[1].stop - tile[1].start),
    )
    count = (rows.stop - rows.start) * (columns.stop - columns.start) // algorithm.vector_size
    if count >= algorithm.minimum_vectors:
        return
    place = "the weight"
    larger = ""
    if not algorithm.scope.is_tensor:
        place = f"the tile of rows {_range(rows)}, columns {_range(columns)}"
        larger = " larger tiles or scope: tensor, or"
    bits = count.bit_length() - 1
    legal = f"at most {2**bits} entries" if bits else "a smaller vector size"
    yield Finding(
        ("algorithm", "entries"),
        "VQ0306",
        f"{place} has {counted(count, 'vector')} of {algorithm.vector_size}, fewer than the "
        f"{algorithm.entries} entries to be learnt from them",
        f"use{larger} {legal}",
    )


def _range(part: slice) -> str:
    return f"{part.start} to {part.stop - 1}"


def _steps(total: int, progress: Callable[[int, int], None]) -> Callable[[], None]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return step


def _round(algorithm: KMeans, books: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Round books [residuals, entries, vector_size] to their stored type; int8 with a scale per stage."""
    import numpy as np

    scales = np.ones(len(books), np.float32)
    dtype = numpy_dtype(algorithm.codebook_dtype)
    if algorithm.has_codebook_scales:
        largest = np.abs(books).max(axis=(1, 2))
        scales = np.where(largest > 0, largest / _INT8_MAX, 1).astype(np.float32)
        rounded = np.rint(books / scales[:, None, None]).clip(-_INT8_MAX, _INT8_MAX)
        return rounded.astype(dtype), scales
    limit = LARGEST[algorithm.codebook_dtype]
    return books.clip(-limit, limit).astype(dtype), scales


def _values(algorithm: KMeans, stored: NDArray[Any], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what stored books stand for."""
    import numpy as np

    values = stored.astype(np.float64)
    return values * scales[:, None, None] if algorithm.has_codebook_scales else values
