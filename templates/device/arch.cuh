// The machine: every intrinsic, every memory access width and every line of PTX lives here and in arch_*.cuh, behind a named
// function. All other headers are plain C++ over these names, so a port or a CPU run replaces one file.
//
// Built for the CPU emulator (VQCC_EMULATE) the same names have host bodies; its headers stand in for CUDA's.
// "PTX" in a comment names an instruction's section of NVIDIA's PTX ISA.
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

/// Waits for all lanes of the warp; what they wrote before it they may all read after it (PTX bar.warp.sync).
VQCC_DEVICE void warp_barrier() { __syncwarp(); }

/// `value` of the lane whose index differs from this one's in the bits of `mask`; every lane of the warp calls it
/// (PTX shfl.sync, mode .bfly).
VQCC_DEVICE float exchange_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
VQCC_DEVICE uint32 exchange_xor(uint32 value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

/// `value` of the lane `distance` below this one, its own for the lowest lanes; and that of one lane; every lane of the warp
/// calls them (PTX shfl.sync, modes .up and .idx).
VQCC_DEVICE uint32 shift_up(uint32 value, int distance) {
  return __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(distance));
}
VQCC_DEVICE uint32 value_of_lane(uint32 value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }

/// The warp's index, which the compiler then knows to be the same for all its lanes: branches and addresses that depend on it
/// take uniform registers. Every lane of the warp calls it.
VQCC_DEVICE int uniform_warp_index() { return static_cast<int>(value_of_lane(static_cast<uint32>(warp_index()), 0)); }

/// `value`, as if it were a new one each time: what is computed from it is computed where it is needed. Compilers keep what
/// does not change in a loop in registers across it, also what is needed only at its ends.
VQCC_DEVICE int computed_anew(int value) {
#ifndef VQCC_EMULATE
  asm volatile("" : "+r"(value));
#endif
  return value;
}

/// Ends the launch with an error (PTX trap).
VQCC_DEVICE void stop_launch() { __trap(); }

/// Whether it holds for any lane of the warp; every lane calls it (PTX vote.sync.any).
VQCC_DEVICE bool any_lane(bool holds) { return __any_sync(0xffffffffu, holds) != 0; }

/// A bit for each lane of the warp for which it holds; every lane calls it (PTX vote.sync.ballot).
VQCC_DEVICE uint32 lanes_where(bool holds) { return __ballot_sync(0xffffffffu, holds); }

// ---- Time --------------------------------------------------------------------------------------------------

/// Cycles of this SM's clock and nanoseconds of the device's, from some start on (PTX %clock64, %globaltimer). They stay
/// where they are among barriers, memory accesses and one another. On the emulator no time passes.
VQCC_DEVICE int64 clock_cycles() {
#ifdef VQCC_EMULATE
  return 0;
#else
  int64 cycles;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles) : : "memory");
  return cycles;
#endif
}
VQCC_DEVICE int64 clock_nanoseconds() {
#ifdef VQCC_EMULATE
  return 0;
#else
  int64 nanoseconds;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds) : : "memory");
  return nanoseconds;
#endif
}

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

/// The first address from `shared` on that is aligned to kBytes in this block's shared memory.
template <int kBytes>
VQCC_DEVICE uint8* align_shared(uint8* shared) {
#ifdef VQCC_EMULATE
  const auto address = static_cast<uint32>(reinterpret_cast<unsigned long long>(shared));
#else
  const auto address = static_cast<uint32>(__cvta_generic_to_shared(shared));
#endif
  return shared + (kBytes - address % kBytes) % kBytes;
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

/// One naturally aligned store of a whole `Word` (1, 2, 4, 8 or 16 bytes).
template <class Word>
VQCC_DEVICE void store(Word* address, Word word) {
#ifdef VQCC_EMULATE
  vqcc_emulator::store_whole(address, word);
#else
  *address = word;
#endif
}

/// Where the block's window of shared memory begins, of which the driver has the first kReserved bytes (PTX cvta.shared).
template <int kReserved>
VQCC_DEVICE uint8* shared_window() {
#ifdef VQCC_EMULATE
  return dynamic_shared() - kReserved;
#else
  return static_cast<uint8*>(__cvta_shared_to_generic(0));
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

/// The word that registers make together, to store it at once.
VQCC_DEVICE uint32 from_registers(const uint32 (&registers)[1]) { return registers[0]; }
VQCC_DEVICE uint2 from_registers(const uint32 (&registers)[2]) { return make_uint2(registers[0], registers[1]); }
VQCC_DEVICE uint4 from_registers(const uint32 (&registers)[4]) {
  return make_uint4(registers[0], registers[1], registers[2], registers[3]);
}

// ---- Copies on their way -----------------------------------------------------------------------------------

/// Starts to copy 16 bytes from global to shared memory, past L1: they arrive at the wait, for this thread
/// (PTX cp.async.cg).
VQCC_DEVICE void start_copy(uint4* shared, const uint4* global) {
#ifdef VQCC_EMULATE
  vqcc_emulator::copy_async(shared, global, 16, 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global))
               : "memory");
#endif
}

