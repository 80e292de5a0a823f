// Sums across the lanes of a warp and the warps of a block, in a fixed order: equal inputs give equal bits.
#pragma once

#include "arch.cuh"
#include "elements.cuh"

namespace vqcc {

/// The largest `value` of the warp's lanes, or their sum, which all get.
VQCC_DEVICE float largest_of_warp(float value) {
#pragma unroll
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value = larger(value, exchange_xor(value, mask));
  return value;
}
VQCC_DEVICE float sum_of_warp(float value) {
#pragma unroll
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += exchange_xor(value, mask);
  return value;
}

/// Which of `kCount` sums a lane ends up with after `reduce_scatter`.
struct Share {
  int first;   // index of the lane's first sum
  int count;   // how many it holds, in the front of the array
  bool owner;  // false on lanes that merely repeat another lane's sums
};

/// Sums each of `values` over the 32 lanes. Every exchange halves what a lane still carries (recursive
/// halving), so kCount sums cost about kCount + 5 shuffles instead of 5 kCount. Lane l ends up with the
/// sums of its returned share.
template <int kCount, int kStride = kWarpSize / 2>
VQCC_DEVICE Share reduce_scatter(float* values, int lane, Share share) {
  if constexpr (kStride == 0) {
    return share;
  } else if constexpr (kCount == 1) {
    values[0] += exchange_xor(values[0], kStride);
    share.owner = share.owner && (lane & kStride) == 0;
    return reduce_scatter<1, kStride / 2>(values, lane, share);
  } else {
    constexpr int kLower = (kCount + 1) / 2;
    const bool upper = (lane & kStride) != 0;
#pragma unroll
    for (int i = 0; i < kLower; ++i) {
      // The upper half is one shorter when kCount is odd; its last exchange carries nothing that is kept.
      const float above = kLower + i < kCount ? values[kLower + i] : 0.0f;
      const float received = exchange_xor(upper ? values[i] : above, kStride);
      values[i] = (upper ? above : values[i]) + received;
    }
    share.first += upper ? kLower : 0;
    share.count = upper ? share.count - kLower : smaller(share.count, kLower);
    return reduce_scatter<kLower, kStride / 2>(values, lane, share);
  }
}

template <int kCount>
VQCC_DEVICE Share reduce_scatter(float (&values)[kCount], int lane) {
  return reduce_scatter<kCount, kWarpSize / 2>(values, lane, Share{0, kCount, true});
}

}  // namespace vqcc
