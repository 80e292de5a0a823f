"""What gemv computes, in float64, and launches that check a kernel against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.ops.base import LaunchCase

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.ops.base import Variant

__all__ = ["draw_case", "reference"]

#: Elements between rows of y that a kernel must not touch.
_GAP = 3


def draw_case(
    shape: tuple[int, int],
    sizes: Mapping[str, int],
    variant: Variant,
    x_alignment: int,
    rng: np.random.Generator,
) -> LaunchCase:
    """Inputs of one launch with m rows: x and bias like normalized activations, rows of x `x_alignment` bytes apart.

    y and the gaps between rows of x hold NaN: an element that is not written, or a gap that is read, shows.
    """
    import ml_dtypes
    import numpy as np

    n, k = shape
    m = sizes["m"]
    dtype = np.dtype(ml_dtypes.bfloat16) if variant.dtype == "bfloat16" else np.dtype(np.float16)
    step = x_alignment // 2
    x_stride = (k + step) // step * step
    x = np.full((m, x_stride), np.nan, dtype=dtype)
    x[:, :k] = rng.standard_normal((m, k)).astype(dtype)
    # The bound runs with a bias, smaller sizes without.
    bias = {"bias": rng.standard_normal(n).astype(dtype)} if m == variant.sizes["m"] else {}
    y = np.full((m, n + _GAP), np.nan, dtype=dtype)
    return LaunchCase(
        sizes=sizes,
        inputs={"x": x, **bias},
        outputs={"y": y},
        scalars={"m": m, "x_stride": x_stride, "y_stride": n + _GAP},
        result=lambda outputs: outputs["y"][:, :n],
        untouched=lambda outputs: outputs["y"][:, n:],
    )


def reference(
    weights: NDArray[np.float64], magnitudes: NDArray[np.float64], inputs: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Y [m, n] in float64, and the sum of |x| |W| + |bias| that its rounding error is measured against.

    `magnitudes` [n, k] stand for |W|: the terms that each weight was decoded from.
    """
    import numpy as np

    x = inputs["x"][:, : weights.shape[1]].astype(np.float64)
    result = x @ weights.T
    magnitude = np.abs(x) @ magnitudes.T
    if "bias" in inputs:
        bias = inputs["bias"].astype(np.float64)
        result = result + bias
        magnitude = magnitude + np.abs(bias)
    return result, magnitude
