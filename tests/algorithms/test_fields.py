"""Scope, scales and direction: what a spec may write, and what it is told otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vqcc.algorithms import KMeans, Scales, Scope

BASE: dict[str, Any] = {"family": "kmeans", "vector_size": 4, "entries": 256}


def errors(**fields: object) -> list[tuple[tuple[int | str, ...], str, str]]:
    with pytest.raises(ValidationError) as caught:
        KMeans.model_validate({**BASE, **fields})
    return [
        (item["loc"], item["type"], item["msg"] + " | " + str(item.get("ctx", {}).get("help")))
        for item in caught.value.errors()
    ]


def test_defaults() -> None:
    algorithm = KMeans.model_validate(BASE)
    assert algorithm.scope.is_tensor
    assert algorithm.scales.kind == "none"
    assert algorithm.direction == "in"
    assert algorithm.codebook_dtype == "float16"
    assert algorithm.residuals == 1


@pytest.mark.parametrize(
    "scope", ["tensor", {"rows": 8, "cols": 16}, "layer", "kv_head", {"kv_heads": 1, "channels": 4}]
)
@pytest.mark.parametrize("scales", ["none", "tensor", "row", {"group": 32}])
def test_values_are_written_as_they_were_read(scope: object, scales: object) -> None:
    algorithm = KMeans.model_validate({**BASE, "scope": scope, "scales": scales})
    assert algorithm.scope.spec() == scope
    assert algorithm.scales.spec() == scales
    mapping = algorithm.mapping()
    assert (mapping["scope"], mapping["scales"]) == (scope, scales)
    assert KMeans.model_validate(mapping) == algorithm


@pytest.mark.parametrize(
    ("fields", "location", "kind", "text"),
    [
        ({"scope": "tensors"}, ("scope",), "VQ0206", "did you mean 'tensor'"),
        ({"scope": 5}, ("scope",), "VQ0203", "scope cannot be an integer"),
        ({"scope": None}, ("scope",), "VQ0203", "scope cannot be null"),
        ({"scope": {"rows": 4}}, ("scope",), "VQ0202", "cols missing"),
        ({"scope": {"channels": 4}}, ("scope",), "VQ0202", "kv_heads missing"),
        ({"scope": {"kv_heads": 2, "channels": 4}}, ("scope", "kv_heads"), "literal_error", "1"),
        ({"scope": {"rows": 4, "cols": 4, "channels": 4}}, ("scope",), "VQ0201", "has no channels"),
        ({"scope": "layers"}, ("scope",), "VQ0206", "did you mean 'layer'"),
        ({"scope": {}}, ("scope",), "VQ0202", "rows and cols missing"),
        ({"scope": {"rows": None, "cols": None}}, ("scope",), "VQ0202", "rows and cols missing"),
        ({"scope": {"rows": 0, "cols": 4}}, ("scope", "rows"), "greater_than_equal", "1"),
        ({"scope": {"rows": True, "cols": 4}}, ("scope", "rows"), "int_type", "integer"),
        (
            {"scope": {"rows": 4, "cols": 4, "depth": 1}},
            ("scope", "depth"),
            "extra_forbidden",
            "not permitted",
        ),
        ({"scales": "rows"}, ("scales",), "VQ0206", "did you mean 'row'"),
        ({"scales": ["row"]}, ("scales",), "VQ0203", "scales cannot be a list"),
        ({"scales": {"size": 4}}, ("scales",), "VQ0202", "need group"),
        ({"scales": {"kind": "row"}}, ("scales",), "VQ0202", "need group"),
        ({"scales": {"kind": "row", "group": 4}}, ("scales",), "VQ0202", "need group"),
        ({"scales": {"group": 0}}, ("scales", "group"), "greater_than_equal", "1"),
        ({"scales": {"group": "4"}}, ("scales", "group"), "int_type", "integer"),
        ({"direction": "out"}, ("direction",), "VQ0310", "use direction: in"),
        ({"direction": "up"}, ("direction",), "literal_error", "'in'"),
        ({"entries": 300}, ("entries",), "VQ0205", "use 256 or 512"),
        ({"entries": 1}, ("entries",), "VQ0205", "from 2 to 65536"),
        ({"entries": -4}, ("entries",), "VQ0205", "from 2 to 65536"),
        ({"entries": 131072}, ("entries",), "VQ0311", "17 bits"),
        ({"entries": 70000}, ("entries",), "VQ0311", "at most 65536"),
        ({"entries": 2.0}, ("entries",), "int_type", "integer"),
        ({"vector_size": 17}, ("vector_size",), "less_than_equal", "16"),
        ({"residuals": 9}, ("residuals",), "less_than_equal", "8"),
        ({"codebook_dtype": "float8"}, ("codebook_dtype",), "literal_error", "int8"),
        ({"colour": "red"}, ("colour",), "extra_forbidden", "not permitted"),
    ],
)
def test_wrong_value(fields: dict[str, object], location: tuple[str, ...], kind: str, text: str) -> None:
    (found,) = errors(**fields)
    assert found[:2] == (location, kind)
    assert text in found[2]


def test_all_wrong_values_are_reported_together() -> None:
    found = errors(entries=3, scope="x", scales={"group": 0}, direction="out")
    assert [location for location, *_ in found] == [
        ("entries",),
        ("scope",),
        ("scales", "group"),
        ("direction",),
    ]


@pytest.mark.parametrize(
    ("scope", "n", "k", "grid"),
    [
        (Scope(), 5, 12, (1, 1)),
        (Scope(rows=4, cols=8), 8, 16, (2, 2)),
        (Scope(rows=4, cols=8), 9, 20, (3, 3)),
        (Scope(rows=100, cols=100), 9, 20, (1, 1)),
    ],
)
def test_tiles_cover_the_tensor_once(scope: Scope, n: int, k: int, grid: tuple[int, int]) -> None:
    assert scope.grid(n, k) == grid
    slices = list(scope.slices(n, k))
    assert scope.books(n, k) == len(slices) == grid[0] * grid[1]
    seen = [
        (row, column) for rows, columns in slices for row in range(n)[rows] for column in range(k)[columns]
    ]
    assert sorted(seen) == [(row, column) for row in range(n) for column in range(k)]


@pytest.mark.parametrize(
    ("scales", "shape", "dtype"),
    [
        (Scales(), None, "float32"),
        (Scales(kind="tensor"), (1,), "float32"),
        (Scales(kind="row"), (6,), "float32"),
        (Scales(kind="group", group=8), (6, 3), "float16"),
    ],
)
def test_scales_expand_to_every_weight(scales: Scales, shape: tuple[int, ...] | None, dtype: str) -> None:
    import numpy as np

    assert scales.shape(6, 20) == shape
    assert scales.dtype == dtype
    assert scales.count(6, 20) == (0 if shape is None else int(np.prod(shape)))
    values = None if shape is None else np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    full = np.broadcast_to(scales.expand(values, 20), (6, 20))
    for row in range(6):
        for column in range(20):
            expected = 1.0
            if values is not None:
                place = {"tensor": (0,), "row": (row,), "group": (row, column // 8)}[scales.kind]
                expected = float(values[place])
            assert full[row, column] == expected
