// Stands in for CUDA's header of the same name: the functions kernels use, bit exact.
#pragma once

#include "vqcc_emulator/small_floats.h"

namespace vqcc_emulator {
__forceinline__ unsigned short double_to_half(double value) { return round_double<10, 5>(value); }
}  // namespace vqcc_emulator

VQCC_SMALL_FLOAT_TYPES(__half, __half2, half_to_float, float_to_half, double_to_half)
VQCC_SMALL_FLOAT_FUNCTIONS(__half, __half2, float, f16x2)

using half = __half;
using half2 = __half2;

__forceinline__ float __half2float(__half v) { return v; }
__forceinline__ __half __float2half(float v) { return __half(v); }
__forceinline__ __half __float2half_rn(float v) { return __half(v); }
__forceinline__ __half __double2half(double v) { return __half(v); }
__forceinline__ __half __int2half_rn(int v) { return __half(v); }
__forceinline__ __half __uint2half_rn(unsigned v) { return __half(v); }
__forceinline__ int __half2int_rn(__half v) { return __float2int_rn(v); }
__forceinline__ int __half2int_rz(__half v) { return __float2int_rz(v); }

__forceinline__ __half __ushort_as_half(unsigned short v) { return vqcc_emulator::make___half(v); }
__forceinline__ __half __short_as_half(short v) { return vqcc_emulator::make___half(static_cast<unsigned short>(v)); }
__forceinline__ unsigned short __half_as_ushort(__half v) { return v.__x; }
__forceinline__ short __half_as_short(__half v) { return static_cast<short>(v.__x); }

__forceinline__ __half2 make_half2(__half low, __half high) { return __half2(low, high); }
__forceinline__ __half2 __halves2half2(__half low, __half high) { return __half2(low, high); }
__forceinline__ __half2 __half2half2(__half v) { return __half2(v, v); }
__forceinline__ __half2 __float2half2_rn(float v) { return __half2(__half(v), __half(v)); }
__forceinline__ __half2 __floats2half2_rn(float low, float high) { return __half2(__half(low), __half(high)); }
__forceinline__ __half2 __float22half2_rn(float2 v) { return __half2(__half(v.x), __half(v.y)); }
__forceinline__ float2 __half22float2(__half2 v) { return make_float2(v.x, v.y); }
__forceinline__ __half __low2half(__half2 v) { return v.x; }
__forceinline__ __half __high2half(__half2 v) { return v.y; }
__forceinline__ __half2 __low2half2(__half2 v) { return __half2(v.x, v.x); }
__forceinline__ __half2 __high2half2(__half2 v) { return __half2(v.y, v.y); }
__forceinline__ __half2 __lows2half2(__half2 a, __half2 b) { return __half2(a.x, b.x); }
__forceinline__ __half2 __highs2half2(__half2 a, __half2 b) { return __half2(a.y, b.y); }
__forceinline__ __half2 __lowhigh2highlow(__half2 v) { return __half2(v.y, v.x); }
