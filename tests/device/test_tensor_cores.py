"""`multiply_fragments` and `load_matrices` on the emulator: the PTX ISA's layouts, and numbers against float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from device.registers import TYPES, bits_of, packed, rounded

from vqcc.emulator import Buffer, BugKind, EmulationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.emulator import Counters, Emulated

ROUNDINGS = 16  # one for each product that is added
CANONICAL_NAN = 0x7FFFFFFF

_SOURCE = "".join(
    f"""
extern "C" __global__ void multiply_{type_}(const uint32* a, const uint32* b, const float* c, float* out, int times) {{
  const int t = threadIdx.x;
  uint32 left[4], right[2];
  float sums[4];
  for (int i = 0; i < 4; ++i) left[i] = a[t * 4 + i];
  for (int i = 0; i < 2; ++i) right[i] = b[t * 2 + i];
  for (int i = 0; i < 4; ++i) sums[i] = c[t * 4 + i];
  for (int i = 0; i < times; ++i) multiply_fragments<ElementType::{type_}>(sums, left, right);
  for (int i = 0; i < 4; ++i) out[t * 4 + i] = sums[i];
}}
extern "C" __global__ void diverge_{type_}(float* out, int lanes) {{
  float sums[4] = {{}};
  if (lane_index() < lanes) multiply_fragments<ElementType::{type_}>(sums, {{1, 2, 3, 4}}, {{5, 6}});
  out[threadIdx.x] = sums[0];
}}
"""
    for type_ in TYPES
)

_SOURCE += """
// Row l of eight uint16 to row places[l] of shared memory, and back as matrices.
extern "C" __global__ void load_rows(const uint4* rows, const int* places, uint32* out, int lanes) {
  uint4* shared = reinterpret_cast<uint4*>(dynamic_shared());
  const int t = threadIdx.x;
  store(shared + places[t], rows[t]);
  block_barrier();
  uint32 matrices[4] = {};
  if (t < lanes) load_matrices(matrices, dynamic_shared() + places[t] * 16);
  for (int i = 0; i < 4; ++i) out[t * 4 + i] = matrices[i];
}
extern "C" __global__ void halves(const uint32* a, const uint32* b, float* out) {
  const int t = threadIdx.x;
  float whole[4] = {}, half[4] = {};
  multiply_fragments<ElementType::kFloat16>(whole, {a[t * 2], a[t * 2 + 1], 0u, 0u}, {b[t], 0u});
  multiply_fragments<ElementType::kFloat16>(half, {a[t * 2], a[t * 2 + 1]}, {b[t]});
  for (int i = 0; i < 4; ++i) {
    out[t * 8 + i] = whole[i];
    out[t * 8 + 4 + i] = half[i];
  }
}
"""


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("arch.cuh",), _SOURCE)


LANE = np.arange(32)
G, T = LANE // 4, LANE % 4
PAIR = np.arange(2)


def multiply(
    kernels: Emulated, type_: str, a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], times: int = 1
) -> tuple[NDArray[np.float32], Counters]:
    """A [warps, 16, 16], B [warps, 16, 8] and C [warps, 16, 8] through the lanes' registers and back."""
    a, b = bits_of(type_, a), bits_of(type_, b)
    row, k = G[:, None, None], 2 * T[:, None, None] + PAIR
    down, right = np.array([0, 8, 0, 8])[:, None], np.array([0, 0, 8, 8])[:, None]
    left = packed(a[:, row + down, k + right])
    above = packed(b[:, 2 * T[:, None, None] + PAIR + np.array([0, 8])[:, None], row])
    rows, columns = G[:, None] + np.array([0, 0, 8, 8]), 2 * T[:, None] + np.array([0, 1, 0, 1])
    sums = np.ascontiguousarray(c[:, rows, columns], np.float32)
    out = np.zeros_like(sums)
    arguments = [
        Buffer("a", np.ascontiguousarray(left), "input"),
        Buffer("b", np.ascontiguousarray(above), "input"),
        Buffer("c", sums, "input"),
        Buffer("out", out, "output"),
        times,
    ]
    report = kernels.launch(f"multiply_{type_}", (1, 1, 1), (32 * len(a), 1, 1), 0, arguments, count=True)
    assert report.counters is not None
    result = np.empty(c.shape, np.float32)
    result[:, rows, columns] = out
    return result, report.counters