/// The same where `wanted`, without a branch: in a loop, the compiler keeps the addresses that others share.
VQCC_DEVICE void start_copy_if(bool wanted, uint4* shared, const uint4* global) {
#ifdef VQCC_EMULATE
  if (wanted) vqcc_emulator::copy_async(shared, global, 16, 16);
#else
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %2, 0;\n\t@wanted cp.async.cg.shared.global [%0], [%1], 16;\n\t}"
      :
      : "r"(static_cast<uint32>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global)),
        "r"(static_cast<int>(wanted))
      : "memory");
#endif
}

/// Starts to copy kBytes (4, 8 or 16), whole and aligned, from global to shared memory; zeros if they are not `present`,
/// and nothing is read then (PTX cp.async.ca, src-size).
template <int kBytes>
VQCC_DEVICE void start_copy(uint8* shared, const void* global, bool present) {
#ifdef VQCC_EMULATE
  vqcc_emulator::copy_async(shared, global, kBytes, present ? kBytes : 0);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global)),
                 "n"(kBytes), "r"(present ? kBytes : 0)
               : "memory");
#endif
}

/// Asks for the line of 128 bytes at `global` to be brought to L2 (PTX prefetch.global.L2).
VQCC_DEVICE void prefetch_line(const void* global) {
#ifndef VQCC_EMULATE
  asm volatile("prefetch.global.L2 [%0];" : : "l"(__cvta_generic_to_global(global)));
#endif
}

/// Waits for all copies that this thread has started (PTX cp.async.wait_all).
VQCC_DEVICE void wait_for_copies() {
#ifdef VQCC_EMULATE
  vqcc_emulator::copy_async_wait_all();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/// Ends a group of the copies that this thread has started (PTX cp.async.commit_group).
VQCC_DEVICE void commit_copies() {
#ifdef VQCC_EMULATE
  vqcc_emulator::copy_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits for all groups of copies that this thread has ended but the last kGroups (PTX cp.async.wait_group).
template <int kGroups>
VQCC_DEVICE void wait_for_copies_but() {
#ifdef VQCC_EMULATE
  vqcc_emulator::copy_async_wait(kGroups);
#else
  asm volatile("cp.async.wait_group %0;" : : "n"(kGroups) : "memory");
#endif
}

// ---- Kernels one after the other ---------------------------------------------------------------------------

/// Lets the next kernel of the stream start as soon as every block of this one has said so and there is room, where its
/// launch asks for that; else says nothing (PTX griddepcontrol.launch_dependents, from 9.0 on).
VQCC_DEVICE void allow_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until the kernels before this one in the stream are done and all that they wrote can be read, and what they read
/// can be written. At once where the launch did not ask to start before (PTX griddepcontrol.wait, from 9.0 on).
VQCC_DEVICE void wait_for_previous_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- Blocks that work together -----------------------------------------------------------------------------

/// This thread's writes before it are visible to the whole device before its writes after it (PTX membar.gl).
VQCC_DEVICE void memory_fence() { __threadfence(); }

/// Adds one to *counter in global memory and returns what it held. What this thread wrote or had been shown by a
/// barrier before is then visible to whoever counts later: after a block_barrier() one thread counts for its block
/// (PTX atom, .acq_rel.gpu).
VQCC_DEVICE uint32 count_arrival(uint32* counter) {
#ifdef VQCC_EMULATE
  __threadfence();
  return atomicAdd(counter, 1u);
#else
  uint32 before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(counter))
               : "memory");
  return before;
#endif
}

