"""Quantization of real and of awkward weights."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.algorithms import Algorithm, KMeans, from_mapping, presets
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.tensors import container, residual
from vqcc.tensors.quantize import quantize, relative_error
from vqcc.tensors.vq_tensor import numpy_dtype

if TYPE_CHECKING:
    from pathlib import Path

REAL = "encoder.layer.3.intermediate.dense.weight"


def kmeans(**fields: Any) -> Algorithm:
    return from_mapping({"family": "kmeans", "vector_size": 4, "entries": 16, **fields})


def normal(n: int = 64, k: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


def refusal(weights: np.ndarray, algorithm: Algorithm) -> tuple[str, str]:
    with pytest.raises(VqccError) as caught:
        quantize(weights, "w", algorithm)
    (found,) = caught.value.diagnostics
    return found.code, f"{found.message} | {found.help}"


# Bounds a little above what was measured; a scalar quantizer of as many bits leaves 0.34 or more at two.
@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("vq-4-8-1", 0.325),
        ("vq-2-8-1", 0.097),
        ("aqlm-2x8", 0.31),
        ("gptvq-2", 0.32),
        ("gptvq-4", 0.1),
        ("quip-2", 0.345),
        pytest.param("quip-4", 0.12, marks=pytest.mark.full),
        pytest.param("aqlm-3", 0.135, marks=pytest.mark.full),
        pytest.param("aqlm-1x16", 0.08, marks=pytest.mark.full),
        pytest.param("vq-8-8-4", 0.095, marks=pytest.mark.full),
    ],
)
def test_error_on_a_real_weight(real_weights: Path, name: str, bound: float) -> None:
    weights = container.load_weights(real_weights, REAL)
    tensor = quantize(weights, REAL, presets.resolve(name))
    tensor.validate()
    assert tensor.relative_error is not None
    assert 0.5 * bound < tensor.relative_error < bound
    exact = np.linalg.norm(weights.astype(np.float64) - tensor.decode()) / np.linalg.norm(
        weights.astype(np.float64)
    )
    assert tensor.relative_error == pytest.approx(exact, rel=1e-9)
    assert tensor.dtype == "float16"


@pytest.mark.parametrize(
    "algorithm",
    [
        kmeans(residuals=2, scales="row", codebook_dtype="int8", scope={"rows": 24, "cols": 40}),
        kmeans(entries=64, scales={"group": 16}, codebook_dtype="bfloat16"),
        presets.resolve("quip-4"),
    ],
)
def test_same_seed_same_file(tmp_path: Path, algorithm: Algorithm) -> None:
    files = []
    for run in range(2):
        path = tmp_path / f"{run}.safetensors"
        container.save(path, [quantize(normal(), "w", algorithm, seed=3)])
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_another_seed_gives_other_codebooks() -> None:
    first, second = (quantize(normal(), "w", kmeans(), seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.codebooks, second.codebooks)


def test_progress_counts_up_to_its_total() -> None:
    for algorithm in (kmeans(residuals=2, scope={"rows": 32, "cols": 64}), presets.resolve("quip-2")):
        calls: list[tuple[int, int]] = []
        quantize(normal(), "w", algorithm, progress=lambda done, total: calls.append((done, total)))  # noqa: B023
        total = calls[-1][1]
        assert calls == [(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("codebook_dtype", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("scales", ["none", "tensor", "row", {"group": 8}])
@pytest.mark.parametrize("scope", ["tensor", {"rows": 40, "cols": 24}])
def test_every_kind_of_storage(codebook_dtype: str, scales: object, scope: object) -> None:
    algorithm = kmeans(codebook_dtype=codebook_dtype, scales=scales, scope=scope)
    tensor = quantize(normal(), "w", algorithm)
    tensor.validate()
    assert tensor.relative_error is not None
    assert tensor.relative_error < 0.65


def test_codes_are_nearest_to_the_stored_codebook() -> None:
    tensor = quantize(normal(), "w", kmeans(codebook_dtype="bfloat16"))
    entries = np.asarray(tensor.codebooks)[0, 0].astype(np.float64)
    vectors = normal().reshape(-1, 4).astype(np.float64)
    distances = ((vectors[:, None] - entries) ** 2).sum(axis=2)
    chosen = distances[np.arange(len(vectors)), tensor.codes.reshape(-1)]
    assert chosen == pytest.approx(distances.min(axis=1), rel=1e-4)


def test_every_stage_lowers_the_error() -> None:
    errors = [quantize(normal(), "w", kmeans(residuals=count)).relative_error for count in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] is not None
    assert errors[3] < 0.2


def test_refinement_beats_greedy_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    refined = quantize(normal(), "w", kmeans(residuals=3)).relative_error
    monkeypatch.setattr(residual, "_refinements", lambda residuals: 0)
    monkeypatch.setattr(residual, "beam_width", lambda entries: 1)
    greedy = quantize(normal(), "w", kmeans(residuals=3)).relative_error
    assert refined is not None
    assert greedy is not None
    assert refined < 0.95 * greedy


def test_more_vectors_than_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "_POINTS_PER_ENTRY", 20)
    monkeypatch.setattr(residual, "_LEAST_POINTS", 1)
    tensor = quantize(normal(), "w", kmeans())
    assert tensor.relative_error is not None
    assert tensor.relative_error < 0.75


def test_settings_of_faiss_are_as_before() -> None:
    faiss = residual.load_faiss()

    def settings() -> tuple[int, int]:
        return faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold

    before = settings()
    quantize(normal(), "w", kmeans())
    assert settings() == before


@pytest.mark.parametrize("scales", ["none", "tensor", "row", {"group": 8}])
@pytest.mark.parametrize(
    ("weights", "bound"),
    [
        (np.zeros((16, 32), np.float32), 0.0),
        (np.full((16, 32), 0.5, np.float32), 1e-5),
        (np.where(normal(16, 32) > 0, 1, -1).astype(np.float32) * np.float32(1e-3), 1e-3),
        (normal(16, 32) * (np.arange(16) % 2)[:, None].astype(np.float32), 0.6),
    ],
    ids=["zeros", "constant", "signs", "rows of zeros"],
)
def test_awkward_weights(weights: np.ndarray, bound: float, scales: object) -> None:
    tensor = quantize(weights, "w", kmeans(scales=scales))
    tensor.validate()
    assert tensor.relative_error is not None
    assert tensor.relative_error <= bound


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize(
    "algorithm", [kmeans(codebook_dtype="bfloat16"), kmeans(scales="row"), presets.resolve("quip-2")]
)
def test_sizes_of_weights_do_not_matter(size: float, algorithm: Algorithm) -> None:
    tensor = quantize(normal() * np.float32(size), "w", algorithm)
    tensor.validate()
    assert tensor.relative_error == pytest.approx(quantize(normal(), "w", algorithm).relative_error, rel=0.05)


def test_as_many_vectors_as_entries_is_enough() -> None:
    tensor = quantize(normal(4, 16), "w", kmeans())
    assert tensor.relative_error is not None
    assert tensor.relative_error < 1e-3


def test_fewer_vectors_than_entries() -> None:
    code, text = refusal(normal(4, 12), kmeans())
    assert code == "VQ0306"
    assert "the weight has 12 vectors of 4, fewer than the 16 entries" in text
    assert "use at most 8 entries" in text


def test_fewer_vectors_than_entries_in_a_tile_cut_by_the_edge() -> None:
    code, text = refusal(normal(20, 20), kmeans(scope={"rows": 16, "cols": 16}))
    assert code == "VQ0306"
    assert "the tile of rows 16 to 19, columns 16 to 19 has 4 vectors of 4" in text
    assert "larger tiles or scope: tensor, or at most 4 entries" in text


def test_a_single_vector() -> None:
    code, text = refusal(normal(1, 4), kmeans())
    assert code == "VQ0306"
    assert "a smaller vector size" in text


@pytest.mark.parametrize(
    ("weights", "algorithm", "code", "text"),
    [
        (normal(4, 30), kmeans(), "VQ0303", "k = 30"),
        (normal(), kmeans(scales={"group": 6}), "VQ0309", "group 6"),
        (normal(4, 12), presets.resolve("quip-2"), "VQ0303", "use 8 or 16"),
        (normal().astype(np.float64), kmeans(), "VQ0524", "float64"),
        (normal().reshape(-1), kmeans(), "VQ0525", "[4096]"),
        (np.zeros((0, 4), np.float32), kmeans(), "VQ0525", "[0, 4]"),
    ],
)
def test_weights_the_algorithm_cannot_take(
    weights: np.ndarray, algorithm: Algorithm, code: str, text: str
) -> None:
    found, message = refusal(weights, algorithm)
    assert found == code
    assert text in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_must_be_finite(value: float, dtype: str) -> None:
    weights = normal().astype(numpy_dtype(dtype))
    weights[3, 5] = value
    code, text = refusal(weights, kmeans())
    assert code == "VQ0526"
    assert "'w'[3, 5]" in text


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *arguments: Any, **others: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return plain(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VqccError) as caught:
        quantize(normal(), "w", kmeans())
    assert caught.value.diagnostics[0].code == "VQ0528"
    assert "vqcc[quantize]" in (caught.value.diagnostics[0].help or "")
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    # E8P has nothing to learn.
    assert quantize(normal(), "w", presets.resolve("quip-2")).relative_error is not None


def test_relative_error_of_nothing() -> None:
    algorithm = KMeans.model_validate(kmeans().mapping())
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 4, 16)
    assert relative_error(np.zeros((4, 16)), tensor) == 1.0
    assert relative_error(tensor.decode(), tensor) == 0.0
