"""Codebooks of a KV cache, learnt from keys or values that a model made (CQ, Zhang et al. 2024, Sec. 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.diagnostics import Diagnostic, Finding, VqccError, raise_findings
from vqcc.report.text import counted
from vqcc.tensors import residual
from vqcc.tensors.cache_codes import nearest_codes
from vqcc.tensors.cache_tensor import CacheTensor
from vqcc.tensors.kmeans import LARGEST, mean_one
from vqcc.tensors.vq_tensor import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.algorithms.kmeans import KMeans

__all__ = ["quantize_cache"]

_SEEDS = 1 << 31
#: Vectors that are encoded at a time: each meets every entry.
_BLOCK = 1 << 12


def quantize_cache(
    activations: NDArray[Any],
    name: str,
    algorithm: Algorithm,
    *,
    fisher: NDArray[Any] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> CacheTensor:
    """Learn codebooks from `activations` [kv_heads, tokens, head_dim] of a layer, and encode these.

    With `fisher`, squared gradients of the same shape, a vector weighs the sum of those of its channels. Codes are
    what `kv_append` gives: each stage's nearest entry. The same arguments give the same tensor. Raises VqccError:
    VQ03xx where the algorithm does not fit, VQ0306 for fewer vectors than entries, VQ0524 to VQ0526 for wrong
    activations or weights, VQ0528 without faiss.
    """
    from vqcc.algorithms.kmeans import KMeans

    heads, _, head_dim = _check(activations, name, "activations", activations)
    raise_findings(algorithm.check_fields())
    raise_findings(algorithm.check_cache(heads, head_dim))
    assert isinstance(algorithm, KMeans)  # no other family has a scope of a cache
    if fisher is not None:
        _check(fisher, name, "Fisher weights", activations)
        if (fisher < 0).any() or not (fisher > 0).any():
            message = f"the Fisher weights of '{name}' are negative or all zero"
            raise VqccError(
                Diagnostic("VQ0526", message, help="they are squared gradients of the activations")
            )
    tensor = _learn(algorithm, name, activations.astype(np.float32), fisher, seed % _SEEDS, progress)
    exact, decoded = activations.astype(np.float64), tensor.decode()[0]
    whole = float(np.square(exact).sum())
    error = float(np.sqrt(np.square(exact - decoded).sum() / whole)) if whole else float(decoded.any())
    return replace(tensor, dtype=activations.dtype.name, relative_error=error)


def _check(array: NDArray[Any], name: str, what: str, activations: NDArray[Any]) -> tuple[int, int, int]:
    """Shapes and values of an input. Raises VQ0524 to VQ0526."""
    from vqcc.tensors.container import WEIGHT_DTYPES

    if array.dtype.name not in WEIGHT_DTYPES:
        message = f"the {what} of '{name}' are {array.dtype.name}"
        raise VqccError(Diagnostic("VQ0524", message, help=f"they are {', '.join(WEIGHT_DTYPES)}"))
    if array.ndim != 3 or array.size == 0 or array.shape != activations.shape:
        message = f"the {what} of '{name}' have shape {list(array.shape)}"
        wanted = "[kv_heads, tokens, head_dim]" if array is activations else str(list(activations.shape))
        raise VqccError(Diagnostic("VQ0525", message, help=f"they are {wanted}, with elements"))
    finite = np.isfinite(array.astype(np.float32))
    if not finite.all():
        place = [int(index) for index in np.unravel_index(int(finite.argmin()), array.shape)]
        raise VqccError(Diagnostic("VQ0526", f"the {what} of '{name}' at {place} are not finite"))
    heads, tokens, head_dim = array.shape
    return heads, tokens, head_dim


def _learn(
    algorithm: KMeans,
    name: str,
    activations: NDArray[np.float32],
    fisher: NDArray[Any] | None,
    seed: int,
    progress: Callable[[int, int], None],
) -> CacheTensor:
    heads, tokens, head_dim = activations.shape
    size, stages = algorithm.vector_size, algorithm.residuals
    groups = head_dim // size
    books = algorithm.scope.cache_books(heads, groups)
    shared = heads // books[0] * (groups // books[1])
    raise_findings(_too_few(algorithm, tokens * shared))
    faiss = residual.load_faiss()
    vectors = activations.reshape(heads, tokens, groups, size)
    weights = np.ones((heads, tokens, groups), np.float32)
    if fisher is not None:
        weights = fisher.astype(np.float32).reshape(heads, tokens, groups, size).sum(axis=-1)
    codebooks = np.empty((*books, stages, algorithm.entries, size), numpy_dtype(algorithm.codebook_dtype))
    codes = np.empty((1, heads, tokens, groups, stages), algorithm.codes_dtype)
    total, done = books[0] * books[1] * (residual.steps(algorithm) + 1), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    with residual.settled(faiss):
        for index, (of_heads, of_groups) in enumerate(_parts(books, heads, groups)):
            own = np.ascontiguousarray(vectors[of_heads, :, of_groups]).reshape(-1, size)
            importance = mean_one(weights[of_heads, :, of_groups])
            learnt = residual.learn(own, importance, algorithm, seed + index * stages, step)
            place = (of_heads.start if books[0] > 1 else 0, of_groups.start if books[1] > 1 else 0)
            limit = LARGEST[algorithm.codebook_dtype]
            codebooks[place] = np.stack(learnt).clip(-limit, limit)
            encoded = [
                nearest_codes(own[i : i + _BLOCK], codebooks[place]) for i in range(0, len(own), _BLOCK)
            ]
            shape = (of_heads.stop - of_heads.start, tokens, of_groups.stop - of_groups.start, stages)
            codes[0, of_heads, :, of_groups] = np.concatenate(encoded).reshape(shape)
            step()
    return CacheTensor(name, algorithm, (heads, tokens, head_dim), "float32", codes, codebooks)


def _parts(books: tuple[int, int], heads: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """Heads and channel groups of each codebook, in order."""
    for head in range(books[0]):
        for group in range(books[1]):
            yield (
                slice(head, head + 1) if books[0] > 1 else slice(0, heads),
                slice(group, group + 1) if books[1] > 1 else slice(0, groups),
            )


def _too_few(algorithm: KMeans, vectors: int) -> Iterator[Finding]:
    if vectors >= algorithm.minimum_vectors:
        return
    yield Finding(
        ("algorithm", "entries"),
        "VQ0306",
        f"a codebook has {counted(vectors, 'vector')} of {algorithm.vector_size} to be learnt from, fewer than its "
        f"{algorithm.entries} entries",
        "give more tokens, use fewer entries, or scope: kv_head or layer",
    )
