"""Whole kernels against NumPy, and every way to pass an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.diagnostics import ExitCode, VqccError
from vqcc.emulator import Buffer, Emulated, EmulationError, Struct

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCE = """
// Sums tiles of a row-major matrix per block: shared memory, barriers and a tree.
extern "C" __global__ void __launch_bounds__(256, 2) tile_sums(const float* __restrict__ x, float* sums, int count) {
  float* partial = shared_array();
  const int t = threadIdx.x;
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + t; i < count; i += gridDim.x * blockDim.x) sum += x[i];
  partial[t] = sum;
  __syncthreads();
  for (int stride = blockDim.x / 2; stride > 0; stride /= 2) {
    if (t < stride) partial[t] += partial[t + stride];
    __syncthreads();
  }
  if (t == 0) sums[blockIdx.x] = partial[0];
}

// y = W x in half precision, a warp a row, eight values a load.
extern "C" __global__ void gemv(const __half* w, const __half* x, __half* y, int n, int k, long long stride) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= n) return;
  float sum = 0;
  for (int i = lane * 8; i < k; i += 256) {
    const uint4 a = *reinterpret_cast<const uint4*>(w + row * stride + i);
    const uint4 b = *reinterpret_cast<const uint4*>(x + i);
    const __half2* p = reinterpret_cast<const __half2*>(&a);
    const __half2* q = reinterpret_cast<const __half2*>(&b);
    for (int j = 0; j < 4; ++j) {
      const float2 u = __half22float2(p[j]), v = __half22float2(q[j]);
      sum = __fmaf_rn(u.x, v.x, __fmaf_rn(u.y, v.y, sum));
    }
  }
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  if (lane == 0) y[row] = __float2half_rn(sum);
}

// Counts values in shared memory, then adds to global memory.
extern "C" __global__ void histogram(const unsigned char* values, unsigned* counts, int count) {
  unsigned* mine = shared_array<unsigned>();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) mine[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    atomicAdd(&mine[values[i]], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&counts[i], mine[i]);
}

extern "C" __global__ void positions(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  __syncthreads();
  out[block * threads + thread] = block * 10000 + thread;
}

struct Inner { signed char a; double b; };
struct Parameters { const int* in; int count; short s; Inner inner; };
extern "C" __global__ void many_kinds(Parameters p, int* out, signed char i8, unsigned short u16, long long i64,
                                      unsigned long long u64, float f32, double f64, bool flag, const float* missing) {
  if (threadIdx.x == 0) {
    out[0] = p.in[p.count] + p.s + p.inner.a;
    out[1] = static_cast<int>(p.inner.b * 2);
    out[2] = i8;
    out[3] = u16;
    out[4] = static_cast<int>(i64 >> 32);
    out[5] = static_cast<int>(u64 >> 32);
    out[6] = static_cast<int>(f32 * 4) + static_cast<int>(f64 * 8);
    out[7] = flag + 2 * (missing == nullptr);
  }
}

extern "C" __global__ void every_atomic(int* i, unsigned* u, float* f, unsigned long long* w, unsigned* pair) {
  const int t = threadIdx.x;
  atomicAdd(&i[0], t); atomicMax(&i[1], t); atomicMin(&i[2], -t); atomicSub(&i[3], t);
  atomicAnd(&u[0], ~(1u << t)); atomicOr(&u[1], 1u << t); atomicXor(&u[2], 3u << (t / 2));
  atomicInc(&u[3], 9u); atomicDec(&u[4], 9u); atomicExch(&u[5], 7u);
  atomicAdd(&f[0], 0.5f); atomicExch(&f[1], 1.5f);
  atomicAdd(&w[0], 1ull << 40); atomicMax(&w[1], static_cast<unsigned long long>(t) << 40);
  atomicCAS(&w[2], static_cast<unsigned long long>(t), t + 1ull);
  atomicAdd(reinterpret_cast<__half2*>(pair), __floats2half2_rn(0.25f, -1.0f));
  atomicAdd(reinterpret_cast<__nv_bfloat162*>(pair + 1), __floats2bfloat162_rn(2.0f, 0.5f));
}

