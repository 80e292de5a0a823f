"""What a launch costs, on access patterns whose cost is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqcc.emulator import Buffer, Counters, Emulated

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCE = """
// Each thread writes all its words of shared memory, then reads one vector of `Word` at index[t] words.
template <class Word>
__device__ __forceinline__ void shared_load(const int* index, float* out) {
  Word* words = shared_array<Word>();
  const int t = threadIdx.x;
  unsigned* plain = shared_array<unsigned>();
  for (int i = t; i < 4096; i += 32) plain[i] = i;
  __syncthreads();
  const int i = index[t];
  if (i < 0) return;
  const Word word = words[i];
  out[t] = reinterpret_cast<const unsigned char*>(&word)[0];
}
extern "C" __global__ void load_1(const int* index, float* out) { shared_load<unsigned char>(index, out); }
extern "C" __global__ void load_2(const int* index, float* out) { shared_load<unsigned short>(index, out); }
extern "C" __global__ void load_4(const int* index, float* out) { shared_load<unsigned>(index, out); }
extern "C" __global__ void load_8(const int* index, float* out) { shared_load<uint2>(index, out); }
extern "C" __global__ void load_16(const int* index, float* out) { shared_load<uint4>(index, out); }

extern "C" __global__ void store_4(const int* index, float* out) {
  shared_array<unsigned>()[index[threadIdx.x]] = 1;
  out[threadIdx.x] = 0;
}
extern "C" __global__ void global_load(const float* in, const int* index, float* out) {
  out[threadIdx.x] = in[index[threadIdx.x]];
}
extern "C" __global__ void loop(const float* in, float* out, int turns) {
  float sum = 0;
  for (int i = 0; i < turns; ++i) sum += in[i * 32 + threadIdx.x % 32];
  out[threadIdx.x] = sum;
}
extern "C" __global__ void operations(float* out, unsigned* count) {
  const int t = threadIdx.x;
  float v = __shfl_xor_sync(0xffffffffu, t, 1) + __shfl_down_sync(0xffffffffu, t, 1);
  if (t % 32 < 8) v += __shfl_sync(0xffu, t, 0);
  if (__any_sync(0xffffffffu, v > 3)) __syncwarp();
  for (int i = 0; i < 3; ++i) __syncthreads();
  if (t < 5) atomicAdd(count, 1u);
  if (t < 2) { shared_array<unsigned>()[t] = 0; atomicAdd(shared_array<unsigned>() + t, 1u); }
  out[t] = v;
}
// Each of 64 threads of each of two blocks reads 16 bytes of the other, and warp 0 writes 4 there.
extern "C" __global__ void __cluster_dims__(2, 1, 1) remote(float* out) {
  const int t = threadIdx.x, other = static_cast<int>(vqcc_emulator::cluster_rank()) ^ 1;
  float4* vectors = shared_array<float4>();
  vectors[t] = make_float4(t, 0, 0, 0);
  vqcc_emulator::cluster_arrive();
  vqcc_emulator::cluster_wait();
  const float4 v = vqcc_emulator::load_whole(vqcc_emulator::shared_of(vectors + t, other), vectors);
  if (t < 32) {
    vqcc_emulator::store_whole(
        reinterpret_cast<float*>(vqcc_emulator::shared_of(shared_array<float>() + 256 + t, other)), v.x);
  }
  vqcc_emulator::cluster_arrive();
  vqcc_emulator::cluster_wait();
  if (other == 1) out[t] = v.x;
}
"""

_LANES = np.arange(32)


@pytest.fixture(scope="module")
def kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(_SOURCE)


def count(kernels: Emulated, kernel: str, *inputs: np.ndarray, threads: int = 32) -> Counters:
    buffers = [Buffer(f"in{i}", array, "input") for i, array in enumerate(inputs)]
    out = Buffer("out", np.zeros(threads, np.float32), "output")
    report = kernels.launch(kernel, (1, 1, 1), (threads, 1, 1), 16384, [*buffers, out], count=True)
    assert report.counters is not None
    return report.counters


@pytest.mark.parametrize(
    ("size", "index", "wavefronts"),
    [
        (4, _LANES, 1),  # a word a bank
        (4, _LANES * 2, 2),
        (4, _LANES * 4, 4),
        (4, _LANES * 32, 32),  # all in one bank
        (4, _LANES * 33, 1),  # the usual padding
        (4, _LANES * 3, 1),  # an odd stride
        (4, _LANES * 0, 1),  # a broadcast
        (4, _LANES // 2, 1),  # pairs of lanes read one word
        (4, _LANES % 2 * 32, 2),
        (4, _LANES ^ 5, 1),
        (1, _LANES, 1),  # four bytes of a word go together
        (1, _LANES * 128, 32),
        (2, _LANES, 1),
        (2, _LANES * 2, 1),
        (2, _LANES * 4, 2),
        (8, _LANES, 2),  # two half-warps, no conflict
        (8, _LANES * 2, 4),
        (8, _LANES * 16, 32),
        (8, _LANES * 0, 2),
        (16, _LANES, 4),  # four quarter-warps, no conflict
        (16, _LANES * 2, 8),
        (16, _LANES * 8, 32),
        (16, _LANES * 0, 4),
        (4, np.where(_LANES < 7, _LANES * 32, -1), 7),  # lanes that do not take part
        (16, np.where(_LANES < 8, _LANES, -1), 1),
    ],
)
def test_shared_load_wavefronts(kernels: Emulated, size: int, index: np.ndarray, wavefronts: int) -> None:
    counters = count(kernels, f"load_{size}", index.astype(np.int32))
    assert counters.shared_loads == np.count_nonzero(index >= 0)
    assert counters.shared_load_wavefronts == wavefronts
    assert counters.shared_load_ideal == -(-np.count_nonzero(index >= 0) * max(4, size) // 128)
    assert (counters.shared_stores, counters.shared_store_wavefronts, counters.shared_store_ideal) == (
        4096,
        128,
        128,
    )


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 1), (2, 2), (32, 32), (31, 1)])
def test_shared_store_wavefronts(kernels: Emulated, stride: int, wavefronts: int) -> None:
    counters = count(kernels, "store_4", (_LANES * stride).astype(np.int32))
    assert (counters.shared_stores, counters.shared_store_wavefronts, counters.shared_store_ideal) == (
        32,
        wavefronts,
        1,
    )


@pytest.mark.parametrize(
    ("index", "sectors"), [(_LANES, 4), (_LANES * 8, 32), (_LANES * 2, 8), (_LANES * 0, 1), (_LANES + 1, 5)]
)
def test_global_sectors(kernels: Emulated, index: np.ndarray, sectors: int) -> None:
    counters = count(kernels, "global_load", np.zeros(512, np.float32), index.astype(np.int32))
    assert counters.global_loads == 64
    assert counters.global_load_bytes == 256
    assert counters.global_load_requests == 2
    assert counters.global_load_sectors == 4 + sectors  # the indices are one coalesced load
    assert (counters.global_stores, counters.global_store_bytes, counters.global_store_sectors) == (
        32,
        128,
        4,
    )


def test_each_turn_of_a_loop_is_a_warp_access_of_its_own(kernels: Emulated) -> None:
    out = Buffer("out", np.zeros(64, np.float32), "output")
    arguments = [Buffer("in", np.zeros(320, np.float32), "input"), out, 10]
    report = kernels.launch("loop", (1, 1, 1), (64, 1, 1), 0, arguments, count=True)
    assert report.counters is not None
    assert (report.counters.global_load_requests, report.counters.global_load_sectors) == (20, 80)


def test_operations(kernels: Emulated) -> None:
    out = Buffer("out", np.zeros(64, np.float32), "output")
    total = Buffer("count", np.zeros(1, np.uint32), "inout")
    report = kernels.launch("operations", (1, 1, 1), (64, 1, 1), 64, [out, total], count=True)
    counters = report.counters
    assert counters is not None
    assert (counters.shuffles, counters.votes, counters.warp_barriers, counters.block_barriers) == (
        6,
        2,
        2,
        3,
    )
    assert (counters.atomics, counters.shared_atomics) == (7, 2)


def test_accesses_to_other_blocks_are_counted_apart(kernels: Emulated) -> None:
    out = Buffer("out", np.zeros(64, np.float32), "output")
    counters = kernels.launch("remote", (2, 1, 1), (64, 1, 1), 2048, [out], count=True).counters
    assert counters is not None
    assert (counters.shared_loads, counters.shared_load_wavefronts) == (0, 0)
    assert (counters.shared_stores, counters.shared_store_wavefronts) == (128, 16)
    assert (counters.remote_loads, counters.remote_load_requests, counters.remote_load_bytes) == (
        128,
        4,
        2048,
    )
    assert (counters.remote_stores, counters.remote_store_requests, counters.remote_store_bytes) == (
        64,
        2,
        256,
    )
    assert (counters.cluster_barriers, counters.block_barriers) == (2, 0)


def test_counting_is_off_by_default(kernels: Emulated) -> None:
    out = Buffer("out", np.zeros(32, np.float32), "output")
    arguments = [Buffer("in", np.zeros(320, np.float32), "input"), out, 10]
    assert kernels.launch("loop", (1, 1, 1), (32, 1, 1), 0, arguments).counters is None
