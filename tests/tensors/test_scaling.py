"""Scales: what they are before, and what least squares makes of them after quantization."""

from __future__ import annotations

import numpy as np
import pytest

from vqcc.algorithms import Scales
from vqcc.tensors import scaling

KINDS = [
    Scales(kind="tensor"),
    Scales(kind="row"),
    Scales(kind="group", group=8),
    Scales(kind="group", group=1000),
]


def weights(n: int = 6, k: int = 20) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, k)).astype(np.float32)


def parts(scales: Scales, values: np.ndarray) -> list[np.ndarray]:
    """The weights that share each scale, in the order of the scales."""
    if scales.kind == "tensor":
        return [values]
    if scales.kind == "row":
        return list(values)
    step = scales.group or 1
    return [row[start : start + step] for row in values for start in range(0, values.shape[1], step)]


@pytest.mark.parametrize("scales", KINDS)
def test_root_mean_square_of_what_a_scale_covers(scales: Scales, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two rows at a time, so that sums over blocks are tested too.
    monkeypatch.setattr(scaling, "_BLOCK", 40)
    values = scaling.root_mean_square(scales, weights())
    assert values is not None
    assert (values.shape, values.dtype) == (scales.shape(6, 20), scales.dtype)
    expected = [np.sqrt(np.mean(part.astype(np.float64) ** 2)) for part in parts(scales, weights())]
    assert values.reshape(-1) == pytest.approx(np.array(expected), rel=1e-3)


@pytest.mark.parametrize("scales", KINDS)
def test_refit_is_the_best_scale(scales: Scales) -> None:
    decoded = weights() + 0.3 * np.random.default_rng(1).standard_normal((6, 20)).astype(np.float32)
    first = scaling.root_mean_square(scales, weights())
    values = scaling.refit(scales, first, weights(), decoded)
    assert values is not None
    for part, base, value in zip(
        parts(scales, weights()), parts(scales, decoded), values.reshape(-1).astype(float), strict=True
    ):
        errors = [((part - value * factor * base) ** 2).sum() for factor in (1.0, 0.95, 1.05)]
        assert errors[0] == min(errors)


def test_refit_keeps_a_scale_that_would_turn_negative() -> None:
    scales = Scales(kind="row")
    values = np.array([2, 3], np.float32)
    plain = np.ones((2, 4), np.float32)
    fitted = scaling.refit(scales, values, plain, np.stack([-plain[0], plain[1]]))
    assert fitted is not None
    assert fitted.tolist() == [2, 1]


def test_without_scales() -> None:
    assert scaling.root_mean_square(Scales(), weights()) is None
    assert scaling.refit(Scales(), None, weights(), weights()) is None
    assert np.array_equal(scaling.divide(Scales(), None, weights()), weights())


@pytest.mark.parametrize("scales", KINDS)
def test_divide_leaves_unit_size(scales: Scales) -> None:
    values = scaling.root_mean_square(scales, weights())
    divided = scaling.divide(scales, values, weights())
    for part in parts(scales, divided):
        assert np.sqrt(np.mean(part**2)) == pytest.approx(1, rel=1e-3)


def test_a_row_of_zeros_has_scale_zero_and_stays_zero() -> None:
    rows = weights()
    rows[2] = 0
    scales = Scales(kind="row")
    values = scaling.root_mean_square(scales, rows)
    assert values is not None
    assert values[2] == 0
    assert not scaling.divide(scales, values, rows)[2].any()


def test_half_precision_scales_do_not_overflow() -> None:
    values = scaling.root_mean_square(Scales(kind="group", group=4), np.full((1, 4), 1e30, np.float32))
    assert values is not None
    assert values.tolist() == [[65504]]


def test_importance_is_the_square_of_the_scale() -> None:
    scales = Scales(kind="group", group=2)
    values = np.array([[1, 2], [3, 4]], np.float16)
    assert scaling.importance(scales, values, (2, 4)).tolist() == [[1, 1, 4, 4], [9, 9, 16, 16]]


@pytest.mark.parametrize(("size", "unit"), [(0.0, 1.0), (1.0, 1.0), (1e30, 2.0**100), (1e-30, 2.0**-100)])
def test_unit_is_a_power_of_two(size: float, unit: float) -> None:
    assert float(scaling.unit(np.full((3, 4), size, np.float32))) == unit