extern "C" __global__ void half_written(int* out, int count) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t < count && t % 5 != 3) out[t] = t;
}
"""


@pytest.fixture(scope="module")
def kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(_SOURCE)


def zeros(name: str, count: int, dtype: Any, role: Any = "output") -> Buffer:
    return Buffer(name, np.zeros(count, dtype), role)


@settings(max_examples=20)
@given(count=st.integers(1, 5000), blocks=st.integers(1, 5), threads=st.sampled_from([32, 64, 256, 1024]))
def test_tiled_reduction(kernels: Emulated, count: int, blocks: int, threads: int) -> None:
    x = np.random.default_rng(count).integers(-9, 9, count).astype(np.float32)
    sums = zeros("sums", blocks, np.float32)
    kernels.launch(
        "tile_sums", (blocks, 1, 1), (threads, 1, 1), 4 * threads, [Buffer("x", x, "input"), sums, count]
    )
    assert sums.array.sum() == x.sum()


@settings(max_examples=20)
@given(n=st.integers(1, 40), k=st.integers(1, 120).map(lambda i: i * 8), warps=st.sampled_from([1, 2, 8]))
def test_gemv_with_shuffles(kernels: Emulated, n: int, k: int, warps: int) -> None:
    rng = np.random.default_rng(n * 1000 + k)
    w, x = rng.standard_normal((n, k)).astype(np.float16), rng.standard_normal(k).astype(np.float16)
    y = zeros("y", n, np.float16)
    arguments = [Buffer("w", w, "input", 16), Buffer("x", x, "input", 16), y, n, k, np.int64(k)]
    report = kernels.launch("gemv", (-(-n // warps), 1, 1), (32 * warps, 1, 1), 0, arguments)
    assert report.first_unwritten("y") is None
    exact = w.astype(np.float64) @ x.astype(np.float64)
    scale = np.abs(w.astype(np.float64)) @ np.abs(x.astype(np.float64))
    assert np.all(np.abs(y.array - exact) <= 2.0**-11 * np.abs(exact) + 1e-5 * scale)


def test_histogram_with_shared_and_global_atomics(kernels: Emulated) -> None:
    values = np.random.default_rng(3).integers(0, 256, 5000, dtype=np.uint8)
    counts = zeros("counts", 256, np.uint32, "inout")
    arguments = [Buffer("values", values, "input"), counts, values.size]
    kernels.launch("histogram", (7, 1, 1), (160, 1, 1), 1024, arguments)
    np.testing.assert_array_equal(counts.array, np.bincount(values, minlength=256))


@pytest.mark.parametrize(
    ("grid", "block"), [((3, 2, 2), (5, 3, 4)), ((1, 1, 1), (1024, 1, 1)), ((2, 1, 1), (33, 1, 1))]
)
def test_blocks_and_threads_in_three_dimensions(
    kernels: Emulated, grid: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    blocks, threads = int(np.prod(grid)), int(np.prod(block))
    out = zeros("out", blocks * threads, np.uint32)
    kernels.launch("positions", grid, block, 0, [out])
    expected = np.arange(blocks)[:, None] * 10000 + np.arange(threads)
    np.testing.assert_array_equal(out.array.reshape(blocks, threads), expected)


def test_arguments_of_every_kind(kernels: Emulated) -> None:
    inner = Buffer("in", np.arange(100, 110, dtype=np.int32), "input")
    out = zeros("out", 8, np.int32)
    # A nested structure is flattened here: { pointer, int, short, (padding), signed char, (padding), double }.
    parameters = Struct((inner.at(8), np.int32(3), np.int16(-7), np.int64(-5), np.float64(4.5)))
    scalars = [-3, np.uint16(65535), np.int64(-1 << 33), 5 << 32]
    kernels.launch(
        "many_kinds",
        (1, 1, 1),
        (32, 1, 1),
        0,
        [parameters, out, *scalars, np.float32(0.25), 0.5, True, None],
    )
    assert out.array.tolist() == [105 - 7 - 5, 9, -3, 65535, -2, 5, 1 + 4, 3]


def test_atomics(kernels: Emulated) -> None:
    buffers = [
        Buffer("i", np.int32([0, 0, 0, 0]), "inout"),
        Buffer("u", np.uint32([0xFFFFFFFF, 0, 0, 0, 3, 0]), "inout"),
        Buffer("f", np.float32([0, 0]), "inout"),
        Buffer("w", np.uint64([0, 0, 0]), "inout"),
        Buffer("pair", np.uint32([0, 0]), "inout"),
    ]
    kernels.launch("every_atomic", (1, 1, 1), (32, 1, 1), 0, buffers)
    odd = 0
    for t in range(32):
        odd ^= 3 << (t // 2)
    assert buffers[0].array.tolist() == [496, 31, -31, -496]
    assert buffers[1].array.tolist() == [0, 0xFFFFFFFF, odd & 0xFFFFFFFF, 32 % 10, (3 - 32) % 10, 7]
    assert buffers[2].array.tolist() == [16.0, 1.5]
    assert buffers[3].array.tolist() == [32 << 40, 31 << 40, 32]
    assert buffers[4].array[:1].view(np.float16).tolist() == [8.0, -32.0]
    assert (np.uint32([buffers[4].array[1] << 16, buffers[4].array[1] & 0xFFFF0000])).view(
        np.float32
    ).tolist() == [64, 16]


def test_unwritten_elements_are_named(kernels: Emulated) -> None:
    out = Buffer("out", np.full((4, 6), -1, np.int32), "output")
    report = kernels.launch("half_written", (1, 1, 1), (32, 1, 1), 0, [out, 22])
    expected = np.arange(24).reshape(4, 6)
    missing = (expected % 5 == 3) | (expected >= 22)
    np.testing.assert_array_equal(report.unwritten["out"], missing)
    assert report.first_unwritten("out") == (0, 3)
    np.testing.assert_array_equal(out.array, np.where(missing, -1, expected))


def test_inout_keeps_what_the_kernel_leaves(kernels: Emulated) -> None:
    out = Buffer("out", np.full(32, -1, np.int32), "inout")
    report = kernels.launch("half_written", (1, 1, 1), (32, 1, 1), 0, [out, 2])
    assert out.array.tolist() == [0, 1] + [-1] * 30
    assert report.first_unwritten("out") is None


def test_alignment_is_no_better_than_promised(kernels: Emulated) -> None:
    w, x = np.ones((1, 8), np.float16), np.ones(8, np.float16)
    arguments = [
        Buffer("w", w, "input", 16),
        Buffer("x", x, "input", 2),
        zeros("y", 1, np.float16),
        1,
        8,
        np.int64(8),
    ]
    with pytest.raises(EmulationError, match="2-byte aligned"):
        kernels.launch("gemv", (1, 1, 1), (32, 1, 1), 0, arguments)


def test_wrong_arguments_are_all_reported(kernels: Emulated) -> None:
    out = zeros("out", 4, np.float16)
    with pytest.raises(VqccError) as caught:
        kernels.launch("gemv", (1, 1, 1), (32, 1, 1), 0, [out, 1, out, out, 1 << 31, np.float64(8)])
    assert caught.value.exit_code is ExitCode.INPUT
    assert [diagnostic.message for diagnostic in caught.value.diagnostics] == [
        "gemv: parameter 1 is a pointer to const of 8 bytes, the argument is 1",
        "gemv: parameter 3 is a signed integer of 4 bytes, the argument is a buffer",
        "gemv: parameter 4 is a signed integer of 4 bytes, the argument is 2147483648",
        "gemv: parameter 5 is a signed integer of 8 bytes, the argument is float64 8.0",
    ]


def test_wrong_number_of_arguments(kernels: Emulated) -> None:
    with pytest.raises(VqccError, match="tile_sums takes 3 arguments, not 1"):
        kernels.launch("tile_sums", (1, 1, 1), (32, 1, 1), 0, [None])


def test_unknown_kernel_is_suggested(kernels: Emulated) -> None:
    with pytest.raises(VqccError) as caught:
        kernels.launch("gemw", (1, 1, 1), (32, 1, 1), 0, [])
    assert caught.value.diagnostics[0].code == "VQ0823"
    assert "gemv" in (caught.value.diagnostics[0].help or "")


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [
        ((0, 1, 1), (32, 1, 1), 0),
        ((1, 65536, 1), (32, 1, 1), 0),
        ((1, 1, 1), (1025, 1, 1), 0),
        ((1, 1, 1), (1, 1, 65), 0),
        ((1, 1, 1), (32, 1, 1), -1),
    ],
)
def test_launches_no_gpu_accepts(
    kernels: Emulated, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int
) -> None:
    with pytest.raises(VqccError) as caught:
        kernels.launch("positions", grid, block, shared, [zeros("out", 1, np.uint32)])
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["VQ0825"]


def test_buffers_must_be_usable() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        Buffer("x", np.zeros((4, 4), np.float32)[:, 1], "input")
    with pytest.raises(ValueError, match="power of two"):
        Buffer("x", np.zeros(4, np.float32), "input", 24)
