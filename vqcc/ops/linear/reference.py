"""What linear ops compute, in float64, and launches that check a kernel against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.ops.base import LaunchCase
from vqcc.ops.tiles import round_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.ops.base import Variant

__all__ = ["draw_case", "reference"]

#: Elements between rows of y, at least, that a kernel must not touch; and those that kernels store at once.
_GAP, _STORED = 3, 8


def draw_case(
    shape: tuple[int, int],
    sizes: Mapping[str, int],
    variant: Variant,
    x_alignment: int,
    rng: np.random.Generator,
    *,
    gaps: bool = True,
) -> LaunchCase:
    """Inputs of one launch with m rows: x and bias like normalized activations.

    With `gaps`, `x_alignment` bytes at least lie between rows of x, and some elements between those of y: at the bound
    so many that rows are aligned to what kernels store at once, else so few that they are not. y and the gaps hold
    NaN: an element that is not written, or a gap that is read, shows.
    """
    import ml_dtypes
    import numpy as np

    n, k = shape
    m = sizes["m"]
    dtype = np.dtype(ml_dtypes.bfloat16) if variant.dtype == "bfloat16" else np.dtype(np.float16)
    step = x_alignment // 2
    x_stride = (k + step) // step * step if gaps else k
    x = np.full((m, x_stride), np.nan, dtype=dtype)
    x[:, :k] = rng.standard_normal((m, k)).astype(dtype)
    # The bound runs with a bias, smaller sizes without.
    bound = m == variant.sizes["m"]
    bias = {"bias": rng.standard_normal(n).astype(dtype)} if bound else {}
    y_stride = (round_up(n + _GAP, _STORED) if bound else n + _GAP) if gaps else n
    y = np.full((m, y_stride), np.nan, dtype=dtype)
    return LaunchCase(
        sizes=sizes,
        inputs={"x": x, **bias},
        outputs={"y": y},
        scalars={"m": m, "x_stride": x_stride, "y_stride": y_stride},
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