/// An element of what this launch also writes: not by the read-only path.
VQCC_DEVICE float fresh_element(const __half* address) { return __half2float(*address); }
VQCC_DEVICE float fresh_element(const __nv_bfloat16* address) { return __bfloat162float(*address); }

/// A load of what other blocks of this launch wrote, once count_arrival told of it: past the read-only path and L1,
/// which may hold older bytes (PTX ld.global.cg).
template <class Word>
VQCC_DEVICE Word load_fresh(const Word* address) {
  return __ldcg(address);
}

// ---- Blocks of a cluster -----------------------------------------------------------------------------------
//
// A kernel's __cluster_dims__ names how many blocks run together. Each may access shared memory of the others, between a
// barrier of the cluster that tells that they have begun and one before they end. Only from 9.0 on.

/// This block's number in its cluster (PTX %cluster_ctarank).
VQCC_DEVICE int cluster_rank() {
#ifdef VQCC_EMULATE
  return static_cast<int>(vqcc_emulator::cluster_rank());
#else
  uint32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#endif
}

/// The halves of the barrier of all threads of the cluster: what a thread did before it arrived can be seen by all that have
/// waited, in shared memory of each block. The lanes of a warp call them together
/// (PTX barrier.cluster.arrive.release, barrier.cluster.wait.acquire).
VQCC_DEVICE void cluster_arrive() {
#ifdef VQCC_EMULATE
  vqcc_emulator::cluster_arrive();
#else
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
VQCC_DEVICE void cluster_wait() {
#ifdef VQCC_EMULATE
  vqcc_emulator::cluster_wait();
#else
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
VQCC_DEVICE void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}

#ifndef VQCC_EMULATE
/// Where in the shared memory of block `rank` lies what `own` is in this block's (PTX mapa.shared::cluster).
VQCC_DEVICE uint32 remote_address(const void* own, int rank) {
  uint32 address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(static_cast<uint32>(__cvta_generic_to_shared(own))), "r"(rank));
  return address;
}
#endif

/// A word in shared memory of block `rank` of the cluster, where `own` is in this block's (PTX ld.shared::cluster).
VQCC_DEVICE uint32 load_remote(const uint32* own, int rank) {
#ifdef VQCC_EMULATE
  return vqcc_emulator::load_whole(vqcc_emulator::shared_of(own, rank), own);
#else
  uint32 word;
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(word) : "r"(remote_address(own, rank)) : "memory");
  return word;
#endif
}

/// Stores a word of 4, 8 or 16 bytes there (PTX st.shared::cluster).
template <class Word>
VQCC_DEVICE void store_remote(Word* own, int rank, Word word) {
#ifdef VQCC_EMULATE
  vqcc_emulator::store_whole(reinterpret_cast<Word*>(vqcc_emulator::shared_of(own, rank)), word);
#else
  static_assert(sizeof(Word) == 4 || sizeof(Word) == 8 || sizeof(Word) == 16, "words of 4, 8 or 16 bytes");
  const uint32 address = remote_address(own, rank);
  uint32 r[sizeof(Word) / 4];
  to_registers(word, r);
  if constexpr (sizeof(Word) == 4) {
    asm volatile("st.shared::cluster.u32 [%0], %1;" : : "r"(address), "r"(r[0]) : "memory");
  } else if constexpr (sizeof(Word) == 8) {
    asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" : : "r"(address), "r"(r[0]), "r"(r[1]) : "memory");
  } else {
    asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
  }
#endif
}

// ---- Bits --------------------------------------------------------------------------------------------------

/// The 32 bits that start `shift` (0 to 31) bits above the bottom of `high:low` (PTX shf.r.wrap).
VQCC_DEVICE uint32 funnel_right(uint32 low, uint32 high, int shift) { return __funnelshift_r(low, high, shift); }

/// `bits` moved up by one, the sign of `value` below them (PTX shf.l.wrap).
VQCC_DEVICE uint32 shift_in_sign(uint32 bits, float value) { return __funnelshift_l(__float_as_uint(value), bits, 1); }

/// How many bits are set, and how many there are above the highest (PTX popc, clz).
VQCC_DEVICE int count_bits(uint32 bits) { return __popc(bits); }
VQCC_DEVICE int leading_zeros(uint32 bits) { return __clz(static_cast<int>(bits)); }