def exact(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.float64(a) @ np.float64(b) + np.float64(c)


@pytest.mark.parametrize("type_", TYPES)
def test_every_element_is_where_the_layouts_say(kernels: Emulated, type_: str) -> None:
    """Small integers, whose sums are exact: a wrong place gives a wrong number."""
    random = np.random.default_rng(1)
    a, b, c = (random.integers(-9, 10, (4, *shape)) for shape in ((16, 16), (16, 8), (16, 8)))
    found, counters = multiply(kernels, type_, a.astype(float), b.astype(float), c.astype(float), times=3)
    assert np.array_equal(found, c + 3 * (a @ b))
    assert counters.tensor_multiplies == 4 * 3
    assert (counters.shuffles, counters.votes, counters.warp_barriers) == (0, 0, 0)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("spread", [0, 3, 7])
@pytest.mark.parametrize("cancel", [False, True])
def test_random_numbers_against_float64(kernels: Emulated, type_: str, spread: int, cancel: bool) -> None:
    """Magnitudes over 2 * spread powers of two; with and without sums that cancel."""
    random = np.random.default_rng([spread, cancel])

    def draw(*shape: int) -> NDArray[np.float64]:
        numbers = random.standard_normal((8, *shape))
        numbers *= 2.0 ** random.integers(-spread, spread + 1, numbers.shape)
        return rounded(type_, numbers if cancel else np.abs(numbers))

    a, b = draw(16, 16), draw(16, 8)
    c = np.float64(np.float32(-(a @ b) if cancel else draw(16, 8)))
    found, _ = multiply(kernels, type_, a, b, c)
    magnitude = np.abs(a) @ np.abs(b) + np.abs(c)
    unit = 2.0**-24
    bound = ROUNDINGS * unit / (1 - ROUNDINGS * unit) * magnitude
    error = np.abs(found - exact(a, b, c))
    assert (error <= bound).all()
    assert error.max() > 0, "sums that need no rounding test nothing"


@pytest.mark.parametrize("type_", TYPES)
def test_infinities_and_nans(kernels: Emulated, type_: str) -> None:
    a, b, c = np.ones((1, 16, 16)), np.ones((1, 16, 8)), np.zeros((1, 16, 8))
    a[0, 3, 5], a[0, 4, 0], a[0, 6, 2] = np.inf, -np.inf, np.nan
    b[0, 5, 1], b[0, 7, 2], c[0, 9, 4] = 0, np.inf, -np.inf
    a[0, 10, 7] = -1
    found, _ = multiply(kernels, type_, a, b, c)
    expected = exact(a, b, c)
    assert np.isinf(expected).any()
    assert np.isnan(expected).any()
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isnan(expected[0, 3, 1]), "infinity times zero"
    assert np.isnan(expected[0, 4, 2]), "infinity minus infinity"
    assert set(found[np.isnan(found)].view(np.uint32)) == {CANONICAL_NAN}


@pytest.mark.parametrize(("type_", "least"), [("kFloat16", -24), ("kBfloat16", -133)])
def test_subnormal_numbers_are_not_flushed(kernels: Emulated, type_: str, least: int) -> None:
    random = np.random.default_rng(2)
    a = random.integers(-3, 4, (2, 16, 16)) * 2.0**least
    b = random.integers(-3, 4, (2, 16, 8)).astype(float)
    c = random.integers(-3, 4, (2, 16, 8)) * 2.0**least
    found, _ = multiply(kernels, type_, a, b, c)
    assert np.array_equal(found, exact(a, b, c))
    assert np.count_nonzero(found) > 100


def test_sums_past_the_range_are_infinite(kernels: Emulated) -> None:
    huge = 2.0**100
    found, _ = multiply(
        kernels, "kBfloat16", np.full((1, 16, 16), huge), np.full((1, 16, 8), -huge), np.zeros((1, 16, 8))
    )
    assert (found == -np.inf).all()
    large = 2.0**15
    found, _ = multiply(
        kernels, "kFloat16", np.full((1, 16, 16), large), np.full((1, 16, 8), large), np.zeros((1, 16, 8))
    )
    assert (found == np.float32(16 * large**2)).all(), "float16 products do not overflow fp32"


def test_additions_go_in_the_order_of_k(kernels: Emulated) -> None:
    a, b, c = np.zeros((1, 16, 16)), np.ones((1, 16, 8)), np.zeros((1, 16, 8))
    a[0, :, 0], a[0, :, 1], a[0, :, 2] = 2.0**15, 2.0**-14, -(2.0**15)
    found, _ = multiply(kernels, "kFloat16", a, b, c)
    assert (found == 0).all(), "2^-14 is lost beside 2^15"
    a[0, :, 1], a[0, :, 2] = a[0, :, 2].copy(), a[0, :, 1].copy()
    found, _ = multiply(kernels, "kFloat16", a, b, c)
    assert (found == 2.0**-14).all()


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("threads", "lanes"), [(32, 31), (48, 32), (16, 16)])
def test_all_lanes_must_take_part(kernels: Emulated, type_: str, threads: int, lanes: int) -> None:
    out = Buffer("out", np.zeros(threads, np.float32), "output")
    with pytest.raises(EmulationError) as caught:
        kernels.launch(f"diverge_{type_}", (1, 1, 1), (threads, 1, 1), 0, [out, lanes])
    assert caught.value.finding.kind is BugKind.DIVERGENT_WARP_OPERATION
    assert "mma.sync" in caught.value.finding.message


