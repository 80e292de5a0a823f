// Integer and bit intrinsics, exact for every input.
#pragma once

#include "rounding.h"

__forceinline__ float __int_as_float(int v) { return vqcc_emulator::bit_cast<float>(v); }
__forceinline__ float __uint_as_float(unsigned v) { return vqcc_emulator::bit_cast<float>(v); }
__forceinline__ int __float_as_int(float v) { return vqcc_emulator::bit_cast<int>(v); }
__forceinline__ unsigned __float_as_uint(float v) { return vqcc_emulator::bit_cast<unsigned>(v); }
__forceinline__ double __longlong_as_double(long long v) { return vqcc_emulator::bit_cast<double>(v); }
__forceinline__ long long __double_as_longlong(double v) { return vqcc_emulator::bit_cast<long long>(v); }

__forceinline__ int __popc(unsigned v) { return __builtin_popcount(v); }
__forceinline__ int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
__forceinline__ int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
__forceinline__ int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v)); }
__forceinline__ int __ffs(int v) { return __builtin_ffs(v); }
__forceinline__ int __ffsll(long long v) { return __builtin_ffsll(v); }

__forceinline__ unsigned __brev(unsigned v) {
  v = ((v >> 1) & 0x55555555u) | ((v & 0x55555555u) << 1);
  v = ((v >> 2) & 0x33333333u) | ((v & 0x33333333u) << 2);
  v = ((v >> 4) & 0x0f0f0f0fu) | ((v & 0x0f0f0f0fu) << 4);
  return __builtin_bswap32(v);
}
__forceinline__ unsigned long long __brevll(unsigned long long v) {
  return (static_cast<unsigned long long>(__brev(static_cast<unsigned>(v))) << 32) |
         __brev(static_cast<unsigned>(v >> 32));
}

// __byte_perm selects with three bits a byte; PRMT's own fourth bit, which copies the sign, is vqcc_emulator::prmt.
__forceinline__ unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const unsigned long long bytes = (static_cast<unsigned long long>(b) << 32) | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<unsigned>((bytes >> (8 * ((selector >> (4 * i)) & 7))) & 0xff) << (8 * i);
  }
  return result;
}

namespace vqcc_emulator {
__forceinline__ unsigned prmt(unsigned a, unsigned b, unsigned selector) {
  const unsigned chosen = __byte_perm(a, b, selector);
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = (chosen >> (8 * i)) & 0xff;
    const bool sign = (selector >> (4 * i)) & 8;
    result |= (sign ? (byte & 0x80 ? 0xffu : 0u) : byte) << (8 * i);
  }
  return result;
}
}  // namespace vqcc_emulator

__forceinline__ unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const unsigned long long both = (static_cast<unsigned long long>(high) << 32) | low;
  return static_cast<unsigned>((both << (shift & 31)) >> 32);
}
__forceinline__ unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned shift) {
  return shift >= 32 ? low : __funnelshift_l(low, high, shift);
}
__forceinline__ unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const unsigned long long both = (static_cast<unsigned long long>(high) << 32) | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
__forceinline__ unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
  return shift >= 32 ? high : __funnelshift_r(low, high, shift);
}

__forceinline__ int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
__forceinline__ unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
__forceinline__ unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// Four signed bytes times four signed bytes, summed onto c (dp4a).
__forceinline__ int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) {
    c += static_cast<signed char>(a >> (8 * i)) * static_cast<signed char>(b >> (8 * i));
  }
  return c;
}
__forceinline__ unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; ++i) {
    c += ((a >> (8 * i)) & 0xff) * ((b >> (8 * i)) & 0xff);
  }
  return c;
}