/// Four bytes of the eight of `high:low`, each named by four bits of `selector`, the lowest first (PTX prmt).
VQCC_DEVICE uint32 permute_bytes(uint32 low, uint32 high, uint32 selector) {
#ifdef VQCC_EMULATE
  return vqcc_emulator::prmt(low, high, selector);
#else
  uint32 bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selector));
  return bytes;
#endif
}

// ---- Numbers -----------------------------------------------------------------------------------------------

/// A product and a sum, each rounded: the compiler does not fuse them.
VQCC_DEVICE float rounded_product(float a, float b) { return __fmul_rn(a, b); }
VQCC_DEVICE float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
VQCC_DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

/// The larger and the lesser of two numbers, the other one where one is NaN (PTX max.f32, min.f32), and |value|.
VQCC_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
VQCC_DEVICE float lesser(float a, float b) { return fminf(a, b); }
VQCC_DEVICE float magnitude(float value) { return fabsf(value); }

VQCC_DEVICE float infinity() { return __uint_as_float(0x7f800000u); }

/// 2^value, to two units in the last place, results below 2^-126 flushed to zero (PTX ex2.approx.ftz.f32).
VQCC_DEVICE float power_of_two(float value) {
#ifdef VQCC_EMULATE
  const float power = exp2f(value);
  return power < 0x1p-126f ? 0.0f : power;
#else
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(value));
  return power;
#endif
}

/// The logarithm to base two, the hyperbolic tangent, and cosine and sine of a half turn times `half_turns`, in [-1, 1]:
/// all as exact as CUDA's library has them.
VQCC_DEVICE float base_two_logarithm(float value) { return log2f(value); }
VQCC_DEVICE float hyperbolic_tangent(float value) { return tanhf(value); }
VQCC_DEVICE float2 cosine_and_sine(float half_turns) {
  float2 both;
  sincospif(half_turns, &both.y, &both.x);
  return both;
}

/// The float whose bits are `bits`, and the bits of a float.
VQCC_DEVICE float float_of_bits(uint32 bits) { return __uint_as_float(bits); }
VQCC_DEVICE uint32 float_as_bits(float value) { return __float_as_uint(value); }

/// Two float16 values packed in a register, low half first.
VQCC_DEVICE float2 float16_pair(uint32 packed) {
  return __half22float2(reinterpret_cast<const __half2&>(packed));
}

/// Two bfloat16 values packed in a register, low half first: a bfloat16 is the upper half of a float.
VQCC_DEVICE float2 bfloat16_pair(uint32 packed) {
  return make_float2(float_of_bits(packed << 16), float_of_bits(packed & 0xffff0000u));
}

/// Two floats rounded to nearest even and packed, x in the low half (PTX cvt.rn.f16x2.f32, cvt.rn.bf16x2.f32).
VQCC_DEVICE uint32 to_float16_pair(float2 values) {
  const __half2 pair = __float22half2_rn(values);
  return reinterpret_cast<const uint32&>(pair);
}
VQCC_DEVICE uint32 to_bfloat16_pair(float2 values) {
  const __nv_bfloat162 pair = __float22bfloat162_rn(values);
  return reinterpret_cast<const uint32&>(pair);
}
template <ElementType kType>
VQCC_DEVICE uint32 round_pair(float2 values) {
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "pairs of 16-bit floats");
  return kType == ElementType::kFloat16 ? to_float16_pair(values) : to_bfloat16_pair(values);
}

/// One of the two float16 values of a pair, number `which`, twice. A multiply takes it from where it is.
VQCC_DEVICE uint32 float16_twice(uint32 pair, int which) {
  const __half2 both = reinterpret_cast<const __half2&>(pair);
  const __half2 twice = which == 0 ? __low2half2(both) : __high2half2(both);
  return reinterpret_cast<const uint32&>(twice);
}

/// a * b + c of the low and of the high float16 values, rounded once to nearest even, subnormal numbers kept
/// (PTX fma.rn.f16x2).
VQCC_DEVICE uint32 multiply_add_float16_pairs(uint32 a, uint32 b, uint32 c) {
  const __half2 sum = __hfma2(reinterpret_cast<const __half2&>(a), reinterpret_cast<const __half2&>(b),
                              reinterpret_cast<const __half2&>(c));
  return reinterpret_cast<const uint32&>(sum);
}

