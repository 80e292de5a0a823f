// The machine, continued: multiplies of a warpgroup whose operands both lie in shared memory. Compute capability
// 9.0 alone (target sm_90a).
#pragma once

#include "arch_pipeline.cuh"
#include "arch_warpgroup.cuh"

namespace vqcc {

#ifndef VQCC_EMULATE
#define VQCC_MULTIPLY_SHARED_256(type)                                                                                \
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                           \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                             \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                     \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                     \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                     \
               "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                     \
               "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                     \
               "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "         \
               "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "    \
               "%128, %129, 1, 1, 1, 0, 0;"                                                                           \
               : VQCC_SUMS8(0), VQCC_SUMS8(8), VQCC_SUMS8(16), VQCC_SUMS8(24), VQCC_SUMS8(32), VQCC_SUMS8(40),        \
                 VQCC_SUMS8(48), VQCC_SUMS8(56), VQCC_SUMS8(64), VQCC_SUMS8(72), VQCC_SUMS8(80), VQCC_SUMS8(88),      \
                 VQCC_SUMS8(96), VQCC_SUMS8(104), VQCC_SUMS8(112), VQCC_SUMS8(120)                                    \
               : "l"(a), "l"(b))
#endif

/// Starts sums += A B for a warpgroup's A [64, 16] and B [16, 256], both in shared memory as SwizzledRows, sums [64, 256] in
/// fp32; every lane of the four warps calls it. A's row r is row r of `a_rows`, B's column c row c of `b_rows`, each at
/// elements 16 `slice` to 16 `slice` + 15; sums are those of start_multiply (PTX wgmma.mma_async, operands in shared memory).
template <ElementType kType>
VQCC_DEVICE void start_shared_multiply(float (&sums)[128], const uint8* a_rows, const uint8* b_rows, int slice) {
#ifdef VQCC_EMULATE
  constexpr auto kFormat =
      kType == ElementType::kFloat16 ? vqcc_emulator::TensorFormat::f16 : vqcc_emulator::TensorFormat::bf16;
  vqcc_emulator::start_shared_multiply({kFormat, static_cast<uint8>(slice), 256}, sums, a_rows, b_rows);
#else
  const unsigned long long a = describe(a_rows + slice * 2 * SwizzledRows::kPieceBytes);
  const unsigned long long b = describe(b_rows + slice * 2 * SwizzledRows::kPieceBytes);
  if constexpr (kType == ElementType::kFloat16) VQCC_MULTIPLY_SHARED_256("f16");
  else VQCC_MULTIPLY_SHARED_256("bf16");
#endif
}

}  // namespace vqcc
