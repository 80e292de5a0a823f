// The machine, continued: instructions of a warpgroup, four warps whose first one's index is a multiple of four. They are
// those of compute capability 9.0 alone (target sm_90a).
#pragma once

#include "arch.cuh"

namespace vqcc {

/// Makes what this thread has stored in shared memory visible to the tensor cores' own reads of it, once a barrier has
/// told others (PTX fence.proxy.async).
VQCC_DEVICE void show_to_tensor_cores() {
#ifdef VQCC_EMULATE
  vqcc_emulator::show_stores();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// Holds `value` to what it is here: compilers then move nothing that makes or takes it past the fences and waits around.
VQCC_DEVICE void settle(uint32& value) {
#ifndef VQCC_EMULATE
  asm volatile("" : "+r"(value));
#endif
}
VQCC_DEVICE void settle(float& value) {
#ifndef VQCC_EMULATE
  asm volatile("" : "+f"(value));
#endif
}

/// Before multiplies of a warpgroup: registers that the warp has written are theirs from here on (PTX wgmma.fence).
VQCC_DEVICE void begin_multiplies() {
#ifdef VQCC_EMULATE
  vqcc_emulator::begin_multiplies();
#else
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

/// Ends a group of multiplies (PTX wgmma.commit_group).
VQCC_DEVICE void commit_multiplies() {
#ifdef VQCC_EMULATE
  vqcc_emulator::commit_multiplies();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/// Waits for all groups of multiplies but the last kGroups: their operands may be written, and with none left the sums
/// read (PTX wgmma.wait_group).
template <int kGroups>
VQCC_DEVICE void wait_for_multiplies_but() {
#ifdef VQCC_EMULATE
  vqcc_emulator::wait_for_multiplies(kGroups);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kGroups) : "memory");
#endif
}

/// Rows of 64 16-bit elements in shared memory as operand B takes them: 128 bytes each, in groups of eight rows that are
/// aligned to 1024 bytes, the 16-byte pieces of row r turned by r % 8 (PTX wgmma, "128-Byte swizzling modes", K-major).
struct SwizzledRows {
  static constexpr int kColumns = 64;
  static constexpr int kRowBytes = 128;
  static constexpr int kPieceBytes = 16;

  VQCC_HOST_DEVICE static constexpr int place(int row, int piece) {
    return row * kRowBytes + (piece ^ row % 8) * kPieceBytes;
  }
};

/// Stores four 8 x 8 matrices of 16-bit elements, transposed, in shared memory. Lane 4g + t has elements 2t and 2t + 1 of
/// row g of each; `row` of lane l is where column l % 8 of matrix l / 8 goes, 16 bytes, aligned. Every lane of the warp
/// calls it (PTX stmatrix, .x4.trans).
VQCC_DEVICE void store_transposed(const uint32 (&matrices)[4], uint8* row) {
#ifdef VQCC_EMULATE
  const auto own = static_cast<uint32>(row - dynamic_shared());
  for (int i = 0; i < 4; ++i) {
    for (int e = 0; e < 2; ++e) {
      uint8* target = dynamic_shared() + value_of_lane(own, 8 * i + lane_index() % 4 * 2 + e);
      store(reinterpret_cast<uint16*>(target) + lane_index() / 4, static_cast<uint16>(matrices[i] >> 16 * e));
    }
  }
#else
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(row))), "r"(matrices[0]), "r"(matrices[1]),
                 "r"(matrices[2]), "r"(matrices[3])
               : "memory");
#endif
}

#ifndef VQCC_EMULATE
/// PTX wgmma, "Matrix Descriptor Format": start, stride between groups of eight rows, and the swizzling mode.
VQCC_DEVICE unsigned long long describe(const uint8* rows) {
  const uint32 start = static_cast<uint32>(__cvta_generic_to_shared(rows));
  constexpr unsigned long long kStride = 8 * SwizzledRows::kRowBytes / 16;
  return (start & 0x3ffffu) >> 4 | kStride << 32 | 1ull << 62;
}

#define VQCC_SUMS8(i)                                                                                                     \
  "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), "+f"(sums[i + 5]),           \
      "+f"(sums[i + 6]), "+f"(sums[i + 7])
#define VQCC_OPERANDS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
#define VQCC_MULTIPLY_32(type)                                                                        \
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type                            \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "            \
               "{%16, %17, %18, %19}, %20, 1, 1, 1, 0;"                                               \
               : VQCC_SUMS8(0), VQCC_SUMS8(8)                                                         \
               : VQCC_OPERANDS)
#define VQCC_MULTIPLY_64(type)                                                                        \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                            \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "             \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "    \
               "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"                                               \
               : VQCC_SUMS8(0), VQCC_SUMS8(8), VQCC_SUMS8(16), VQCC_SUMS8(24)                         \
               : VQCC_OPERANDS)
#define VQCC_MULTIPLY_128(type)                                                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                           \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "             \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "     \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "     \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "    \
               "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"                                               \
               : VQCC_SUMS8(0), VQCC_SUMS8(8), VQCC_SUMS8(16), VQCC_SUMS8(24), VQCC_SUMS8(32),        \
                 VQCC_SUMS8(40), VQCC_SUMS8(48), VQCC_SUMS8(56)                                       \
               : VQCC_OPERANDS)
#endif

/// Starts sums += A B for a warpgroup's A [64, 16] in registers and B [16, kColumns] in shared memory, sums [64, kColumns]
/// in fp32; every lane of the four warps calls it. Warp w has rows 16 w to 16 w + 15 of A and of the sums: `a` as in
/// multiply_fragments, sums[4 j] to sums[4 j + 3] as its sums of columns 8 j to 8 j + 7. B's column c is row c of `rows`
/// (SwizzledRows), at elements 16 `slice` to 16 `slice` + 15 (PTX wgmma.mma_async, "Register Fragments for
/// wgmma.mma_async.m64nNk16"). On the emulator the sums are NaN until they have been waited for.
template <ElementType kType, int kColumns>
VQCC_DEVICE void start_multiply(float (&sums)[kColumns / 2], const uint32 (&a)[4], const uint8* rows, int slice) {
  static_assert(kColumns == 32 || kColumns == 64 || kColumns == 128, "columns of B");
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "tensor cores take 16-bit floats");
#ifdef VQCC_EMULATE
  constexpr auto kFormat =
      kType == ElementType::kFloat16 ? vqcc_emulator::TensorFormat::f16 : vqcc_emulator::TensorFormat::bf16;
  vqcc_emulator::start_multiply({kFormat, static_cast<uint8>(slice), kColumns}, sums, {{a[0], a[1], a[2], a[3]}}, rows);
#else
  const unsigned long long b = describe(rows + slice * 2 * SwizzledRows::kPieceBytes);
  if constexpr (kType == ElementType::kFloat16) {
    if constexpr (kColumns == 32) VQCC_MULTIPLY_32("f16");
    else if constexpr (kColumns == 64) VQCC_MULTIPLY_64("f16");
    else VQCC_MULTIPLY_128("f16");
  } else {
    if constexpr (kColumns == 32) VQCC_MULTIPLY_32("bf16");
    else if constexpr (kColumns == 64) VQCC_MULTIPLY_64("bf16");
    else VQCC_MULTIPLY_128("bf16");
  }
#endif
}

}  // namespace vqcc
