// Floating-point functions. Declared here rather than through <math.h>, which in C++ brings in half of the library.
#pragma once

extern "C" {
float fmaf(float, float, float) noexcept;
float sqrtf(float) noexcept;
float expf(float) noexcept;
float exp2f(float) noexcept;
float logf(float) noexcept;
float log2f(float) noexcept;
float fmodf(float, float) noexcept;
float fminf(float, float) noexcept;
float fmaxf(float, float) noexcept;
float fabsf(float) noexcept;
float floorf(float) noexcept;
float ceilf(float) noexcept;
float rintf(float) noexcept;
float roundf(float) noexcept;
float truncf(float) noexcept;
float ldexpf(float, int) noexcept;
float powf(float, float) noexcept;
float sinf(float) noexcept;
float cosf(float) noexcept;
float tanhf(float) noexcept;
double fma(double, double, double) noexcept;
double sqrt(double) noexcept;
double fmin(double, double) noexcept;
double fmax(double, double) noexcept;
double fabs(double) noexcept;
double sin(double) noexcept;
double cos(double) noexcept;
}

// A GPU's rsqrt.approx is within 2 ulp; here the exact value is rounded once.
__forceinline__ float rsqrtf(float v) { return static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(v))); }

// A GPU's are within an ulp or two; here exact values are rounded once.
__forceinline__ void sincospif(float v, float* sine, float* cosine) {
  const double angle = 3.14159265358979323846 * static_cast<double>(v);
  *sine = static_cast<float>(sin(angle));
  *cosine = static_cast<float>(cos(angle));
}

__forceinline__ float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
__forceinline__ float __fadd_rn(float a, float b) { return a + b; }
__forceinline__ float __fsub_rn(float a, float b) { return a - b; }
__forceinline__ float __fmul_rn(float a, float b) { return a * b; }
__forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
__forceinline__ float __fsqrt_rn(float a) { return sqrtf(a); }
__forceinline__ float __frcp_rn(float a) { return 1.0f / a; }
__forceinline__ float __fdividef(float a, float b) { return a / b; }
__forceinline__ float __expf(float a) { return expf(a); }
__forceinline__ float __logf(float a) { return logf(a); }
__forceinline__ float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
__forceinline__ float __int2float_rn(int v) { return static_cast<float>(v); }
__forceinline__ float __uint2float_rn(unsigned v) { return static_cast<float>(v); }
__forceinline__ bool isnan(float v) { return __builtin_isnan(v); }
__forceinline__ bool isinf(float v) { return __builtin_isinf(v); }
__forceinline__ bool isfinite(float v) { return __builtin_isfinite(v); }

namespace vqcc_emulator {
// A conversion to an integer clamps and takes NaN to 0 on a GPU; in C++ the same is undefined.
template <class Integer>
__forceinline__ Integer clamped(double v, double low, double high) {
  return v != v ? Integer(0) : v <= low ? Integer(low) : v >= high ? Integer(high) : Integer(v);
}
}  // namespace vqcc_emulator
__forceinline__ int __float2int_rn(float v) {
  return vqcc_emulator::clamped<int>(rintf(v), -2147483648.0, 2147483647.0);
}
__forceinline__ int __float2int_rz(float v) {
  return vqcc_emulator::clamped<int>(truncf(v), -2147483648.0, 2147483647.0);
}
__forceinline__ unsigned __float2uint_rn(float v) {
  return vqcc_emulator::clamped<unsigned>(rintf(v), 0.0, 4294967295.0);
}

#define VQCC_MIN_MAX(type)                                                     \
  __forceinline__ constexpr type min(type a, type b) { return b < a ? b : a; } \
  __forceinline__ constexpr type max(type a, type b) { return a < b ? b : a; }
VQCC_MIN_MAX(int)
VQCC_MIN_MAX(unsigned)
VQCC_MIN_MAX(long)
VQCC_MIN_MAX(unsigned long)
VQCC_MIN_MAX(long long)
VQCC_MIN_MAX(unsigned long long)
#undef VQCC_MIN_MAX
__forceinline__ float min(float a, float b) { return fminf(a, b); }
__forceinline__ float max(float a, float b) { return fmaxf(a, b); }
__forceinline__ double min(double a, double b) { return fmin(a, b); }
__forceinline__ double max(double a, double b) { return fmax(a, b); }
__forceinline__ unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
__forceinline__ unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
__forceinline__ unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
__forceinline__ unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
__forceinline__ int abs(int v) { return v < 0 ? -v : v; }