@pytest.mark.parametrize(
    ("places", "wavefronts"),
    [
        (LANE, 4),  # eight rows of a matrix fill all banks
        (LANE * 9, 4),
        (LANE * 8, 32),  # all in one group of four banks
        (LANE * 2, 8),
        (LANE // 8 * 16 + LANE % 8 // 4 * 8 + LANE % 4, 8),
        (np.random.default_rng(0).permutation(32), None),
    ],
)
def test_matrices_are_loaded_by_the_rows_that_lanes_name(
    kernels: Emulated, places: NDArray[Any], wavefronts: int | None
) -> None:
    rows = np.random.default_rng(1).integers(0, 1 << 16, (32, 8)).astype(np.uint16)
    out = np.zeros((32, 4), np.uint32)
    arguments = [
        Buffer("rows", rows.view(np.uint32), "input", 16),
        Buffer("places", places.astype(np.int32), "input"),
        Buffer("out", out, "output"),
        32,
    ]
    shared = 16 * (int(places.max()) + 1)
    report = kernels.launch("load_rows", (1, 1, 1), (32, 1, 1), shared, arguments, count=True)
    assert report.counters is not None
    if len(set(places.tolist())) == 32:
        matrices = rows.reshape(4, 8, 4, 2)
        expected = matrices[np.arange(4), G[:, None], T[:, None]].astype(np.uint32)
        assert np.array_equal(out, packed(expected))
    if wavefronts is not None:
        assert report.counters.shared_load_wavefronts == wavefronts
    assert report.counters.shared_load_ideal == 4
    assert (report.counters.shuffles, report.counters.votes, report.counters.tensor_multiplies) == (0, 0, 0)


def test_all_lanes_must_load_matrices(kernels: Emulated) -> None:
    arguments = [
        Buffer("rows", np.zeros((32, 4), np.uint32), "input", 16),
        Buffer("places", LANE.astype(np.int32), "input"),
        Buffer("out", np.zeros((32, 4), np.uint32), "output"),
        31,
    ]
    with pytest.raises(EmulationError) as caught:
        kernels.launch("load_rows", (1, 1, 1), (32, 1, 1), 512, arguments)
    assert caught.value.finding.kind is BugKind.DIVERGENT_WARP_OPERATION
    assert "ldmatrix" in caught.value.finding.message


def test_a_multiply_of_half_the_length_is_the_first_half_of_a_whole_one(kernels: Emulated) -> None:
    rng = np.random.default_rng(3)
    a, b = (rounded("kFloat16", rng.standard_normal((32, count, 2))) for count in (2, 1))
    out = np.zeros((32, 2, 4), np.float32)
    arguments = [
        Buffer("a", np.ascontiguousarray(packed(bits_of("kFloat16", a))), "input"),
        Buffer("b", np.ascontiguousarray(packed(bits_of("kFloat16", b))), "input"),
        Buffer("out", out, "output"),
    ]
    kernels.launch("halves", (1, 1, 1), (32, 1, 1), 0, arguments)
    assert np.array_equal(out[:, 0], out[:, 1])
    assert out.any()
