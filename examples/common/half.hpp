// float16 on the host: enough to make inputs and look at results.
#pragma once

#include <cmath>
#include <cstdint>

namespace example {

/// The value of a float16's bits.
inline double from_half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const double fraction = (bits & 1023) / 1024.0;
  const double size = exponent == 0    ? std::ldexp(fraction, -14)
                      : exponent == 31 ? (fraction == 0 ? HUGE_VAL : NAN)
                                       : std::ldexp(1 + fraction, exponent - 15);
  return bits >> 15 ? -size : size;
}

/// The nearest float16 of a value, ties to even.
inline std::uint16_t to_half(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (std::isnan(value)) return 0x7e00;
  if (size == 0) return sign;
  if (size >= 65520) return static_cast<std::uint16_t>(sign | 0x7c00);
  int exponent = 0;
  std::frexp(size, &exponent);
  exponent = exponent < -13 ? -13 : exponent;  // below 2^-14 steps are no smaller
  // In steps of the last place; one that rounds up to the next power of two has its bits already.
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 11 - exponent)));
  return static_cast<std::uint16_t>(sign + (static_cast<std::uint32_t>(exponent + 13) << 10) + steps);
}

}  // namespace example
