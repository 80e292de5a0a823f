// Scales of scores that are kept as float16, which has a range of its own: no row of x overflows it.
#pragma once

#include "reduce.cuh"

namespace vqcc {

/// The sums of the low and of the high values of a power of two of float16 pairs, two by two.
template <int kCount>
VQCC_DEVICE uint32 add_float16_pairs(const uint32 (&pairs)[kCount]) {
  if constexpr (kCount == 1) return pairs[0];
  else {
    uint32 sums[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) sums[i] = add_float16_pairs(pairs[2 * i], pairs[2 * i + 1]);
    return add_float16_pairs(sums);
  }
}

/// A power of two for each of kRows rows of x, of type kType. A row is multiplied by its own before its scores are made
/// and rounded to float16, sums of these by its inverse.
///
/// The largest score there can be is scaled to 2^12 to 2^13. So scores keep their bits down to 2^-26 of it, and lose them
/// below; x keeps its own but where float16's are so small and entries so large that x has to be made smaller.
template <ElementType kType, int kRows>
struct ScoreScales {
  /// Four scores together stay below 2^15, and x below 2^15.
  static constexpr int kScoreExponent = 13;
  static constexpr int kInputExponent = 15;
  /// Powers of two that kType has; those of bfloat16 have inverses in fp32.
  static constexpr int kLeast = kType == ElementType::kFloat16 ? -24 : -126;
  static constexpr int kMost = kType == ElementType::kFloat16 ? 15 : 126;

  static_assert(kRows <= 4, "exponents share a register");
  uint32 exponents = 0;  // a byte each

  /// For rows whose largest |x| is `largest_x`, times entries whose sum of |elements| is at most `largest_entry`. Where
  /// one is not finite the row's sums are not either, whatever its scale.
  VQCC_DEVICE static ScoreScales of(const float (&largest_x)[kRows], float largest_entry) {
    ScoreScales scales;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int input = exponent_past(largest_x[r]);
      const int most = smaller(kScoreExponent - input - exponent_past(largest_entry), kInputExponent - input);
      const int exponent = smaller(most < kLeast ? kLeast : most, kMost);
      scales.exponents |= (static_cast<uint32>(exponent) & 0xffu) << 8 * r;
    }
    return scales;
  }

  /// A pair of elements of row `r`, scaled.
  VQCC_DEVICE uint32 up(int r, uint32 pair) const {
    const float scale = power(exponent_of(r));
    const float2 both = make_float2(scale, scale);
    return multiply_pairs<kType>(pair, round_pair<kType>(both));
  }

  /// What undoes the scale of row `r`.
  VQCC_DEVICE float down(int r) const { return power(-exponent_of(r)); }

 private:
  VQCC_DEVICE int exponent_of(int r) const { return static_cast<signed char>(exponents >> 8 * r & 0xffu); }
  VQCC_DEVICE static float power(int exponent) { return float_of_bits(static_cast<uint32>(127 + exponent) << 23); }
  /// The exponent of the least power of two that is more than `value`, which is not negative.
  VQCC_DEVICE static int exponent_past(float value) { return static_cast<int>(float_as_bits(value) >> 23) - 126; }
};

/// The largest of each of `values` over the threads of the block, which all get it. `scratch` holds kCount words for
/// each of kWarps warps; it may be used again after the next barrier.
template <int kWarps, int kCount>
VQCC_DEVICE void largest_of_block(float (&values)[kCount], float* scratch) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = largest_of_warp(values[i]);
    if (lane_index() == 0) scratch[i * kWarps + warp_index()] = values[i];
  }
  block_barrier();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = lane_index() < kWarps ? scratch[i * kWarps + lane_index()] : 0.0f;
    values[i] = largest_of_warp(values[i]);
  }
}

/// kCount neighbouring elements of `kType` as fp32.
template <ElementType kType, int kCount>
VQCC_DEVICE void load_run(const void* array, float (&values)[kCount]) {
  using Run = Elements<kType, kCount, smaller(16, kCount * ElementTraits<kType>::kBytes)>;
  Run::template load_from<Space::kGlobal>(array).to_float(values);
}

/// The larger of `largest` and the largest magnitude among kCount elements of `kType` at `array`; NaN counts for nothing.
template <ElementType kType, int kCount>
VQCC_DEVICE float largest_magnitude(const void* array, float largest) {
  float values[kCount];
  load_run<kType>(array, values);
#pragma unroll
  for (int i = 0; i < kCount; ++i) largest = larger(largest, magnitude(values[i]));
  return largest;
}

/// The larger of `largest` and the sum of the magnitudes of kCount elements of `kType` at `array`.
template <ElementType kType, int kCount>
VQCC_DEVICE float largest_sum(const void* array, float largest) {
  float values[kCount];
  load_run<kType>(array, values);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += magnitude(values[i]);
  return larger(largest, sum);
}

}  // namespace vqcc
