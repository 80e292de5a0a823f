"""The functions of arch.cuh: conversions against NumPy, and blocks that add up each other's results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.diagnostics import VqccError
from vqcc.emulator import Buffer, BugKind, EmulationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated

_SOURCE = """
extern "C" __global__ void convert(const float2* in, uint32* float16, uint32* bfloat16, int count) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i < count) float16[i] = to_float16_pair(in[i]);
  if (i < count) bfloat16[i] = to_bfloat16_pair(in[i]);
}
extern "C" __global__ void multiply_add(const uint32* a, const uint32* b, const uint32* c, uint32* out, int count) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i < count) out[i] = multiply_add_float16_pairs(a[i], b[i], c[i]);
}
extern "C" __global__ void bits(const float* in, uint32* out, uint32* exchanged, int mask) {
  const int t = threadIdx.x;
  out[t] = float_as_bits(in[t]);
  exchanged[t] = exchange_xor(float_as_bits(in[t]), mask);
  exchanged[t] ^= float_as_bits(exchange_xor(in[t], mask));
}
template <int kRegisters, class Word>
__device__ __forceinline__ void copy(const uint32* in, uint32* out, int skew) {
  uint32 registers[kRegisters];
  for (int i = 0; i < kRegisters; ++i) registers[i] = in[threadIdx.x * kRegisters + i];
  store(reinterpret_cast<Word*>(out + skew) + threadIdx.x, from_registers(registers));
}
extern "C" __global__ void store_1(const uint32* in, uint32* out, int skew) { copy<1, uint32>(in, out, skew); }
extern "C" __global__ void store_2(const uint32* in, uint32* out, int skew) { copy<2, uint2>(in, out, skew); }
extern "C" __global__ void store_4(const uint32* in, uint32* out, int skew) { copy<4, uint4>(in, out, skew); }

