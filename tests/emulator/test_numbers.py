"""Half and bfloat16 against NumPy, ml_dtypes and exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from vqcc.emulator import Buffer, Emulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_BINARY = ("__hadd", "__hsub", "__hmul", "__hdiv", "__hmin", "__hmax")
_DTYPES: dict[str, Any] = {"half": np.float16, "bfloat16": ml_dtypes.bfloat16}


def _format_source(
    name: str, to_float: str, from_float: str, from_double: str, as_bits: str, from_bits: str
) -> str:
    lines = "".join(f"if (op == {i}) r = {function}(x, y);\n" for i, function in enumerate(_BINARY))
    return f"""
extern "C" __global__ void {name}_widen(const unsigned short* in, float* out, int n) {{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = {to_float}({from_bits}(in[i]));
}}
extern "C" __global__ void {name}_narrow(const float* in, unsigned short* out, int n) {{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = {as_bits}({from_float}(in[i]));
}}
extern "C" __global__ void {name}_narrow_double(const double* in, unsigned short* out, int n) {{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = {as_bits}({from_double}(in[i]));
}}
extern "C" __global__ void {name}_binary(const unsigned short* a, const unsigned short* b, unsigned short* out, int n,
                                         int op) {{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const auto x = {from_bits}(a[i]), y = {from_bits}(b[i]);
  auto r = x;
  {lines}
  out[i] = {as_bits}(r);
}}
extern "C" __global__ void {name}_fused(const unsigned short* a, const unsigned short* b, const unsigned short* c,
                                        unsigned short* out, int n) {{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = {as_bits}(__hfma({from_bits}(a[i]), {from_bits}(b[i]), {from_bits}(c[i])));
}}
"""


_SOURCE = _format_source(
    "half", "__half2float", "__float2half_rn", "__double2half", "__half_as_ushort", "__ushort_as_half"
) + _format_source(
    "bfloat16",
    "__bfloat162float",
    "__float2bfloat16_rn",
    "__double2bfloat16",
    "__bfloat16_as_ushort",
    "__ushort_as_bfloat16",
)


@pytest.fixture(scope="module", params=["machine", "portable"])
def numbers(emulate: Callable[[str], Emulated], request: pytest.FixtureRequest) -> Iterator[Emulated]:
    """With this machine's instructions for half conversions and fused operations, if it has them, and without."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "portable":
            patch.setattr("vqcc.emulator.compiler.machine_flags", lambda: ())
        yield emulate(_SOURCE)


