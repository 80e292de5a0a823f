// Scales of scores that are kept as float16: no row of x overflows them, and none is lost in their subnormal numbers.
#pragma once

#include "elements.cuh"

namespace vqcc {

/// A power of two for each of kRows rows of x, of type kType. A row is multiplied by its own before its scores are made
/// and rounded to float16, sums of these by its inverse.
template <ElementType kType, int kRows>
struct ScoreScales {
  /// Four scores together stay below 2^15, and so does x.
  static constexpr int kScoreExponent = 13;
  static constexpr int kInputExponent = 15;
  /// Powers of two that float16 has; bfloat16 has more.
  static constexpr int kLeast = -24;
  static constexpr int kMost = 15;

  int exponents[kRows];

  /// For rows whose largest |x| is `largest_x`, times entries of kVectorSize elements up to `largest_entry`. Where one
  /// is not finite the row's sums are not either, whatever its scale.
  template <int kVectorSize>
  VQCC_DEVICE static ScoreScales of(const float (&largest_x)[kRows], float largest_entry) {
    ScoreScales scales;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float largest_score = largest_x[r] * largest_entry * static_cast<float>(kVectorSize);
      const int most = smaller(kScoreExponent - exponent_past(largest_score), kInputExponent - exponent_past(largest_x[r]));
      scales.exponents[r] = smaller(most < kLeast ? kLeast : most, kMost);
    }
    return scales;
  }

  /// A pair of elements of row `r`, scaled.
  VQCC_DEVICE uint32 up(int r, uint32 pair) const {
    const uint32 scale = kType == ElementType::kFloat16
                             ? to_float16_pair(make_float2(power(exponents[r]), power(exponents[r])))
                             : to_bfloat16_pair(make_float2(power(exponents[r]), power(exponents[r])));
    return multiply_pairs<kType>(pair, scale);
  }

  /// What undoes the scale of row `r`.
  VQCC_DEVICE float down(int r) const { return power(-exponents[r]); }

 private:
  VQCC_DEVICE static float power(int exponent) { return float_of_bits(static_cast<uint32>(127 + exponent) << 23); }
  /// The least power of two that is more than `value`, which is not negative.
  VQCC_DEVICE static int exponent_past(float value) { return static_cast<int>(float_as_bits(value) >> 23) - 126; }
};

/// The largest of each of `values` over the threads of the block, which all get it. `scratch` holds kCount words for
/// each of kWarps warps; it may be used again after the next barrier.
template <int kWarps, int kCount>
VQCC_DEVICE void largest_of_block(float (&values)[kCount], float* scratch) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) values[i] = larger(values[i], exchange_xor(values[i], mask));
    if (lane_index() == 0) scratch[i * kWarps + warp_index()] = values[i];
  }
  block_barrier();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = lane_index() < kWarps ? scratch[i * kWarps + lane_index()] : 0.0f;
#pragma unroll
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) values[i] = larger(values[i], exchange_xor(values[i], mask));
  }
}

/// The largest magnitude among kCount elements of `kType` at `array`, and `largest`; NaN counts for nothing.
template <ElementType kType, int kCount>
VQCC_DEVICE float largest_magnitude(const void* array, float largest) {
  using Run = Elements<kType, kCount, smaller(16, kCount * ElementTraits<kType>::kBytes)>;
  float values[kCount];
  Run::template load_from<Space::kGlobal>(array).to_float(values);
#pragma unroll
  for (int i = 0; i < kCount; ++i) largest = larger(largest, magnitude(values[i]));
  return largest;
}

}  // namespace vqcc
