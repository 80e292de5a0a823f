// Stands in for CUDA's header of the same name: the functions kernels use, bit exact.
#pragma once

#include "vqcc_emulator/small_floats.h"

namespace vqcc_emulator {
__forceinline__ unsigned short double_to_bfloat16(double value) { return round_double<7, 8>(value); }
}  // namespace vqcc_emulator

VQCC_SMALL_FLOAT_TYPES(__nv_bfloat16, __nv_bfloat162, bfloat16_to_float, float_to_bfloat16, double_to_bfloat16)
VQCC_SMALL_FLOAT_FUNCTIONS(__nv_bfloat16, __nv_bfloat162, double, bf16x2)

using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

__forceinline__ float __bfloat162float(__nv_bfloat16 v) { return v; }
__forceinline__ __nv_bfloat16 __float2bfloat16(float v) { return __nv_bfloat16(v); }
__forceinline__ __nv_bfloat16 __float2bfloat16_rn(float v) { return __nv_bfloat16(v); }
__forceinline__ __nv_bfloat16 __double2bfloat16(double v) { return __nv_bfloat16(v); }
__forceinline__ __nv_bfloat16 __int2bfloat16_rn(int v) { return __nv_bfloat16(v); }
__forceinline__ __nv_bfloat16 __uint2bfloat16_rn(unsigned v) { return __nv_bfloat16(v); }

__forceinline__ __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) { return vqcc_emulator::make___nv_bfloat16(v); }
__forceinline__ __nv_bfloat16 __short_as_bfloat16(short v) {
  return vqcc_emulator::make___nv_bfloat16(static_cast<unsigned short>(v));
}
__forceinline__ unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.__x; }
__forceinline__ short __bfloat16_as_short(__nv_bfloat16 v) { return static_cast<short>(v.__x); }

__forceinline__ __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return __nv_bfloat162(low, high);
}
__forceinline__ __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return __nv_bfloat162(low, high);
}
__forceinline__ __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 v) { return __nv_bfloat162(v, v); }
__forceinline__ __nv_bfloat162 __float2bfloat162_rn(float v) {
  return __nv_bfloat162(__nv_bfloat16(v), __nv_bfloat16(v));
}
__forceinline__ __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return __nv_bfloat162(__nv_bfloat16(low), __nv_bfloat16(high));
}
__forceinline__ __nv_bfloat162 __float22bfloat162_rn(float2 v) {
  return __nv_bfloat162(__nv_bfloat16(v.x), __nv_bfloat16(v.y));
}
__forceinline__ float2 __bfloat1622float2(__nv_bfloat162 v) { return make_float2(v.x, v.y); }
__forceinline__ __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
__forceinline__ __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }
__forceinline__ __nv_bfloat162 __low2bfloat162(__nv_bfloat162 v) { return __nv_bfloat162(v.x, v.x); }
__forceinline__ __nv_bfloat162 __high2bfloat162(__nv_bfloat162 v) { return __nv_bfloat162(v.y, v.y); }
__forceinline__ __nv_bfloat162 __lowhigh2highlow(__nv_bfloat162 v) { return __nv_bfloat162(v.y, v.x); }
