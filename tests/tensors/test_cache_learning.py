"""Codebooks of KV caches from real keys and values: what they leave, what they are stored as, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.algorithms import Algorithm, from_mapping, presets
from vqcc.diagnostics import VqccError
from vqcc.tensors import container
from vqcc.tensors.cache_codes import nearest_codes
from vqcc.tensors.cache_learning import quantize_cache

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.tensors.cache_tensor import CacheTensor


def kmeans(**fields: Any) -> Algorithm:
    return from_mapping({"family": "kmeans", "vector_size": 4, "entries": 16, **fields})


def layer_wide(**fields: Any) -> Algorithm:
    return kmeans(scope="layer", **fields)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


# Bounds a little above what was measured, on 512 tokens: a codebook of each group has 512 vectors, which it nearly is.
@pytest.mark.parametrize(
    ("name", "tensor", "bound"),
    [
        ("cq-2", "layer.3.key", 0.11),
        ("cq-2", "layer.3.value", 0.14),
        ("cq-4", "layer.3.key", 0.031),
        ("cq-8c8b", "layer.3.key", 0.18),
        ("kv-4-8-1", "layer.3.key", 0.32),
    ],
)
def test_error_on_real_activations(real_activations: Path, name: str, tensor: str, bound: float) -> None:
    activations = container.load_weights(real_activations, tensor, 3)
    quantized = quantize_cache(activations, "x", presets.resolve(name))
    quantized.validate()
    assert quantized.relative_error is not None
    assert 0.5 * bound < quantized.relative_error < bound
    exact = activations.astype(np.float64)
    off = np.linalg.norm(exact - quantized.decode()[0]) / np.linalg.norm(exact)
    assert off == pytest.approx(quantized.relative_error)


@pytest.mark.parametrize(
    ("scope", "books"),
    [("layer", (1, 1)), ("kv_head", (3, 1)), ({"kv_heads": 1, "channels": 4}, (3, 2))],
)
def test_what_shares_a_codebook(scope: object, books: tuple[int, int]) -> None:
    """Codes are the nearest entries of the book that a group of channels has, as the kernel that appends finds them."""
    activations = normal(3, 60, 8)
    quantized = quantize_cache(activations, "x", kmeans(scope=scope, residuals=2))
    assert quantized.codebooks.shape == (*books, 2, 16, 4)
    for head in range(3):
        for group in range(2):
            vectors = activations[head, :, 4 * group : 4 * group + 4]
            wanted = nearest_codes(vectors, quantized.book_of(head, group))
            np.testing.assert_array_equal(quantized.codes[0, head, :, group], wanted)


def error_of(quantized: CacheTensor, activations: np.ndarray, weights: np.ndarray) -> float:
    off = np.square(activations.astype(np.float64) - quantized.decode()[0])
    return float((off * weights).sum())


def test_fisher_weights_count() -> None:
    """What weighs more is met better: here the first half of the tokens."""
    activations = normal(2, 400, 8)
    fisher = np.ones(activations.shape, np.float32)
    fisher[:, :200] = 100.0
    plain = quantize_cache(activations, "x", layer_wide())
    weighted = quantize_cache(activations, "x", layer_wide(), fisher=fisher)
    assert error_of(weighted, activations, fisher) < 0.97 * error_of(plain, activations, fisher)


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    activations = normal(2, 64, 8)
    for name in ("a", "b"):
        container.save(tmp_path / name, [quantize_cache(activations, "x", layer_wide(), seed=3)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = container.load_cache(tmp_path / "a", "x")
    assert loaded.shape == (2, 64, 8)
    assert loaded.algorithm == layer_wide()
    assert loaded.dtype == "float16"
    np.testing.assert_array_equal(
        loaded.decode(), quantize_cache(activations, "x", layer_wide(), seed=3).decode()
    )


def test_progress_reaches_its_end() -> None:
    seen: list[tuple[int, int]] = []
    quantize_cache(normal(2, 64, 8), "x", layer_wide(residuals=2), progress=lambda *step: seen.append(step))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def refused(activations: np.ndarray, algorithm: Algorithm, **options: Any) -> tuple[str, str]:
    with pytest.raises(VqccError) as caught:
        quantize_cache(activations, "x", algorithm, **options)
    (found, *_) = caught.value.diagnostics
    return found.code, f"{found.message} | {found.help}"


@pytest.mark.parametrize(
    ("activations", "algorithm", "options", "code", "words"),
    [
        (normal(2, 64, 8), presets.resolve("aqlm-2x8"), {}, "VQ0302", "quantizes a weight, not a KV cache"),
        (normal(2, 64, 6), layer_wide(), {}, "VQ0303", "head_dim = 6 is not a multiple"),
        (normal(2, 64, 8), kmeans(scope={"kv_heads": 1, "channels": 8}), {}, "VQ0304", "one vector of 4"),
        (normal(2, 2, 8), layer_wide(), {}, "VQ0306", "8 vectors of 4"),
        (normal(2, 15, 8), kmeans(scope={"kv_heads": 1, "channels": 4}), {}, "VQ0306", "15 vectors"),
        (normal(2, 64, 8), layer_wide(codebook_dtype="int8"), {}, "VQ0312", "int8"),
        (normal(2, 64, 8), layer_wide(scales="row"), {}, "VQ0313", "no scales"),
        (normal(2, 64), layer_wide(), {}, "VQ0525", "[kv_heads, tokens, head_dim]"),
        (normal(2, 0, 8), layer_wide(), {}, "VQ0525", "with elements"),
        (normal(2, 64, 8).astype(np.float64), layer_wide(), {}, "VQ0524", "float64"),
        (np.full((2, 64, 8), np.inf, np.float16), layer_wide(), {}, "VQ0526", "[0, 0, 0] are not finite"),
        (normal(2, 64, 8), layer_wide(), {"fisher": normal(2, 64, 4)}, "VQ0525", "[2, 64, 8]"),
        (normal(2, 64, 8), layer_wide(), {"fisher": normal(2, 64, 8)}, "VQ0526", "negative"),
        (normal(2, 64, 8), layer_wide(), {"fisher": np.zeros((2, 64, 8), np.float32)}, "VQ0526", "all zero"),
    ],
)
def test_refused(
    activations: np.ndarray, algorithm: Algorithm, options: dict[str, Any], code: str, words: str
) -> None:
    found, text = refused(activations, algorithm, **options)
    assert found == code
    assert words in text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"codes": np.zeros((1, 2, 64, 2, 1), np.uint16)}, "VQ0519"),
        ({"codes": np.zeros((1, 2, 64, 3, 1), np.uint8)}, "VQ0520"),
        ({"codes": np.zeros((2, 64, 2, 1), np.uint8)}, "VQ0520"),
        ({"codes": np.full((1, 2, 64, 2, 1), 16, np.uint8)}, "VQ0521"),
        ({"codebooks": np.zeros((1, 1, 1, 8, 4), np.float16)}, "VQ0520"),
        ({"codebooks": np.full((1, 1, 1, 16, 4), np.nan, np.float16)}, "VQ0522"),
    ],
)
def test_a_file_that_is_wrong(change: dict[str, np.ndarray], code: str, tmp_path: Path) -> None:
    good = quantize_cache(normal(2, 64, 8), "x", layer_wide())
    arrays = {f"x.{name}": array for name, array in (dict(good.arrays()) | change).items()}
    path = tmp_path / "wrong.safetensors"
    container.save(path, [good])
    with container.open_tensors(path) as file:
        ((_, text),) = file.metadata(container.METADATA_KEY)
    container.write_safetensors(path, arrays, {container.METADATA_KEY: text})
    with pytest.raises(VqccError) as caught:
        container.load_cache(path, "x")
    assert code in [item.code for item in caught.value.diagnostics]


def test_a_cache_is_no_weight_and_a_weight_no_cache(tmp_path: Path, real_weights: Path) -> None:
    path = tmp_path / "cache.safetensors"
    container.save(path, [quantize_cache(normal(2, 64, 8), "x", layer_wide())])
    with pytest.raises(VqccError, match="two positive integers"):
        container.load(path, "x")
    with pytest.raises(VqccError, match="has no 'y'"):
        container.load_cache(path, "y")
    with pytest.raises(VqccError, match="no metadata"):
        container.load_cache(real_weights, "x")