def launch(
    numbers: Emulated, kernel: str, inputs: list[NDArray[Any]], dtype: Any, *scalars: int
) -> NDArray[Any]:
    count = inputs[0].size
    out = np.zeros(count, dtype)
    buffers = [Buffer(f"in{i}", array, "input") for i, array in enumerate(inputs)]
    grid = (-(-count // 256), 1, 1)
    numbers.launch(kernel, grid, (256, 1, 1), 0, [*buffers, Buffer("out", out, "output"), count, *scalars])
    return out


def assert_same_bits(found: NDArray[np.uint16], expected: NDArray[np.uint16], dtype: Any) -> None:
    """Equal bits, where every NaN counts as the same."""
    nan = np.isnan(expected.view(dtype).astype(np.float32))
    np.testing.assert_array_equal(np.isnan(found.view(dtype).astype(np.float32)), nan)
    np.testing.assert_array_equal(found[~nan], expected[~nan])


@pytest.mark.parametrize("name", _DTYPES)
def test_every_value_widens_exactly(numbers: Emulated, name: str) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(
        launch(numbers, f"{name}_widen", [bits], np.float32), bits.view(_DTYPES[name]).astype(np.float32)
    )


def _floats_around_ties(dtype: Any) -> NDArray[np.float32]:
    """Every finite value of the format, the midpoint to the next, and the floats beside each midpoint."""
    values = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float32)
    values = np.unique(values[np.isfinite(values)])
    middles = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
    special = np.float32(
        [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, 65519.9, 65520, -65520, 2.0**-25]
    )
    return np.concatenate(
        [
            values,
            middles,
            np.nextafter(middles, np.float32(np.inf)),
            np.nextafter(middles, np.float32(-np.inf)),
            special,
        ]
    )


@pytest.mark.parametrize("name", _DTYPES)
def test_floats_round_to_nearest_even(numbers: Emulated, name: str) -> None:
    dtype = _DTYPES[name]
    random = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    floats = np.concatenate([_floats_around_ties(dtype), random])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = floats.astype(dtype).view(np.uint16)
        doubles = floats.astype(np.float64)
    assert_same_bits(launch(numbers, f"{name}_narrow", [floats], np.uint16), expected, dtype)
    assert_same_bits(launch(numbers, f"{name}_narrow_double", [doubles], np.uint16), expected, dtype)


@pytest.mark.parametrize("name", _DTYPES)
def test_doubles_are_not_rounded_twice(numbers: Emulated, name: str) -> None:
    floats = _floats_around_ties(_DTYPES[name])
    floats = floats[np.isfinite(floats) & (floats != 0)][::37]
    doubles = np.nextafter(floats.astype(np.float64), np.inf)
    _compare(
        launch(numbers, f"{name}_narrow_double", [doubles], np.uint16),
        [Fraction(float(v)) for v in doubles],
        name,
    )


def test_nan_becomes_the_canonical_one(numbers: Emulated) -> None:
    nan = np.uint32([0x7F800001, 0xFFC00000]).view(np.float32)
    for name in _DTYPES:
        assert launch(numbers, f"{name}_narrow", [nan], np.uint16).tolist() == [0x7FFF, 0x7FFF]


def _round(value: Fraction, name: str) -> int:
    """Bits of a finite, non-zero rational in the format, rounded to nearest even; exact by construction."""
    mantissa, least = (10, -14) if name == "half" else (7, -126)
    sign, value = (0x8000, -value) if value < 0 else (0, value)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent = max(least, exponent if value >= Fraction(2) ** exponent else exponent - 1)
    rounded = round(value / Fraction(2) ** (exponent - mantissa))  # to even
    infinity = 0x7C00 if name == "half" else 0x7F80
    return sign | min(infinity, ((exponent - least) << mantissa) + rounded)


def _operands(name: str, count: int, rng: np.random.Generator) -> list[NDArray[np.uint16]]:
    """Finite operands; a third of them close in magnitude to the product of the others, so that sums cancel."""
    bits = rng.integers(0, 65536, (3, count), dtype=np.uint16)
    exponent = np.uint16(0x7C00 if name == "half" else 0x7F80)
    bits[(bits & exponent) == exponent] ^= exponent
    a, b = (row.view(_DTYPES[name]).astype(np.float32) for row in bits[:2])
    with np.errstate(over="ignore"):
        near = (-(a * b)).astype(_DTYPES[name])
    use = (np.arange(count) % 3 == 0) & np.isfinite(near.astype(np.float32))
    bits[2, use] = near.view(np.uint16)[use]
    return list(bits)


@pytest.mark.parametrize("name", _DTYPES)
def test_arithmetic_is_rounded_once(numbers: Emulated, name: str) -> None:
    dtype = _DTYPES[name]
    a, b, c = _operands(name, 6000, np.random.default_rng(2))
    exact = [[Fraction(float(v)) for v in row.view(dtype)] for row in (a, b, c)]
    expected: dict[str, list[Fraction | None]] = {
        "__hadd": [x + y for x, y in zip(exact[0], exact[1], strict=True)],
        "__hsub": [x - y for x, y in zip(exact[0], exact[1], strict=True)],
        "__hmul": [x * y for x, y in zip(exact[0], exact[1], strict=True)],
        "__hdiv": [x / y if y else None for x, y in zip(exact[0], exact[1], strict=True)],
        "__hmin": [min(x, y) for x, y in zip(exact[0], exact[1], strict=True)],
        "__hmax": [max(x, y) for x, y in zip(exact[0], exact[1], strict=True)],
    }
    for i, function in enumerate(_BINARY):
        found = launch(numbers, f"{name}_binary", [a, b], np.uint16, i)
        _compare(found, expected[function], name)
    fused = [x * y + z for x, y, z in zip(*exact, strict=True)]
    _compare(launch(numbers, f"{name}_fused", [a, b, c], np.uint16), fused, name)


def _compare(found: NDArray[np.uint16], expected: list[Fraction | None], name: str) -> None:
    for bits, value in zip(found.tolist(), expected, strict=True):
        if value is None:
            continue  # a division by zero
        if value == 0:
            assert bits & 0x7FFF == 0
        else:
            assert bits == _round(value, name), (hex(bits), hex(_round(value, name)), float(value))
