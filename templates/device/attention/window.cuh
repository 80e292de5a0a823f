// The newest tokens, in full precision: rows of the window, on their way, rotated and multiplied.
#pragma once

#include "../reduce.cuh"
#include "rope.cuh"

namespace vqcc {

/// The row of a window that position `position` of a sequence is in, for a kv-head.
template <class Shape, class Element>
VQCC_DEVICE Element* window_row(Element* window, int sequence, int head, int position) {
  constexpr int kSlots = Shape::kWindow > 0 ? Shape::kWindow : 1;
  const int64 row = (static_cast<int64>(sequence) * Shape::kHeads + head) * kSlots + position % kSlots;
  return window + row * Shape::kHeadDim;
}

/// Some neighbouring channels of a row, as they are in memory.
template <ElementType kType, int kCount>
using Channels = Elements<kType, kCount, smaller(16, kCount * ElementTraits<kType>::kBytes)>;

/// Calls `add(t, row)` with a `Row`, what this lane has of a token's row, for t from 0 to `count`; `load(t)` starts to load it.
/// As many rows as kRegisters have room for are on their way together: one after the other, each would wait for memory.
template <class Row, int kRegisters = 16, class Load, class Add>
VQCC_DEVICE void add_window_rows(int count, const Load& load, const Add& add) {
  constexpr int kRowRegisters = static_cast<int>(sizeof(Row)) / 4;
  constexpr int kAhead = kRowRegisters < kRegisters ? kRegisters / kRowRegisters : 1;
#pragma unroll 1
  for (int first = 0; first < count; first += kAhead) {
    Row rows[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) rows[i] = load(smaller(first + i, count - 1));  // no branch, so that none waits
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i < count) add(first + i, rows[i]);
    }
  }
}

/// Asks for a sequence's window to be brought to L2 if token blocks before `end` reach it: who adds it up then waits less.
/// `threads` threads call it, of which this is number `thread`.
template <class Shape, class Arguments>
VQCC_DEVICE void prefetch_window(const Arguments& arguments, const Sequence<Shape>& sequence, int number, int head, int end,
                                 int thread, int threads) {
  if constexpr (Shape::kWindow == 0) return;
  if (end <= sequence.coded_blocks) return;
  constexpr int kLineBytes = 128;
  constexpr int kBytes = Shape::kWindow * Shape::kHeadDim * static_cast<int>(sizeof(*arguments.key_window));
  const auto* keys = reinterpret_cast<const uint8*>(window_row<Shape>(arguments.key_window, number, head, 0));
  const auto* values = reinterpret_cast<const uint8*>(window_row<Shape>(arguments.value_window, number, head, 0));
  for (int i = thread * kLineBytes; i < kBytes; i += threads * kLineBytes) {
    prefetch_line(keys + i);
    prefetch_line(values + i);
  }
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

/// Rotates a window's key by its position, where the lanes of a warp share it: each has kHeadDim / 32 channels, in order.
template <class Shape, int kCount>
VQCC_DEVICE void rotate_shared_key(const uint8* steps, int position, float (&key)[kCount]) {
  using Own = Rotations<Shape>;
  static_assert(kCount == Shape::kHeadDim / kWarpSize && kCount % 2 == 0, "lanes have all channels");
  if constexpr (!Own::kAny) return;
  float rotated[kCount];
#pragma unroll
  for (int c = 0; c < kCount; ++c) {
    const int channel = lane_index() * kCount + c;
    const float2 turn = rotation_of(turn_of_position(steps, Own::pair_of(channel), position));
    const float partner = Shape::kRope == Rope::kHalf ? exchange_xor(key[c], kWarpSize / 2) : key[c ^ 1];
    rotated[c] = fused_multiply_add(key[c], turn.x, Own::is_second(channel) ? partner * turn.y : -partner * turn.y);
  }
#pragma unroll
  for (int c = 0; c < kCount; ++c) key[c] = rotated[c];
}

/// The products of such a key with each row's query, in fp32 at queries[r * kHeadDim]. All lanes get them.
template <class Shape, int kCount, int kRows>
VQCC_DEVICE void multiply_shared_key(const float (&key)[kCount], const float* queries, float (&products)[kRows]) {
  static_assert(kCount == Shape::kHeadDim / kWarpSize, "lanes have all channels");
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float* query = queries + r * Shape::kHeadDim + lane_index() * kCount;
    products[r] = 0.0f;
#pragma unroll
    for (int c = 0; c < kCount; ++c) products[r] = fused_multiply_add(key[c], query[c], products[r]);
    products[r] = sum_of_warp(products[r]);
  }
}

/// Adds the products of the window's key at `position` with each row's query, over kChannels channels from `start` on, of
/// which kRegisters registers are on their way together.
template <class Shape, ElementType kType, int kChannels = Shape::kHeadDim, int kRegisters = 16, int kRows, class Element>
VQCC_DEVICE void add_window_key(const Rotations<Shape>& rotations, const float* queries, const Element* window,
                                int sequence, int head, int position, float (&scores)[kRows], int start = 0) {
  constexpr int kCount = 8;
  using Run = Channels<kType, kCount>;
  constexpr int kAhead = smaller(kRegisters / 4, kChannels / kCount);
  static_assert(kChannels % (kAhead * kCount) == 0, "channels come in eights, and these in groups");
  const Element* keys = window_row<Shape>(window, sequence, head, position);
#pragma unroll 1
  for (int first = start; first < start + kChannels; first += kAhead * kCount) {
    Run runs[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) runs[i] = Run::template load_from<Space::kGlobal>(keys + first + i * kCount);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      float key[kCount];
      runs[i].to_float(key);
      add_products(rotations, queries, first + i * kCount, key, scores);
    }
  }
}

}  // namespace vqcc
