"""The kernels of examples/engine, run on the CPU emulator and held against float64."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.codegen.written_source import read_source
from vqcc.emulator import Buffer, Emulated, Struct, build
from vqcc.ops.attention.reference import rotate, turn_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNELS = Path(__file__).parents[2] / "examples" / "engine" / "kernels.cu"
EPSILON = 1e-5
#: Half a unit in the last place of float16, relative; and what float32 sums lose beside it.
ROUNDING = 2.0**-11 + 2.0**-18


@pytest.fixture(scope="module")
def kernels(cache_directory: Path) -> Emulated:
    source = read_source(KERNELS)
    return build(source.text, headers=source.headers, cache_directory=cache_directory / "emulator")


def halves(rng: np.random.Generator, *shape: int) -> NDArray[np.float16]:
    return rng.standard_normal(shape).astype(np.float16)


def given(name: str, array: NDArray[Any]) -> Buffer:
    return Buffer(name, array, "input")


def close(got: NDArray[Any], exact: NDArray[np.float64], error: float | NDArray[np.float64]) -> None:
    """Within rounding to float16, and `error` before it."""
    bound = np.abs(exact) * ROUNDING + error + 2.0**-24
    worst = np.max(np.abs(got.astype(np.float64) - exact) / bound)
    assert worst <= 1, f"{worst} times the bound"


@pytest.mark.parametrize("hidden", [8, 256, 4104])
@pytest.mark.parametrize("parts", ["norm", "sum", "both"])
def test_add_rms_norm(kernels: Emulated, hidden: int, parts: str) -> None:
    rng = np.random.default_rng(hidden)
    tokens = 2
    x, delta, weight = halves(rng, tokens, hidden), halves(rng, tokens, hidden), halves(rng, hidden)
    total, normed = np.zeros_like(x), np.zeros_like(x)
    arguments = [
        given("x", x),
        None if parts == "norm" else given("delta", delta),
        given("weight", weight),
        None if parts == "norm" else Buffer("sum", total, "output"),
        None if parts == "sum" else Buffer("normed", normed, "output"),
        hidden,
        EPSILON,
    ]
    report = kernels.launch("add_rms_norm", (tokens, 1, 1), (512, 1, 1), 64, arguments)
    own = x.astype(np.float64)
    if parts != "norm":
        assert report.first_unwritten("sum") is None
        exact = own + delta
        close(total, exact, 0)
        own = total.astype(np.float64)
    if parts != "sum":
        assert report.first_unwritten("normed") is None
        close(normed, own / np.sqrt((own**2).mean(axis=1, keepdims=True) + EPSILON) * weight, 0)


@pytest.mark.parametrize("rope", ["half", "interleaved"])
@pytest.mark.parametrize(("heads", "head_dim"), [(3, 64), (5, 128), (1, 256)])
def test_rotate_heads(kernels: Emulated, heads: int, head_dim: int, rope: Any) -> None:
    rng = np.random.default_rng(head_dim)
    lengths, new_tokens, stride = np.array([7, 65_536], np.int32), 3, (heads + 2) * head_dim
    tokens = new_tokens * len(lengths)
    rows = halves(rng, tokens, stride)
    out = np.zeros((tokens, heads, head_dim), np.float16)
    steps = turn_steps(head_dim, 500_000.0)
    arguments = [
        given("in", rows),
        Buffer("out", out, "output"),
        given("turn_steps", steps),
        given("lengths", lengths),
        stride,
        heads,
        head_dim,
        new_tokens,
        int(rope == "interleaved"),
    ]
    grid = (-(-heads * head_dim // 16 // 128), tokens, 1)
    report = kernels.launch("rotate_heads", grid, (128, 1, 1), 0, arguments)
    assert report.first_unwritten("out") is None
    positions = np.concatenate([length - new_tokens + np.arange(new_tokens) for length in lengths])
    own = rows[:, : heads * head_dim].reshape(tokens, heads, head_dim).astype(np.float64)
    exact = np.moveaxis(rotate(np.moveaxis(own, 1, 0), positions, rope, 500_000.0), 0, 1)
    close(out, exact, 2.0**-20 * np.abs(own).max())


def test_gated_silu(kernels: Emulated) -> None:
    rng = np.random.default_rng(0)
    tokens, width = 2, 2056
    rows = halves(rng, tokens, 2 * width) * np.float16(4)
    out = np.zeros((tokens, width), np.float16)
    arguments = [given("gate_up", rows), Buffer("out", out, "output"), width]
    grid = (-(-width // 8 // 256), tokens, 1)
    report = kernels.launch("gated_silu", grid, (256, 1, 1), 0, arguments)
    assert report.first_unwritten("out") is None
    gate, up = rows[:, :width].astype(np.float64), rows[:, width:].astype(np.float64)
    exact = gate / (1 + np.exp(-gate)) * up
    close(out, exact, 2.0**-20 * np.abs(exact))


@pytest.mark.parametrize(
    ("head_dim", "tokens"), [(64, 70), (128, 65), pytest.param(256, 33, marks=pytest.mark.full)]
)
def test_causal_attention(kernels: Emulated, head_dim: int, tokens: int) -> None:
    rng = np.random.default_rng(head_dim)
    sequences, q_heads, kv_heads = 2, 2, 1
    rotated = halves(rng, sequences, tokens, q_heads + kv_heads, head_dim)
    values = halves(rng, sequences, tokens, 3 * head_dim)  # a part of rows that are longer
    out = np.zeros((sequences, tokens, q_heads, head_dim), np.float16)
    scale = head_dim**-0.5
    argument = Struct(
        (
            given("rotated", rotated),
            given("values", values),
            Buffer("out", out, "output"),
            np.int64(3 * head_dim),
            *map(np.int32, (tokens, q_heads, kv_heads)),
            np.float32(scale * np.log2(np.e)),
        )
    )
    keys_of_tile = 32 if head_dim == 256 else 64
    shared = (64 + 2 * keys_of_tile) * (head_dim + 8) * 2
    grid = (-(-tokens // 64), q_heads, sequences)
    report = kernels.launch(f"causal_attention_{head_dim}", grid, (128, 1, 1), shared, [argument])
    assert report.first_unwritten("out") is None
    own = rotated.astype(np.float64)
    scores = np.einsum("sqhd,skd->shqk", own[:, :, :q_heads], own[:, :, q_heads]) * scale
    scores[..., np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    own_values = values[:, :, :head_dim].astype(np.float64)
    exact = np.einsum("shqk,skd->sqhd", weights, own_values)
    magnitude = np.einsum("shqk,skd->sqhd", weights, np.abs(own_values))
    close(out, exact, 2.0**-10 * magnitude)  # weights are rounded to float16
