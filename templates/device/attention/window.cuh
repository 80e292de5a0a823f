// The newest tokens, in full precision: a token block's scores and values from the window.
#pragma once

#include "rope.cuh"

namespace vqcc {

/// The row of a window that position `position` of a sequence is in, for a kv-head.
template <class Shape, class Element>
VQCC_DEVICE Element* window_row(Element* window, int sequence, int head, int position) {
  constexpr int kSlots = Shape::kWindow > 0 ? Shape::kWindow : 1;
  const int64 row = (static_cast<int64>(sequence) * Shape::kHeads + head) * kSlots + position % kSlots;
  return window + row * Shape::kHeadDim;
}

/// Some channels of a row, in fp32.
template <ElementType kType, int kCount>
VQCC_DEVICE void load_channels(const void* channels, float (&values)[kCount]) {
  using Run = Elements<kType, kCount, smaller(16, kCount * ElementTraits<kType>::kBytes)>;
  Run::template load_from<Space::kGlobal>(channels).to_float(values);
}

/// Adds the products of kCount channels of this lane's key, from `first` on, with each row's query in fp32 at
/// queries[r * kHeadDim], rotated by the position.
template <class Shape, int kRows, int kCount>
VQCC_DEVICE void add_products(const Rotations<Shape>& rotations, const float* queries, int first,
                              const float (&key)[kCount], float (&scores)[kRows]) {
  using Own = Rotations<Shape>;
  float2 rotation[kCount] = {};
  if constexpr (Own::kAny) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) rotation[c] = rotations.of_pair(Own::pair_of(first + c));
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float* query = queries + r * Shape::kHeadDim;
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float factor = Own::kAny ? Own::rotated_back(query, first + c, rotation[c]) : query[first + c];
      scores[r] = fused_multiply_add(key[c], factor, scores[r]);
    }
  }
}

/// Adds the products of the window's key at `position` with each row's query, over kChannels channels from `start` on.
template <class Shape, ElementType kType, int kChannels = Shape::kHeadDim, int kRows, class Element>
VQCC_DEVICE void add_window_key(const Rotations<Shape>& rotations, const float* queries, const Element* window,
                                int sequence, int head, int position, float (&scores)[kRows], int start = 0) {
  constexpr int kCount = 8;
  static_assert(kChannels % kCount == 0, "channels come in eights");
  const Element* keys = window_row<Shape>(window, sequence, head, position);
#pragma unroll 1
  for (int first = start; first < start + kChannels; first += kCount) {
    float key[kCount];
    load_channels<kType>(keys + first, key);
    add_products(rotations, queries, first, key, scores);
  }
}

}  // namespace vqcc
