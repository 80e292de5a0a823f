// Arithmetic that half and bfloat16 share, each operation rounded once.
#pragma once

#include "rounding.h"

// The type H and its pair H2. `wide` is the type to compute in: a float has 24 bits, enough for two roundings of half's
// 11 to equal one; bfloat16 has a float's exponents, so that products below its smallest values need a double.
#define VQCC_SMALL_FLOAT_TYPES(H, H2, to_float, from_float, from_double)                       \
  struct __align__(2) H##_raw {                                                                \
    unsigned short x;                                                                          \
  };                                                                                           \
  struct __align__(4) H2##_raw {                                                               \
    unsigned short x, y;                                                                       \
  };                                                                                           \
  struct __align__(2) H {                                                                      \
    unsigned short __x;                                                                        \
    H() = default;                                                                             \
    __forceinline__ H(H##_raw raw) : __x(raw.x) {}                                             \
    __forceinline__ H(float v) : __x(vqcc_emulator::from_float(v)) {}                          \
    __forceinline__ H(double v) : __x(vqcc_emulator::from_double(v)) {}                        \
    __forceinline__ H(int v) : __x(vqcc_emulator::from_double(v)) {}                           \
    __forceinline__ H(unsigned v) : __x(vqcc_emulator::from_double(v)) {}                      \
    __forceinline__ operator float() const { return vqcc_emulator::to_float(__x); }            \
  };                                                                                           \
  struct __align__(4) H2 {                                                                     \
    H x, y;                                                                                    \
    H2() = default;                                                                            \
    __forceinline__ H2(H2##_raw raw) : x(H##_raw{raw.x}), y(H##_raw{raw.y}) {}                 \
    __forceinline__ H2(H low, H high) : x(low), y(high) {}                                     \
  };                                                                                           \
  namespace vqcc_emulator {                                                                    \
  __forceinline__ H make_##H(unsigned short bits) {                                            \
    H h;                                                                                       \
    h.__x = bits;                                                                              \
    return h;                                                                                  \
  }                                                                                            \
  __forceinline__ H fma_##H(H a, H b, H c) {                                                   \
    const double product = static_cast<double>(static_cast<float>(a)) * static_cast<float>(b); \
    return make_##H(from_double(add_to_odd(product, static_cast<float>(c))));                  \
  }                                                                                            \
  }

#define VQCC_SMALL_FLOAT_BINARY(H, H2, wide, name, name2, symbol)                                       \
  __forceinline__ H name(H a, H b) {                                                                    \
    return H(static_cast<wide>(static_cast<float>(a)) symbol static_cast<wide>(static_cast<float>(b))); \
  }                                                                                                     \
  __forceinline__ H operator symbol(H a, H b) { return name(a, b); }                                    \
  __forceinline__ H& operator symbol## = (H & a, H b) { return a = name(a, b); }                        \
  __forceinline__ H2 name2(H2 a, H2 b) { return H2(name(a.x, b.x), name(a.y, b.y)); }                   \
  __forceinline__ H2 operator symbol(H2 a, H2 b) { return name2(a, b); }                                \
  __forceinline__ H2& operator symbol## = (H2 & a, H2 b) { return a = name2(a, b); }

#define VQCC_SMALL_FLOAT_COMPARE(H, name, symbol)                                                    \
  __forceinline__ bool name(H a, H b) { return static_cast<float>(a) symbol static_cast<float>(b); } \
  __forceinline__ bool operator symbol(H a, H b) { return name(a, b); }

#define VQCC_SMALL_FLOAT_FUNCTIONS(H, H2, wide, tag)                                                        \
  VQCC_SMALL_FLOAT_BINARY(H, H2, wide, __hadd, __hadd2, +)                                                  \
  VQCC_SMALL_FLOAT_BINARY(H, H2, wide, __hsub, __hsub2, -)                                                  \
  VQCC_SMALL_FLOAT_BINARY(H, H2, wide, __hmul, __hmul2, *)                                                  \
  VQCC_SMALL_FLOAT_BINARY(H, H2, wide, __hdiv, __h2div, /)                                                  \
  VQCC_SMALL_FLOAT_COMPARE(H, __heq, ==)                                                                    \
  VQCC_SMALL_FLOAT_COMPARE(H, __hne, !=)                                                                    \
  VQCC_SMALL_FLOAT_COMPARE(H, __hlt, <)                                                                     \
  VQCC_SMALL_FLOAT_COMPARE(H, __hle, <=)                                                                    \
  VQCC_SMALL_FLOAT_COMPARE(H, __hgt, >)                                                                     \
  VQCC_SMALL_FLOAT_COMPARE(H, __hge, >=)                                                                    \
  __forceinline__ H __hneg(H a) { return vqcc_emulator::make_##H(a.__x ^ 0x8000); }                         \
  __forceinline__ H __habs(H a) { return vqcc_emulator::make_##H(a.__x & 0x7fff); }                         \
  __forceinline__ H operator-(H a) { return __hneg(a); }                                                    \
  __forceinline__ H2 __hneg2(H2 a) { return H2(__hneg(a.x), __hneg(a.y)); }                                 \
  __forceinline__ H2 operator-(H2 a) { return __hneg2(a); }                                                 \
  __forceinline__ H2 __habs2(H2 a) { return H2(__habs(a.x), __habs(a.y)); }                                 \
  __forceinline__ H __hmin(H a, H b) { return H(fminf(a, b)); }                                             \
  __forceinline__ H __hmax(H a, H b) { return H(fmaxf(a, b)); }                                             \
  __forceinline__ H2 __hmin2(H2 a, H2 b) { return H2(__hmin(a.x, b.x), __hmin(a.y, b.y)); }                 \
  __forceinline__ H2 __hmax2(H2 a, H2 b) { return H2(__hmax(a.x, b.x), __hmax(a.y, b.y)); }                 \
  __forceinline__ bool __hisnan(H a) { return isnan(static_cast<float>(a)); }                               \
  __forceinline__ H __hfma(H a, H b, H c) { return vqcc_emulator::fma_##H(a, b, c); }                       \
  __forceinline__ H2 __hfma2(H2 a, H2 b, H2 c) { return H2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); } \
  __forceinline__ float __low2float(H2 a) { return a.x; }                                                   \
  __forceinline__ float __high2float(H2 a) { return a.y; }                                                  \
  __forceinline__ H2 atomicAdd(H2* address, H2 value) {                                                     \
    return vqcc_emulator::from_bits<H2>(vqcc_emulator::atomic(vqcc_emulator::AtomicOperation::add,          \
                                                              vqcc_emulator::AtomicType::tag, address,      \
                                                              vqcc_emulator::to_bits(value), 0));           \
  }