/// The sums of the low and of the high float16 values, rounded to nearest even, subnormal numbers kept
/// (PTX add.rn.f16x2).
VQCC_DEVICE uint32 add_float16_pairs(uint32 a, uint32 b) {
  const __half2 sum = __hadd2(reinterpret_cast<const __half2&>(a), reinterpret_cast<const __half2&>(b));
  return reinterpret_cast<const uint32&>(sum);
}

/// a * b of the low and of the high values of a 16-bit type, rounded to nearest even, subnormal numbers kept
/// (PTX mul.rn.f16x2, mul.rn.bf16x2).
template <ElementType kType>
VQCC_DEVICE uint32 multiply_pairs(uint32 a, uint32 b) {
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "pairs of 16-bit floats");
  if constexpr (kType == ElementType::kFloat16) {
    const __half2 product = __hmul2(reinterpret_cast<const __half2&>(a), reinterpret_cast<const __half2&>(b));
    return reinterpret_cast<const uint32&>(product);
  } else {
    const __nv_bfloat162 product =
        __hmul2(reinterpret_cast<const __nv_bfloat162&>(a), reinterpret_cast<const __nv_bfloat162&>(b));
    return reinterpret_cast<const uint32&>(product);
  }
}

VQCC_DEVICE void store_rounded(__half* address, float value) { *address = __float2half_rn(value); }
VQCC_DEVICE void store_rounded(__nv_bfloat16* address, float value) { *address = __float2bfloat16_rn(value); }

// ---- Tensor cores ------------------------------------------------------------------------------------------

/// sums += A B for a warp's tiles A [16, 16] and B [16, 8] of packed pairs, sums [16, 8] in fp32; every lane calls it.
/// With g = lane / 4, t = lane % 4 and pairs along the inner dimension k: a[0], a[2] are row g of A at k = 2t and
/// 2t + 8, a[1], a[3] the same of row g + 8; b[0], b[1] are column g of B at k = 2t and 2t + 8; sums[0], sums[1] are
/// row g, columns 2t and 2t + 1, sums[2], sums[3] the same of row g + 8
/// (PTX mma, "Matrix Fragments for mma.m16n8k16 with floating point type").
template <ElementType kType>
VQCC_DEVICE void multiply_fragments(float (&sums)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "tensor cores take 16-bit floats");
#ifdef VQCC_EMULATE
  constexpr auto kFormat = kType == ElementType::kFloat16 ? vqcc_emulator::TensorFormat::f16
                                                          : vqcc_emulator::TensorFormat::bf16;
  const auto result = vqcc_emulator::multiply_fragments(
      kFormat, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {sums[0], sums[1], sums[2], sums[3]}});
  for (int i = 0; i < 4; ++i) sums[i] = result.sums[i];
#else
  if constexpr (kType == ElementType::kFloat16) {
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

/// The same for tiles half as deep, A [16, 8] and B [8, 8]: a[0], a[1] are rows g and g + 8 of A at k = 2t, b column g of
/// B at k = 2t (PTX mma, "Matrix Fragments for mma.m16n8k8").
template <ElementType kType>
VQCC_DEVICE void multiply_fragments(float (&sums)[4], const uint32 (&a)[2], const uint32 (&b)[1]) {
#ifdef VQCC_EMULATE
  multiply_fragments<kType>(sums, {a[0], a[1], 0u, 0u}, {b[0], 0u});  // zeros add nothing
#else
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "tensor cores take 16-bit floats");
  if constexpr (kType == ElementType::kFloat16) {
    asm(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  } else {
    asm(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  }
#endif
}

/// Four 8 x 8 matrices of 16-bit elements from shared memory as the operands above take them; every lane calls it. A row
/// is 16 bytes, aligned, anywhere: `row` of lane l is row l % 8 of matrix l / 8. Lane 4g + t gets elements 2t and 2t + 1
/// of row g of each. The rows of a matrix are read together, at once if they lie in different groups of four banks
/// (PTX ldmatrix, .x4).
VQCC_DEVICE void load_matrices(uint32 (&matrices)[4], const uint8* row) {
#ifdef VQCC_EMULATE
  const uint4 own = load<Space::kShared>(reinterpret_cast<const uint4*>(row));
  const auto dealt = vqcc_emulator::deal_matrices({{own.x, own.y, own.z, own.w}});
  for (int i = 0; i < 4; ++i) matrices[i] = dealt.words[i];
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(row)))
               : "memory");
#endif
}

}  // namespace vqcc
