"""Attention in float64, over keys and values that are decoded, rotated and masked as the kernels do."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.ops.attention.rope import Rope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Attended", "Rope", "attend", "rotate", "turn_steps"]


_TWO_PI = Fraction("6.28318530717958647692528676655900576839433879875021")


@dataclass(frozen=True)
class Attended:
    """Of each query: outputs [sequences, query tokens, query heads, head_dim], log-sum-exps less the last axis.

    `magnitudes`, of the shape of outputs, are weighted sums of |values|; `scores`, of that of log-sum-exps, the largest
    sum of |query * key| of a token that is seen, or, where keys are rotated after decoding, of products of the lengths
    of pairs of channels, which no rotation changes. What rounding can do is relative to these.
    """

    outputs: NDArray[np.float64]
    log_sums: NDArray[np.float64]
    magnitudes: NDArray[np.float64]
    scores: NDArray[np.float64]


def attend(
    queries: NDArray[Any],
    keys: Sequence[NDArray[np.float64]],
    values: Sequence[NDArray[np.float64]],
    *,
    scale: float,
    softcap: float = 0.0,
    sliding_window: int = 0,
    rope: Rope = "none",
) -> Attended:
    """Attention of `queries` [sequences, query tokens, query heads, head_dim] over each sequence's tokens.

    `keys` and `values` are [kv-heads, tokens, head_dim], keys rotated by `rope`. The query tokens are a sequence's last
    ones, and see what is not after them, with a sliding window no more than so many tokens. A query that sees none has
    output 0 and log-sum-exp minus infinity.
    """
    exact = queries.astype(np.float64)
    sequences, query_tokens, query_heads, _ = exact.shape
    outputs, magnitudes = np.zeros(exact.shape), np.zeros(exact.shape)
    log_sums, scores = np.full(exact.shape[:-1], -np.inf), np.zeros(exact.shape[:-1])
    for sequence in range(sequences):
        heads, length, _ = keys[sequence].shape
        positions = np.arange(length)
        for token in range(query_tokens):
            own = length - query_tokens + token
            seen = positions <= own
            if sliding_window:
                seen &= positions > own - sliding_window
            if not seen.any():
                continue
            for query_head in range(query_heads):
                head = query_head // (query_heads // heads)
                query, place = exact[sequence, token, query_head], (sequence, token, query_head)
                own_keys, own_values = keys[sequence][head, seen], values[sequence][head, seen]
                products = scale * (own_keys @ query)
                capped = softcap * np.tanh(products / softcap) if softcap else products
                weights = np.exp(capped - capped.max())
                outputs[place] = weights @ own_values / weights.sum()
                magnitudes[place] = weights @ np.abs(own_values) / weights.sum()
                log_sums[place] = capped.max() + np.log(weights.sum())
                scores[place] = abs(scale) * (_lengths(own_keys, rope) @ _lengths(query, rope)).max()
    return Attended(outputs, log_sums, magnitudes, scores)


def _lengths(rows: NDArray[np.float64], rope: Rope) -> NDArray[np.float64]:
    """Lengths of the pairs of channels that are rotated together; of channels that are not, magnitudes."""
    if rope == "none":
        return np.abs(rows)
    first, second = _pairs(rope, rows.shape[-1] // 2)
    lengths: NDArray[np.float64] = np.hypot(rows[..., first], rows[..., second])
    return lengths


def _pairs(rope: Rope, pairs: int) -> tuple[slice, slice]:
    """Where the first channel of each pair is, and the second."""
    if rope == "half":
        return slice(0, pairs), slice(pairs, None)
    return slice(0, None, 2), slice(1, None, 2)


def rotate(
    keys: NDArray[np.float64],
    positions: NDArray[Any],
    rope: Rope,
    base: float = 10000.0,
    scaling: float = 1.0,
) -> NDArray[np.float64]:
    """Keys [..., tokens, head_dim], pair i of channels rotated by position / scaling * base^(-2 i / head_dim)."""
    if rope == "none":
        return keys
    pairs = keys.shape[-1] // 2
    angles = positions[:, None] * _frequencies(pairs, base, scaling)
    cosines, sines = np.cos(angles), np.sin(angles)
    first, second = _pairs(rope, pairs)
    rotated = np.empty_like(keys)
    rotated[..., first] = keys[..., first] * cosines - keys[..., second] * sines
    rotated[..., second] = keys[..., first] * sines + keys[..., second] * cosines
    return rotated


def turn_steps(head_dim: int, base: float = 10000.0, scaling: float = 1.0) -> NDArray[np.uint64]:
    """What a pair of channels turns from one position to the next, in 2^-64 of a turn (device/attention/rope.cuh).

    The quotient by 2 pi is exact: a float64 would be 2^-56 of a turn off, and so much more the further a position is.
    """
    frequencies = _frequencies(head_dim // 2, base, scaling)
    turns = (Fraction(float(frequency)) / _TWO_PI for frequency in frequencies)
    return np.array([round(turn * 2**64) % 2**64 for turn in turns], dtype=np.uint64)


def _frequencies(pairs: int, base: float, scaling: float) -> NDArray[np.float64]:
    """Radians from one position to the next."""
    frequencies: NDArray[np.float64] = np.power(base, -np.arange(pairs) / pairs) / scaling
    return frequencies
