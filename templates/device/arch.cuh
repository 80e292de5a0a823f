// The machine: every intrinsic, every memory access width and every line of PTX lives here, behind a named
// function. All other headers are plain C++ over these names, so a port or a CPU run replaces one file.
//
// Built for the CPU emulator (VQCC_EMULATE) the same names have host bodies; its headers stand in for CUDA's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define VQCC_DEVICE __device__ __forceinline__
#define VQCC_HOST_DEVICE __host__ __device__

namespace vqcc {

using int64 = long long;
using uint8 = unsigned char;
using uint16 = unsigned short;
using uint32 = unsigned int;

constexpr int kWarpSize = 32;

/// Where an array lives. Chosen by the plan, known at compile time.
enum class Space { kGlobal, kShared };

/// Storage type of codebook entries, activations and scales.
enum class ElementType { kFloat16, kBfloat16, kFloat32, kInt8 };

// ---- Threads -----------------------------------------------------------------------------------------------

VQCC_DEVICE int lane_index() { return static_cast<int>(threadIdx.x) % kWarpSize; }

VQCC_DEVICE int warp_index() { return static_cast<int>(threadIdx.x) / kWarpSize; }

VQCC_DEVICE void block_barrier() { __syncthreads(); }

/// `value` of the lane whose index differs from this one's in the bits of `mask` (PTX shfl.sync.bfly).
VQCC_DEVICE float exchange_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// ---- Memory ------------------------------------------------------------------------------------------------

/// The block's dynamic shared memory, 128-byte aligned.
VQCC_DEVICE uint8* dynamic_shared() {
#ifdef VQCC_EMULATE
  return vqcc_emulator::dynamic_shared();
#else
  extern __shared__ __align__(128) uint8 vqcc_dynamic_shared[];
  return vqcc_dynamic_shared;
#endif
}

/// One naturally aligned load of a whole `Word` (1, 2, 4, 8 or 16 bytes). Global loads take the read-only path:
/// nothing a kernel reads through this function is written while the kernel runs.
template <Space kSpace, class Word>
VQCC_DEVICE Word load(const Word* address) {
#ifdef VQCC_EMULATE
  vqcc_emulator::check_aligned(address, sizeof(Word));
  return *address;
#else
  if constexpr (kSpace == Space::kGlobal) {
    return __ldg(address);
  } else {
    return *address;
  }
#endif
}

/// A load of data that is read once (codes): the first to leave the caches again (PTX ld.global.cs, evict-first).
template <class Word>
VQCC_DEVICE Word load_streaming(const Word* address) {
#ifdef VQCC_EMULATE
  vqcc_emulator::check_aligned(address, sizeof(Word));
  return *address;
#else
  return __ldcs(address);
#endif
}

/// Unsigned word types by size in bytes.
template <int kBytes> struct WordOf;
template <> struct WordOf<1> { using Type = uint8; };
template <> struct WordOf<2> { using Type = uint16; };
template <> struct WordOf<4> { using Type = uint32; };
template <> struct WordOf<8> { using Type = uint2; };
template <> struct WordOf<16> { using Type = uint4; };

/// Splits a loaded word into 32-bit registers; words narrower than a register are zero-extended.
VQCC_DEVICE void to_registers(uint8 word, uint32 (&registers)[1]) { registers[0] = word; }
VQCC_DEVICE void to_registers(uint16 word, uint32 (&registers)[1]) { registers[0] = word; }
VQCC_DEVICE void to_registers(uint32 word, uint32 (&registers)[1]) { registers[0] = word; }
VQCC_DEVICE void to_registers(uint2 word, uint32 (&registers)[2]) {
  registers[0] = word.x;
  registers[1] = word.y;
}
VQCC_DEVICE void to_registers(uint4 word, uint32 (&registers)[4]) {
  registers[0] = word.x;
  registers[1] = word.y;
  registers[2] = word.z;
  registers[3] = word.w;
}

// ---- Bits --------------------------------------------------------------------------------------------------

/// The 32 bits that start `shift` (0 to 31) bits above the bottom of `high:low` (PTX shf.r.wrap).
VQCC_DEVICE uint32 funnel_right(uint32 low, uint32 high, int shift) { return __funnelshift_r(low, high, shift); }

/// Number of set bits modulo 2.
VQCC_DEVICE uint32 parity(uint32 bits) { return static_cast<uint32>(__popc(bits)) & 1u; }

// ---- Numbers -----------------------------------------------------------------------------------------------

VQCC_DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

/// The float whose bits are `bits`.
VQCC_DEVICE float float_of_bits(uint32 bits) { return __uint_as_float(bits); }

/// Two float16 values packed in a register, low half first.
VQCC_DEVICE float2 float16_pair(uint32 packed) {
  __half2_raw raw;
  raw.x = static_cast<uint16>(packed & 0xffffu);
  raw.y = static_cast<uint16>(packed >> 16);
  return __half22float2(__half2(raw));
}

/// Two bfloat16 values packed in a register, low half first: a bfloat16 is the upper half of a float.
VQCC_DEVICE float2 bfloat16_pair(uint32 packed) {
  return make_float2(float_of_bits(packed << 16), float_of_bits(packed & 0xffff0000u));
}

VQCC_DEVICE void store_rounded(__half* address, float value) { *address = __float2half_rn(value); }
VQCC_DEVICE void store_rounded(__nv_bfloat16* address, float value) { *address = __float2bfloat16_rn(value); }

}  // namespace vqcc
