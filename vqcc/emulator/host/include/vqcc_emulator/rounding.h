// Conversions between float, double, half and bfloat16 as bit patterns, rounded to nearest even, in portable code.
// The runtime includes this too, without the rest of the prelude.
#pragma once

#include <stdint.h>

#define VQCC_INLINE inline __attribute__((always_inline))

namespace vqcc_emulator {

template <class To, class From>
VQCC_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

// The low bytes of 64 bits: how values travel through warp operations and atomics.
template <class T>
VQCC_INLINE uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 2, 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
VQCC_INLINE T from_bits(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

// Rounds to a binary format with `Mantissa` stored bits and `Exponent` bits, straight from double: no double rounding.
template <int Mantissa, int Exponent>
VQCC_INLINE unsigned short round_double(double value) {
  const uint64_t bits = bit_cast<uint64_t>(value);
  const unsigned short sign = static_cast<unsigned short>((bits >> 48) & 0x8000);
  const unsigned infinity = ((1u << Exponent) - 1) << Mantissa;
  if (value != value) {
    return 0x7fff;  // CUDA's canonical NaN for both formats
  }
  const int least_exponent = 2 - (1 << (Exponent - 1));
  const int exponent = static_cast<int>((bits >> 52) & 0x7ff) - 1023;
  if (exponent == -1023) {
    return sign;  // zero, or a double below every value of the format
  }
  if (exponent > 2 - least_exponent) {
    return static_cast<unsigned short>(sign | infinity);
  }
  const uint64_t significand = (bits & ((1ull << 52) - 1)) | (1ull << 52);
  const bool subnormal = exponent < least_exponent;
  const int shift = 52 - Mantissa + (subnormal ? least_exponent - exponent : 0);
  if (shift > 54) {
    return sign;
  }
  const uint64_t rest = significand & ((1ull << shift) - 1);
  const uint64_t half = 1ull << (shift - 1);
  unsigned rounded = static_cast<unsigned>(significand >> shift);
  rounded += rest > half || (rest == half && (rounded & 1));
  // The implicit bit adds 1 to the exponent field, and so does a carry out of the mantissa.
  const unsigned magnitude =
      subnormal ? rounded : (static_cast<unsigned>(exponent - least_exponent) << Mantissa) + rounded;
  return static_cast<unsigned short>(sign | (magnitude > infinity ? infinity : magnitude));
}

// a + b rounded to odd: a following rounding to a much shorter format gives what one rounding of the exact sum gives.
VQCC_INLINE double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double b_kept = sum - a;
  const double error = (a - (sum - b_kept)) + (b - b_kept);
  uint64_t bits = bit_cast<uint64_t>(sum);
  if (error == 0.0 || error != error || (bits & 1)) {
    return sum;  // exact, not finite, or odd already
  }
  bits += (error > 0.0) == (sum > 0.0) ? 1 : -1;
  return bit_cast<double>(bits);
}

VQCC_INLINE float half_to_float(unsigned short half) {
#if defined(__F16C__) && defined(__FLT16_MANT_DIG__)
  return static_cast<float>(bit_cast<_Float16>(half));  // one instruction
#else
  const unsigned exponent = half & 0x7c00u;
  unsigned bits = (half & 0x7fffu) << 13;
  if (exponent == 0x7c00u) {
    bits += (255u - 31u) << 23;
  } else if (exponent != 0) {
    bits += (127u - 15u) << 23;
  } else {
    bits = bit_cast<unsigned>(static_cast<float>(half & 0x3ffu) * (1.0f / 16777216.0f));
  }
  return bit_cast<float>(bits | ((half & 0x8000u) << 16));
#endif
}

VQCC_INLINE unsigned short float_to_half(float value) {
  unsigned bits = bit_cast<unsigned>(value);
  const unsigned short sign = static_cast<unsigned short>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits >= (127u + 16u) << 23) {
    return bits > 0x7f800000u ? 0x7fff : sign | 0x7c00;
  }
  if (bits < (127u - 14u) << 23) {
    // The addition aligns the subnormal's last place with the float's, so the FPU rounds at the right bit.
    const unsigned magic = (127u - 15u + 23u - 10u + 1u) << 23;
    const float aligned = bit_cast<float>(bits) + bit_cast<float>(magic);
    return static_cast<unsigned short>(sign | (bit_cast<unsigned>(aligned) - magic));
  }
  bits += 0xfffu + ((bits >> 13) & 1) - ((127u - 15u) << 23);
  return static_cast<unsigned short>(sign | (bits >> 13));
}

VQCC_INLINE float bfloat16_to_float(unsigned short bfloat16) {
  return bit_cast<float>(static_cast<unsigned>(bfloat16) << 16);
}

VQCC_INLINE unsigned short float_to_bfloat16(float value) {
  const unsigned bits = bit_cast<unsigned>(value);
  if (value != value) {
    return 0x7fff;
  }
  return static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

}  // namespace vqcc_emulator