// y[tile, t] = sum of x[tile, part, t] over the parts, one block each: the last block of a tile adds in order of the
// parts. The workspace holds a counter per tile and then the parts; the counters are left zero.
template <bool kBarrier, bool kFresh>
__device__ __forceinline__ void add_parts(const float* x, float* y, void* workspace, int parts) {
  const int tile = blockIdx.x / parts, part = blockIdx.x % parts, t = threadIdx.x, tiles = gridDim.x / parts;
  uint32* counter = static_cast<uint32*>(workspace) + tile;
  float* results = reinterpret_cast<float*>(static_cast<uint32*>(workspace) + tiles) + tile * parts * 64;
  if (parts == 1) {
    y[tile * 64 + t] = x[tile * 64 + t];
    return;
  }
  results[part * 64 + t] = x[blockIdx.x * 64 + t];
  if (kBarrier) block_barrier();
  uint32* before = reinterpret_cast<uint32*>(dynamic_shared());
  if (t == 0) *before = count_arrival(counter);
  block_barrier();
  if (*before != parts - 1) return;
  float sum = 0.0f;
  for (int i = 0; i < parts; ++i) sum += kFresh ? load_fresh(results + i * 64 + t) : results[i * 64 + t];
  y[tile * 64 + t] = sum;
  if (t == 0) *counter = 0;
}
extern "C" __global__ void sum(const float* x, float* y, void* workspace, int parts) {
  add_parts<true, true>(x, y, workspace, parts);
}
extern "C" __global__ void sum_without_barrier(const float* x, float* y, void* workspace, int parts) {
  add_parts<false, true>(x, y, workspace, parts);
}
extern "C" __global__ void sum_with_plain_loads(const float* x, float* y, void* workspace, int parts) {
  add_parts<true, false>(x, y, workspace, parts);
}
extern "C" __global__ void read_only_path(uint32* workspace, uint32* out) {
  if (threadIdx.x != 0) return;
  workspace[1 + blockIdx.x] = 7;
  if (count_arrival(workspace) == gridDim.x - 1) *out = load<Space::kGlobal>(workspace + 1);
}
extern "C" __global__ void arrivals_of_threads(uint32* workspace, uint32* out) {
  workspace[1 + blockIdx.x * 64 + threadIdx.x] = blockIdx.x + 1;
  if (count_arrival(workspace) != gridDim.x * 64 - 1) return;
  uint32 sum = 0;
  for (int i = 0; i < (gridDim.x - 1) * 64; ++i) sum += load_fresh(workspace + 1 + i);
  *out = sum;
}
// Every block of a cluster gives the next one words of 4, 8 and 16 bytes, then adds what all of them have got.
template <int kBlocks>
__device__ __forceinline__ void add_in_cluster(const uint32* in, uint4* out) {
  const int t = threadIdx.x, next = (cluster_rank() + 1) % kBlocks;
  uint4* fours = reinterpret_cast<uint4*>(dynamic_shared()) + t;
  uint2* pairs = reinterpret_cast<uint2*>(dynamic_shared() + 64 * 16) + t;
  uint32* words = reinterpret_cast<uint32*>(dynamic_shared() + 64 * 24) + t;
  const uint32 own = in[blockIdx.x * 64 + t];
  cluster_barrier();
  store_remote(fours, next, make_uint4(own, 1, 2, 3));
  store_remote(pairs, next, make_uint2(4, own));
  store_remote(words, next, own + 5);
  cluster_arrive();
  cluster_wait();
  uint4 sum = make_uint4(0, 0, 0, fours->w);
  for (int rank = 0; rank < kBlocks; ++rank) {
    sum.x += load_remote(&fours->x, rank);
    sum.y += load_remote(&pairs->y, rank);
    sum.z += load_remote(words, rank);
  }
  cluster_barrier();
  out[blockIdx.x * 64 + t] = sum;
}
extern "C" __global__ void __cluster_dims__(2, 1, 1) add_in_2(const uint32* in, uint4* out) {
  add_in_cluster<2>(in, out);
}
extern "C" __global__ void __cluster_dims__(4, 1, 1) add_in_4(const uint32* in, uint4* out) {
  add_in_cluster<4>(in, out);
}
extern "C" __global__ void __cluster_dims__(8, 1, 1) add_in_8(const uint32* in, uint4* out) {
  add_in_cluster<8>(in, out);
}
extern "C" __global__ void fresh_words(const uint4* in, uint4* out) {
  out[threadIdx.x] = load_fresh(in + threadIdx.x);
}
"""


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("arch.cuh",), _SOURCE)


def launch(
    kernels: Emulated, kernel: str, inputs: list[NDArray[Any]], outputs: list[NDArray[Any]], *scalars: int
) -> None:
    buffers = [Buffer(f"in{i}", array, "input") for i, array in enumerate(inputs)]
    buffers += [Buffer(f"out{i}", array, "output") for i, array in enumerate(outputs)]
    blocks = -(-len(outputs[0]) // 256)
    threads = min(len(outputs[0]), 256)
    kernels.launch(kernel, (blocks, 1, 1), (threads, 1, 1), 0, [*buffers, *scalars])


def interesting_floats() -> NDArray[np.float32]:
    """Every exponent, with mantissas on and beside the ties of both 16-bit formats; an even number of them."""
    exponents = np.arange(256, dtype=np.uint32) << 23
    ties = np.concatenate(
        [np.uint32([k << 12, k << 15]) for k in (0, 1, 2, 3, 5, 0xFF)] + [np.uint32([0x7FFFFF, 0x7F8000])]
    )
    near = np.concatenate([ties - 1, ties, ties + 1]) & 0x7FFFFF
    bits = (exponents[:, None] | near).ravel()
    return np.concatenate([bits, bits | 0x80000000]).view(np.float32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to nearest even, by integers; CUDA's NaN."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FFF, rounded).astype(np.uint16)


@pytest.mark.parametrize("blocks", [2, 4, 8])
def test_blocks_of_a_cluster_read_and_write_each_other(kernels: Emulated, blocks: int) -> None:
    values = np.arange(16 * 64, dtype=np.uint32)
    out = np.zeros((16 * 64, 4), np.uint32)
    buffers = [Buffer("in", values, "input"), Buffer("out", out, "output")]
    kernels.launch(f"add_in_{blocks}", (16, 1, 1), (64, 1, 1), 64 * 28, buffers)
    sums = values.reshape(-1, blocks, 1, 64).sum(axis=1, keepdims=True).repeat(blocks, axis=1).ravel()
    np.testing.assert_array_equal(
        out, np.stack([sums, sums, sums + 5 * blocks, np.full_like(sums, 3)], axis=1)
    )


def test_a_grid_is_made_of_clusters(kernels: Emulated) -> None:
    buffers = [
        Buffer("in", np.zeros(6 * 64, np.uint32), "input"),
        Buffer("out", np.zeros((6 * 64, 4), np.uint32), "output"),
    ]
    with pytest.raises(VqccError) as caught:
        kernels.launch("add_in_4", (6, 1, 1), (64, 1, 1), 4096, buffers)
    assert [each.code for each in caught.value.diagnostics] == ["VQ0825"]
    assert "clusters of 4 blocks" in str(caught.value)


def test_pairs_are_rounded_to_nearest_even(kernels: Emulated) -> None:
    values = interesting_floats()
    halves, brains = (np.zeros(len(values) // 2, np.uint32) for _ in range(2))
    launch(kernels, "convert", [values], [halves, brains], len(halves))
    with np.errstate(over="ignore"):
        expected = np.where(np.isnan(values), np.uint16(0x7FFF), values.astype(np.float16).view(np.uint16))
    assert np.array_equal(halves.view(np.uint16), expected)
    assert np.array_equal(brains.view(np.uint16), to_bfloat16(values))


def test_products_and_sums_of_float16_pairs(kernels: Emulated) -> None:
    random = np.random.default_rng(3)
    a, b, c = (random.integers(0, 2**16, 20_000).astype(np.uint16) for _ in range(3))
    out = np.zeros(10_000, np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        product = a[:10_000].view(np.float16) * b[:10_000].view(np.float16)
        nearly = product * np.float16(-0.999)  # the sums are tiny or subnormal
    c[:10_000] = nearly.view(np.uint16)
    a[:2_000] %= 1024  # subnormal factors
    launch(kernels, "multiply_add", [each.view(np.uint32) for each in (a, b, c)], [out], len(out))
    with np.errstate(over="ignore", invalid="ignore"):
        wide = [each.view(np.float16).astype(np.float64) for each in (a, b, c)]
        expected = (wide[0] * wide[1] + wide[2]).astype(np.float16)
    found = out.view(np.float16)
    assert np.array_equal(found, expected, equal_nan=True)
    same = ~np.isnan(expected)
    assert np.array_equal(found[same].view(np.uint16), expected[same].view(np.uint16)), "the sign of zero too"


@pytest.mark.parametrize("mask", [1, 2, 3, 8, 21, 31])
def test_bits_and_exchange_of_both_register_types(kernels: Emulated, mask: int) -> None:
    values = np.random.default_rng(4).integers(0, 2**32, 32, dtype=np.uint32).view(np.float32)
    out, exchanged = np.zeros(32, np.uint32), np.ones(32, np.uint32)
    launch(kernels, "bits", [values], [out, exchanged], mask)
    assert np.array_equal(out, values.view(np.uint32))
    assert not exchanged.any(), "floats and integers go the same way"


@pytest.mark.parametrize("registers", [1, 2, 4])
def test_a_store_is_whole(kernels: Emulated, registers: int) -> None:
    data = np.arange(32 * registers, dtype=np.uint32)
    out = np.zeros(32 * registers + 4, np.uint32)
    arguments = [Buffer("in", data, "input"), Buffer("out", out, "inout", alignment=16)]
    report = kernels.launch(f"store_{registers}", (1, 1, 1), (32, 1, 1), 0, [*arguments, 0], count=True)
    assert np.array_equal(out[: 32 * registers], data)
    assert report.counters is not None
    assert (report.counters.global_stores, report.counters.global_store_requests) == (32, 1)
    assert report.counters.global_store_bytes == 128 * registers
    if registers > 1:
        with pytest.raises(EmulationError) as caught:
            kernels.launch(f"store_{registers}", (1, 1, 1), (32, 1, 1), 0, [*arguments, 1])
        assert caught.value.finding.kind is BugKind.MISALIGNED


def run_sum(kernels: Emulated, kernel: str, parts: int, workspace: NDArray[np.uint32], seed: int = 0) -> None:
    tiles = 3
    x = np.random.default_rng(seed).standard_normal((tiles, parts, 64)).astype(np.float32)
    y = np.zeros((tiles, 64), np.float32)
    arguments = [
        Buffer("x", x, "input"),
        Buffer("y", y, "output"),
        Buffer("workspace", workspace, "inout") if len(workspace) else None,
        parts,
    ]
    report = kernels.launch(kernel, (tiles * parts, 1, 1), (64, 1, 1), 16, arguments)
    assert report.first_unwritten("y") is None
    expected = np.zeros((tiles, 64), np.float32)
    for part in range(parts):
        expected += x[:, part]
    assert np.array_equal(y, expected), "a fixed order gives equal bits"
    assert not workspace[:tiles].any(), "counters are left as they must be found"


@pytest.mark.parametrize("parts", [2, 5])
def test_the_last_block_adds_what_the_others_wrote(kernels: Emulated, parts: int) -> None:
    workspace = np.zeros(3 + 3 * parts * 64, np.uint32)
    for seed in range(3):  # each launch finds what the one before it left
        run_sum(kernels, "sum", parts, workspace, seed)


def test_without_parts_there_is_no_workspace(kernels: Emulated) -> None:
    run_sum(kernels, "sum", 1, np.zeros(0, np.uint32))


def test_a_workspace_that_is_not_zero_is_found(kernels: Emulated) -> None:
    workspace = np.zeros(3 + 3 * 2 * 64, np.uint32)
    workspace[1] = 1
    with pytest.raises(EmulationError) as caught:
        run_sum(kernels, "sum", 2, workspace)
    assert caught.value.finding.kind is BugKind.CROSS_BLOCK_RACE


def test_counting_before_the_block_has_written_is_found(kernels: Emulated) -> None:
    with pytest.raises(EmulationError) as caught:
        run_sum(kernels, "sum_without_barrier", 2, np.zeros(3 + 3 * 2 * 64, np.uint32))
    finding = caught.value.finding
    assert (finding.kind, finding.buffer) == (BugKind.CROSS_BLOCK_RACE, "workspace")


def test_every_thread_may_arrive_for_itself(kernels: Emulated) -> None:
    workspace, out = np.zeros(1 + 4 * 64, np.uint32), np.zeros(1, np.uint32)
    arguments = [Buffer("workspace", workspace, "inout"), Buffer("out", out, "output")]
    kernels.launch("arrivals_of_threads", (4, 1, 1), (64, 1, 1), 0, arguments)
    assert (out[0], workspace[0]) == (64 * (1 + 2 + 3), 4 * 64)


def test_a_plain_load_of_what_others_wrote_is_found(kernels: Emulated) -> None:
    with pytest.raises(EmulationError) as caught:
        run_sum(kernels, "sum_with_plain_loads", 2, np.zeros(3 + 3 * 2 * 64, np.uint32))
    assert caught.value.finding.kind is BugKind.STALE_READ
    assert "load_fresh" in str(caught.value.diagnostics[0].help)


def test_a_read_only_load_of_what_others_wrote_is_found(kernels: Emulated) -> None:
    workspace = Buffer("workspace", np.zeros(8, np.uint32), "inout")
    out = Buffer("out", np.zeros(1, np.uint32), "output")
    with pytest.raises(EmulationError) as caught:
        kernels.launch("read_only_path", (3, 1, 1), (32, 1, 1), 0, [workspace, out])
    assert caught.value.finding.kind is BugKind.STALE_READ


def test_a_fresh_load_is_checked_like_any_other(kernels: Emulated) -> None:
    out = np.zeros((32, 4), np.uint32)
    data = np.arange(128, dtype=np.uint32)
    launch(kernels, "fresh_words", [data], [out])
    assert np.array_equal(out.ravel(), data)
    with pytest.raises(EmulationError) as caught:
        launch(kernels, "fresh_words", [data[:-4]], [out])
    assert caught.value.finding.kind is BugKind.OUT_OF_BOUNDS
    arguments = [Buffer("in", data, "input", alignment=8), Buffer("out", out, "output")]
    with pytest.raises(EmulationError) as caught:
        kernels.launch("fresh_words", (1, 1, 1), (32, 1, 1), 0, arguments)
    assert caught.value.finding.kind is BugKind.MISALIGNED
