"""From a plain weight to a VQ tensor, with the error that quantization left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, VqccError, raise_findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.tensors.vq_tensor import VQTensor

# Rows of float64 differences held at a time.
_BLOCK = 1 << 20
_SEEDS = 1 << 31


def quantize(
    weights: NDArray[Any],
    name: str,
    algorithm: Algorithm,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VQTensor:
    """Quantize `weights` [n, k] (float16, bfloat16 or float32) and measure the relative error.

    Deterministic: the same weights, algorithm and seed (modulo 2^31) give the same tensor. `progress` is called with
    (steps done, steps in all). Raises VqccError: VQ03xx where the algorithm does not fit the weight,
    VQ0524 or VQ0525 for no matrix of floats, VQ0526 for values that are not finite, VQ0528 without faiss
    where codebooks must be learnt.
    """
    import numpy as np

    _check_weights(weights, name)
    n, k = weights.shape
    raise_findings(algorithm.check_fields())
    raise_findings(algorithm.check(n, k))
    values = np.ascontiguousarray(weights, np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.unravel_index(int(finite.argmin()), values.shape)
        message = f"weight '{name}'[{row}, {column}] is {values[row, column]}"
        raise VqccError(Diagnostic("VQ0526", message, help="weights to quantize must be finite"))
    tensor = algorithm.learn(name, values, seed=seed % _SEEDS, progress=progress or _silent)
    return replace(tensor, dtype=weights.dtype.name, relative_error=relative_error(values, tensor))


def relative_error(weights: NDArray[Any], tensor: VQTensor) -> float:
    """Return ||W - decode|| / ||W|| (Frobenius); 0 for a weight of zeros that decodes to zeros."""
    import numpy as np

    decoded = tensor.decode()
    step = max(1, _BLOCK // weights.shape[1])
    wrong = total = 0.0
    for start in range(0, len(weights), step):
        block = weights[start : start + step].astype(np.float64)
        total += float((block**2).sum())
        wrong += float(((block - decoded[start : start + step]) ** 2).sum())
    if total == 0:
        return 0.0 if wrong == 0 else 1.0
    return float(np.sqrt(wrong / total))


def _check_weights(weights: NDArray[Any], name: str) -> None:
    from vqcc.tensors.container import WEIGHT_DTYPES

    if weights.dtype.name not in WEIGHT_DTYPES:
        message = f"weight '{name}' is {weights.dtype.name}"
        raise VqccError(Diagnostic("VQ0524", message, help=f"weights are {', '.join(WEIGHT_DTYPES)}"))
    if weights.ndim != 2 or weights.size == 0:
        message = f"weight '{name}' has shape {list(weights.shape)}"
        raise VqccError(Diagnostic("VQ0525", message, help="a weight is a matrix [out, in] with elements"))


def _silent(done: int, total: int) -> None:
    """Report progress to nobody."""
