"""Multiplies of a warpgroup on the emulator: the PTX ISA's layouts, exhaustively, and numbers against float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from device.registers import TYPES, bits_of, packed, rounded

from vqcc.emulator import Buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated

COLUMNS = (32, 64, 128)
SLICES = 4  # of sixteen elements, in a row of operand B
ROWS_OF_A = 64

_SOURCE = (
    "".join(
        f"""
extern "C" __global__ void multiply_{type_}_{columns}(const uint32* a, const uint4* b, float* out) {{
  const int t = threadIdx.x;
  uint8* rows = align_shared<1024>(dynamic_shared());
  for (int i = t; i < {columns} * 8; i += 128) {{  // pieces of 16 bytes, in rows of eight
    store(reinterpret_cast<uint4*>(rows + SwizzledRows::place(i / 8, i % 8)), b[i]);
  }}
  show_to_tensor_cores();
  block_barrier();
  float sums[{columns} / 2] = {{}};
  for (int slice = 0; slice < 4; ++slice) {{
    uint32 left[4];
    for (int i = 0; i < 4; ++i) left[i] = a[(slice * 128 + t) * 4 + i];
    begin_multiplies();
    start_multiply<ElementType::{type_}, {columns}>(sums, left, rows, slice);
    commit_multiplies();
  }}
  wait_for_multiplies_but<0>();
  for (int i = 0; i < {columns} / 2; ++i) out[t * {columns} / 2 + i] = sums[i];
}}
"""
        for type_ in TYPES
        for columns in COLUMNS
    )
    + """
extern "C" __global__ void places(int* out) {
  out[threadIdx.x] = SwizzledRows::place(static_cast<int>(threadIdx.x) / 8, static_cast<int>(threadIdx.x) % 8);
}
"""
)


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("arch_warpgroup.cuh",), _SOURCE)


def multiply(
    kernels: Emulated, type_: str, a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float32]:
    """A [64, 64] times B [columns, 64] transposed, by the registers and rows that the PTX ISA names."""
    columns = len(b)
    thread = np.arange(128)
    warp, g, t = thread // 32, thread % 32 // 4, thread % 4
    row = 16 * warp[:, None] + g[:, None] + np.array([0, 8, 0, 8])
    k = 2 * t[:, None] + np.array([0, 0, 8, 8])
    bits = bits_of(type_, a)
    left = np.stack(
        [
            packed(np.stack([bits[row, 16 * slice_ + k], bits[row, 16 * slice_ + k + 1]], axis=-1))
            for slice_ in range(SLICES)
        ]
    )
    rows = np.ascontiguousarray(bits_of(type_, b).astype(np.uint16))
    out = np.zeros((128, columns // 2), np.float32)
    arguments = [
        Buffer("a", np.ascontiguousarray(left), "input"),
        Buffer("b", rows, "input"),
        Buffer("out", out, "output"),
    ]
    kernels.launch(f"multiply_{type_}_{columns}", (1, 1, 1), (128, 1, 1), columns * 128 + 1024, arguments)
    found = np.empty((ROWS_OF_A, columns), np.float32)
    i = np.arange(columns // 2)
    found[
        (16 * warp + g)[:, None] + i % 4 // 2 * 8,
        i // 4 * 8 + 2 * t[:, None] + i % 2,
    ] = out
    return found


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("type_", TYPES)
def test_every_element_is_where_the_layouts_say(kernels: Emulated, type_: str, columns: int) -> None:
    """One element of A after the other is 1: it must meet the row of B that has its k, in its own row alone."""
    random = np.random.default_rng(columns)
    b = random.integers(-99, 100, (columns, 64)).astype(np.float64)
    order = random.permutation(64)
    for shift in range(0, 64, 16):
        a = np.zeros((ROWS_OF_A, 64))
        a[np.arange(ROWS_OF_A), np.roll(order, shift)] = 1.0
        assert np.array_equal(multiply(kernels, type_, a, b), a @ b.T)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("type_", TYPES)
def test_random_numbers_against_float64(kernels: Emulated, type_: str, columns: int) -> None:
    random = np.random.default_rng([columns, 1])
    a, b = (rounded(type_, random.standard_normal((count, 64))) for count in (ROWS_OF_A, columns))
    bound = 64 * 2.0**-24 * (np.abs(a) @ np.abs(b).T)
    assert (np.abs(multiply(kernels, type_, a, b) - a @ b.T) <= bound).all()


def test_pieces_of_rows_lie_apart(kernels: Emulated) -> None:
    """The swizzling is a permutation of each row's pieces, and eight rows' pieces of one number meet no bank."""
    out = np.zeros(64 * 8, np.int32)
    kernels.launch("places", (1, 1, 1), (out.size, 1, 1), 0, [Buffer("out", out, "output")])
    places = out.reshape(64, 8)
    pieces = places // 16
    assert (places % 16 == 0).all()
    for row in range(64):
        assert set(pieces[row]) == set(range(8 * row, 8 * row + 8))
        assert pieces[row, 0] % 8 == row % 8  # by the PTX ISA: address bits 4 to 6 xor bits 7 to 9
    for piece in range(8):
        assert len(set(pieces[:8, piece] % 8)) == 8
