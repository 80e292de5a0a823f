"""How far a kernel may be from float64: the rounding its arithmetic can do, and nothing more.

A result is a sum of fp32 products, rounded once to the output type. With c roundings on the way to an
element, |computed - exact| <= gamma(c) * sum |x| |w| + u_out |exact| + the output's smallest step, where
gamma(c) = c u / (1 - c u), u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1).

That is of the worst case: of long sums it admits more than a lost term. Roundings of random sums mostly cancel, so
that all elements together are held to a few roundings of the output besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqcc.ops.base import Dtype

__all__ = ["Comparison", "compare", "compare_within", "error_bound", "output_rounding"]

#: Half a unit in the last place of the output, relative; and half the smallest subnormal, absolute.
_OUTPUT_ROUNDING = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
#: Largest finite value: past it the exact result itself rounds to infinity.
_OUTPUT_MAXIMUM = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
_UNIT = 2.0**-24
#: All elements together may be off by so many roundings of the output, and of fp32 sums by so much of their terms.
_ROUNDINGS, _SUM_ROUNDING = 4.0, 2.0**-20


@dataclass(frozen=True)
class Comparison:
    """How a result compares with float64.

    `relative_error` is ||computed - exact|| / ||exact||, `relative_limit` what it may be; `max_error` the largest
    difference of an element; `worst` the largest ratio of difference to bound, at `position`, where the bound is
    `max_bound`.
    """

    relative_error: float
    relative_limit: float
    max_error: float
    max_bound: float
    worst: float
    position: tuple[int, ...]
    elements: int

    @property
    def passed(self) -> bool:
        """Whether every element is within its bound, and all together are within their limit; a NaN never is."""
        return self.worst <= 1.0 and self.relative_error <= self.relative_limit


def output_rounding(dtype: Dtype) -> tuple[float, float]:
    """Half a unit in the last place of an output, relative, and half its smallest step."""
    return _OUTPUT_ROUNDING[dtype]


def error_bound(
    exact: NDArray[np.float64], magnitude: NDArray[np.float64], roundings: int, dtype: Dtype
) -> NDArray[np.float64]:
    """The bound of each element; `magnitude` is the sum of its terms' absolute values."""
    import numpy as np

    relative, absolute = _OUTPUT_ROUNDING[dtype]
    gamma = roundings * _UNIT / (1 - roundings * _UNIT)
    # The sum's own error is rounded to the output as well: (1 + relative) covers it.
    return np.asarray(relative * np.abs(exact) + (1 + relative) * gamma * magnitude + absolute)


def compare(
    computed: NDArray[Any],
    exact: NDArray[np.float64],
    magnitude: NDArray[np.float64],
    roundings: int,
    dtype: Dtype,
) -> Comparison:
    """Compare `computed` with `exact`, element by element. Values past the output's range may be infinite."""
    import numpy as np

    step, smallest = _OUTPUT_ROUNDING[dtype]
    together = step * np.linalg.norm(exact) + smallest * np.sqrt(exact.size)
    limit = _ROUNDINGS * float(together + _SUM_ROUNDING * np.linalg.norm(magnitude))
    return compare_within(computed, exact, error_bound(exact, magnitude, roundings, dtype), limit, dtype)


def compare_within(
    computed: NDArray[Any],
    exact: NDArray[np.float64],
    bound: NDArray[np.float64],
    limit: float,
    dtype: Dtype | None = None,
) -> Comparison:
    """Compare by the `bound` of each element and the `limit` of the norm of all differences.

    Values past the range of `dtype`, if one is given, may be infinite.
    """
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        own = computed.astype(np.float64)
        difference = np.where(own == exact, 0.0, np.abs(own - exact))  # infinities that are the same
        if dtype is not None:
            past = np.abs(exact) + bound >= _OUTPUT_MAXIMUM[dtype]
            overflow = np.isinf(own) & (np.signbit(own) == np.signbit(exact)) & past
            difference = np.where(overflow, 0.0, difference)
        ratio = np.where(np.isnan(difference), np.inf, difference / bound)
        scale = float(np.linalg.norm(np.where(np.isfinite(exact), exact, 0.0))) or 1.0
        relative = float(np.linalg.norm(difference) / scale)
    position = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    return Comparison(
        relative_error=relative,
        relative_limit=limit / scale,
        max_error=float(np.max(difference)),
        max_bound=float(bound[position]),
        worst=float(ratio[position]),
        position=position,
        elements=int(exact.size),
    )
