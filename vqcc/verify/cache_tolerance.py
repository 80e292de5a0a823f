"""How far attention may be from float64: what rounding can do to scores, weights and sums, and nothing more.

A relative change d of all weights changes an output by at most d times the weighted sum of |values|; an absolute
change of a score is such a change of its weight. Scores are fp32 sums, or sums of float16 entries of a table; weights
and short sums of values may be float16 (docs/decisions/011-attention.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.verify.tolerance import compare_within, output_rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqcc.cache_library import CacheKernel, CacheLibrary
    from vqcc.ops.attention.reference import Attended
    from vqcc.verify.tolerance import Comparison

__all__ = ["compare_bytes", "compare_log_sums", "compare_outputs"]

_HALF = 2.0**-11
_SINGLE = 2.0**-24
#: Roundings of fp32 in a score, a weight and its way to an output, beside those of the sum over tokens.
_SCORE_ROUNDINGS, _VALUE_ROUNDINGS = 16, 64
#: All elements together may be off by so many roundings of the output.
_ROUNDINGS = 4.0


@dataclass(frozen=True)
class _Rounding:
    """What one score may be off by, relative to its sum of magnitudes, and a weighted value, relative to its own."""

    score: float
    value: float

    @classmethod
    def of(cls, library: CacheLibrary, kernel: CacheKernel) -> _Rounding:
        """Tables of several rows have float16 scores, of which up to eight are added up two by two: four roundings.

        A score is a sum of as many of them as a key has channel groups, whose roundings mostly cancel. On tensor cores
        keys that are rotated after decoding are, in float16, as queries are: four roundings of a pair of channels, with
        those of cosine and sine. These kernels, and tensor cores, have float16 weights.
        """
        tabulated = kernel.dataflow == "score" and kernel.rows > 1
        terms = library.layout.key_groups if tabulated else library.op.head_dim / 2
        turned = kernel.dataflow == "fragment" and library.op.rope != "none"
        tables = 4 * _HALF / terms**0.5 if tabulated or turned else 0.0
        weights = {"score": 6 * _HALF, "fragment": 2 * _HALF}.get(kernel.dataflow, 0.0)
        return cls(_SCORE_ROUNDINGS * _SINGLE + tables, _VALUE_ROUNDINGS * _SINGLE + weights)


def compare_outputs(
    computed: NDArray[Any], exact: Attended, library: CacheLibrary, kernel: CacheKernel, longest: int
) -> Comparison:
    """Outputs [sequences, query tokens, query heads, head_dim]; `longest` tokens are summed at most."""
    rounding = _Rounding.of(library, kernel)
    step, smallest = output_rounding(kernel.variant.dtype)
    relative = rounding.value + 2 * rounding.score * exact.scores
    off = relative[..., None] * exact.magnitudes
    bound = step * np.abs(exact.outputs) + off + longest * _SINGLE * exact.magnitudes + smallest + 1e-9
    limit = _ROUNDINGS * (step * np.linalg.norm(exact.outputs) + smallest * np.sqrt(bound.size))
    return compare_within(
        computed, exact.outputs, bound, float(limit + np.linalg.norm(off)), kernel.variant.dtype
    )


def compare_log_sums(
    computed: NDArray[Any], exact: Attended, library: CacheLibrary, kernel: CacheKernel, longest: int
) -> Comparison:
    """Log-sum-exps [sequences, query tokens, query heads]; minus infinity of queries that see nothing."""
    rounding = _Rounding.of(library, kernel)
    own = np.where(np.isfinite(exact.log_sums), np.abs(exact.log_sums), 0.0)
    off = _SCORE_ROUNDINGS * _SINGLE * (1 + own) + rounding.score * exact.scores
    bound = off + longest * _SINGLE
    return compare_within(computed, exact.log_sums, bound, _ROUNDINGS * float(np.linalg.norm(off)))


def compare_bytes(computed: NDArray[Any], exact: NDArray[Any]) -> Comparison:
    """What a kernel that appends wrote: every byte is as it must be, and others stay as they were."""
    own, wanted = (
        np.ascontiguousarray(array).view(np.uint8).astype(np.float64) for array in (computed, exact)
    )
    return compare_within(own, wanted, np.full(wanted.shape, 0.5), 0.0)
