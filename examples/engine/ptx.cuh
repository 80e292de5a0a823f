// The machine, as kernels.cu sees it: every line of PTX is here, in a function with a name. Built for vqcc's CPU emulator
// (VQCC_EMULATE) the same functions have host bodies, so that tests run these kernels without a GPU.
#pragma once

#include <cuda_fp16.h>

#define ENGINE_DEVICE __device__ __forceinline__

namespace engine {

using uint32 = unsigned int;
using uint64 = unsigned long long;

constexpr int kWarpSize = 32;

// ---- Kernels one after the other ---------------------------------------------------------------------------

/// Lets the next kernel of the stream be launched once every block of this one has said so (PTX griddepcontrol, from 9.0 on).
/// Every kernel here says it first of all: what follows waits by itself, and its launch is then hidden behind this kernel.
ENGINE_DEVICE void allow_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until the kernel before this one is done and its writes are visible. Every block of every kernel waits before it
/// reads what kernels wrote and before its first write, so "the kernel before is done" implies that all before it are.
ENGINE_DEVICE void wait_for_previous_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- Memory ------------------------------------------------------------------------------------------------

/// The block's dynamic shared memory.
ENGINE_DEVICE __half* dynamic_shared() {
#ifdef VQCC_EMULATE
  return reinterpret_cast<__half*>(vqcc_emulator::dynamic_shared());
#else
  extern __shared__ __align__(16) __half engine_dynamic_shared[];
  return engine_dynamic_shared;
#endif
}

/// 16 bytes at once. Not by the read-only path: what it reads may have been written by the kernel before this one.
ENGINE_DEVICE uint4 load(const uint4* address) { return *address; }

ENGINE_DEVICE void store(uint4* address, uint4 word) {
#ifdef VQCC_EMULATE
  vqcc_emulator::store_whole(address, word);
#else
  *address = word;
#endif
}

// ---- Warps -------------------------------------------------------------------------------------------------

ENGINE_DEVICE float exchange_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

/// Four 8 x 8 matrices of halves from shared memory: lane l names row l % 8 of matrix l / 8, 16 aligned bytes. Lane 4g + t
/// gets elements 2t and 2t + 1 of row g of each (PTX ldmatrix).
ENGINE_DEVICE void load_matrices(uint32 (&matrices)[4], const __half* row) {
#ifdef VQCC_EMULATE
  const uint4 own = *reinterpret_cast<const uint4*>(row);
  const auto dealt = vqcc_emulator::deal_matrices({{own.x, own.y, own.z, own.w}});
  for (int i = 0; i < 4; ++i) matrices[i] = dealt.words[i];
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

/// The same transposed: lane 4g + t gets elements g of rows 2t and 2t + 1 (PTX ldmatrix, .trans).
ENGINE_DEVICE void load_transposed_matrices(uint32 (&matrices)[4], const __half* row) {
#ifdef VQCC_EMULATE
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int i = 0; i < 4; ++i) {
    uint32 pair = 0;
    for (int odd = 0; odd < 2; ++odd) {
      const auto other = __shfl_sync(0xffffffffu, reinterpret_cast<uint64>(row), 8 * i + 2 * (lane % 4) + odd);
      const __half element = reinterpret_cast<const __half*>(other)[lane / 4];
      pair |= static_cast<uint32>(__half_as_ushort(element)) << 16 * odd;
    }
    matrices[i] = pair;
  }
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

/// sums [16, 8] += a [16, 16] b [16, 8], the warp's tiles, in the layouts of PTX mma.m16n8k16: lane 4g + t has of the sums
/// columns 2t and 2t + 1 of row g, then of row g + 8.
ENGINE_DEVICE void multiply_tiles(float (&sums)[4], const uint32 (&a)[4], uint32 b_low, uint32 b_high) {
#ifdef VQCC_EMULATE
  const auto result = vqcc_emulator::multiply_fragments(
      vqcc_emulator::TensorFormat::f16,
      {{a[0], a[1], a[2], a[3]}, {b_low, b_high}, {sums[0], sums[1], sums[2], sums[3]}});
  for (int i = 0; i < 4; ++i) sums[i] = result.sums[i];
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
#endif
}

// ---- Arithmetic --------------------------------------------------------------------------------------------

/// Cosine and sine of an angle in half turns.
ENGINE_DEVICE float2 cosine_and_sine(float half_turns) {
  float2 result;
  sincospif(half_turns, &result.y, &result.x);
  return result;
}

/// Eight halves of 16 bytes as floats, and back.
struct Eight {
  float values[8];
};
ENGINE_DEVICE float2 to_floats(uint32 pair) { return __half22float2(*reinterpret_cast<const __half2*>(&pair)); }
ENGINE_DEVICE uint32 to_halves(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32*>(&pair);
}
ENGINE_DEVICE Eight unpack(uint4 word) {
  const float2 a = to_floats(word.x), b = to_floats(word.y), c = to_floats(word.z), d = to_floats(word.w);
  return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}
ENGINE_DEVICE uint4 pack(const Eight& eight) {
  const float* v = eight.values;
  return make_uint4(to_halves(v[0], v[1]), to_halves(v[2], v[3]), to_halves(v[4], v[5]), to_halves(v[6], v[7]));
}

}  // namespace engine
