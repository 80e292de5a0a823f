"""VQ tensors of random algorithms: valid, decoded as a slow loop decodes them, and stored without loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.algorithms import Algorithm, from_mapping, presets
from vqcc.diagnostics import VqccError
from vqcc.tensors import container
from vqcc.tensors.vq_tensor import VQTensor, numpy_dtype


@st.composite
def kmeans(draw: st.DrawFn) -> Algorithm:
    size = draw(st.integers(1, 16))
    tile = st.builds(
        lambda rows, cols: {"rows": rows, "cols": cols * size}, st.integers(1, 9), st.integers(1, 5)
    )
    group = st.builds(lambda count: {"group": count * size}, st.integers(1, 6))
    return from_mapping(
        {
            "family": "kmeans",
            "vector_size": size,
            "entries": 2 ** draw(st.integers(1, 10)),
            "residuals": draw(st.integers(1, 4)),
            "scope": draw(st.one_of(st.just("tensor"), tile)),
            "scales": draw(st.one_of(st.sampled_from(["none", "tensor", "row"]), group)),
            "codebook_dtype": draw(st.sampled_from(["float16", "bfloat16", "int8"])),
        }
    )


@st.composite
def e8p(draw: st.DrawFn) -> Algorithm:
    scales = draw(st.sampled_from(["none", "tensor", "row"]))
    return from_mapping({"family": "e8p", "residuals": draw(st.integers(1, 2)), "scales": scales})


@st.composite
def tensors(draw: st.DrawFn) -> VQTensor:
    algorithm = draw(st.one_of(kmeans(), e8p()))
    n, k = draw(st.integers(1, 20)), draw(st.integers(1, 12)) * algorithm.vector_size
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return algorithm.random_tensor(rng, "layer.weight", n, k)


def slow_decode(tensor: VQTensor) -> np.ndarray:
    """Decode one weight at a time, straight from the definition of the format."""
    algorithm, (n, k) = tensor.algorithm, tensor.shape
    weights = np.zeros((n, k))
    tile_rows, tile_columns = algorithm.scope.rows or n, algorithm.scope.cols or k
    books_per_row = -(-k // tile_columns)
    for row in range(n):
        for column in range(k):
            book = row // tile_rows * books_per_row + column // tile_columns
            for stage in range(algorithm.residuals):
                code = tensor.codes[stage, row, column // algorithm.vector_size]
                value = float(tensor.codebooks[book, stage, code, column % algorithm.vector_size])
                if tensor.codebook_scales is not None:
                    value *= float(tensor.codebook_scales[book, stage])
                weights[row, column] += value
            if tensor.scales is not None:
                kind, group = algorithm.scales.kind, algorithm.scales.group or 1
                place = {"tensor": (0,), "row": (row,), "group": (row, column // group)}[kind]
                weights[row, column] *= float(tensor.scales[place])
    return weights


def same(a: VQTensor, b: VQTensor) -> bool:
    ours, theirs = dict(a.arrays()), dict(b.arrays())
    head = (a.name, a.algorithm, a.shape, a.dtype, a.relative_error)
    return (
        head == (b.name, b.algorithm, b.shape, b.dtype, b.relative_error)
        and ours.keys() == theirs.keys()
        and all(ours[key].dtype == theirs[key].dtype for key in ours)
        and all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)
    )


@given(tensors())
def test_random_tensors_are_valid(tensor: VQTensor) -> None:
    tensor.validate()
    decoded = tensor.decode()
    assert decoded.shape == tensor.shape
    assert decoded.dtype == np.float64
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() < 100


@given(kmeans(), st.integers(1, 8), st.integers(1, 4), st.integers(0, 99))
def test_decode_is_what_the_format_means(algorithm: Algorithm, n: int, vectors: int, seed: int) -> None:
    k = vectors * algorithm.vector_size
    tensor = algorithm.random_tensor(np.random.default_rng(seed), "w", n, k)
    # Both add the stages in the same order, so not even rounding differs.
    assert np.array_equal(tensor.decode(), slow_decode(tensor))


@given(tensors())
def test_tables_hold_every_entry(tensor: VQTensor) -> None:
    algorithm = tensor.algorithm
    tables = algorithm.pack_tables(tensor)
    assert tables.shape == (algorithm.scope.books(*tensor.shape), algorithm.table_bytes)
    assert tables.dtype == np.uint8
    assert algorithm.table_bytes % 16 == 0
    if tensor.codebooks is None:
        return
    stored = tables[:, : algorithm.residuals * algorithm.stage_bytes].copy().view(tensor.codebooks.dtype)
    entries = stored.reshape(len(tables), algorithm.residuals, algorithm.entries, -1)
    size = algorithm.vector_size
    assert entries[..., :size].tobytes() == np.ascontiguousarray(tensor.codebooks).tobytes()
    assert not entries[..., size:].astype(np.float32).any()


@given(tensors(), st.none() | st.floats(0, 10))
def test_stored_and_loaded_without_loss(tensor: VQTensor, error: float | None) -> None:
    tensor = replace(tensor, relative_error=error, dtype="bfloat16")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.safetensors"
        container.save(path, [tensor])
        loaded = container.load(path)
        assert same(loaded, tensor)
        again = Path(directory) / "b.safetensors"
        container.save(again, [loaded])
        assert again.read_bytes() == path.read_bytes()


def example(**fields: Any) -> VQTensor:
    algorithm = from_mapping({**presets.preset("vq-4-4-2"), **fields})
    return algorithm.random_tensor(np.random.default_rng(0), "w", 8, 32)


def wrong(tensor: VQTensor) -> list[tuple[str, str]]:
    with pytest.raises(VqccError) as caught:
        tensor.validate()
    return [(item.code, f"{item.message} {item.help}") for item in caught.value.diagnostics]


def poke(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def test_a_code_out_of_range_is_named_with_its_place() -> None:
    tensor = example()
    ((code, text),) = wrong(replace(tensor, codes=poke(tensor.codes, (1, 3, 5), 16)))
    assert code == "VQ0521"
    assert "w.codes[1, 3, 5] is 16, but there are 16 entries" in text
    assert "codes are 0 to 15" in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_codebook_must_be_finite(bad: float, dtype: str) -> None:
    tensor = example(codebook_dtype=dtype)
    ((code, text),) = wrong(replace(tensor, codebooks=poke(tensor.codebooks, (0, 1, 7, 2), bad)))
    assert code == "VQ0522"
    assert "w.codebooks[0, 1, 7, 2]" in text


def test_scales_must_be_finite() -> None:
    tensor = example(codebook_dtype="int8")
    found = wrong(
        replace(
            tensor,
            scales=poke(tensor.scales, (7,), np.nan),
            codebook_scales=poke(tensor.codebook_scales, (0, 1), np.inf),
        )
    )
    assert [code for code, _ in found] == ["VQ0523", "VQ0523"]


def test_everything_wrong_is_reported_together() -> None:
    tensor = example()
    found = wrong(
        replace(
            tensor,
            codes=tensor.codes.astype(np.uint16),
            codebooks=tensor.codebooks[:, :1],
            scales=None,
            codebook_scales=np.ones((1, 2), np.float32),
        )
    )
    assert sorted(code for code, _ in found) == ["VQ0517", "VQ0518", "VQ0519", "VQ0520"]


def test_an_algorithm_that_does_not_fit_the_shape() -> None:
    tensor = example()
    ((code, text),) = wrong(replace(tensor, shape=(8, 30)))
    assert code == "VQ0303"
    assert text.startswith("tensor w: k = 30")


def test_row_scales_may_be_float16_group_scales_must() -> None:
    row = example()
    replace(row, scales=row.scales.astype(np.float16)).validate()
    group = example(scales={"group": 8})
    ((code, text),) = wrong(replace(group, scales=group.scales.astype(np.float32)))
    assert code == "VQ0519"
    assert "expected float16 [8, 4]" in text


def test_a_missing_part_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="has no codebook_scales"):
        example().part("codebook_scales")


@pytest.mark.parametrize(("name", "size"), [("bfloat16", 2), ("float16", 2), ("int8", 1), ("float32", 4)])
def test_types_by_name(name: str, size: int) -> None:
    assert numpy_dtype(name).name == name
    assert numpy_dtype(name).itemsize == size
