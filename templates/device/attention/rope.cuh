// Rotation of keys that were quantized before it: queries are rotated back instead, for each position.
#pragma once

#include "work.cuh"

namespace vqcc {

/// Turns that a pair of channels makes from one position to the next, in 2^-64 of a turn: a position's turn is exact to
/// 2^-44 however far it is. The table has one for each pair of a head's channels.
using TurnStep = unsigned long long;

/// Cosine and sine of a turn in 2^-64.
VQCC_DEVICE float2 rotation_of(TurnStep turn) {
  const float half_turns = static_cast<float>(static_cast<int>(turn >> 32)) * 0x1p-31f;
  return cosine_and_sine(half_turns);
}

/// What a pair of channels has turned at a position: `steps` has a TurnStep for each pair.
VQCC_DEVICE TurnStep turn_of_position(const uint8* steps, int pair, int position) {
  return load<Space::kGlobal>(reinterpret_cast<const TurnStep*>(steps) + pair) * static_cast<TurnStep>(position);
}

/// Rotations of the tokens of a block, as those of its first token followed by those of so many tokens further.
///
/// Shared memory: [pairs][kBlockTokens] for the latter, made once, and [pairs] for the former, of each warp.
template <class Shape>
struct Rotations {
  static constexpr bool kAny = Shape::kRope != Rope::kNone;
  static constexpr int kPairs = Shape::kHeadDim / 2;
  static constexpr int kStepBytes = kAny ? kPairs * kBlockTokens * 8 : 0;
  static constexpr int kWarpBytes = kAny ? kPairs * 8 : 0;

  float2* further;
  float2* first;

  VQCC_DEVICE static Rotations at(uint8* shared) {
    return {reinterpret_cast<float2*>(shared),
            reinterpret_cast<float2*>(shared + kStepBytes + warp_index() * kWarpBytes)};
  }

  /// Every thread of the block calls it; what it made is there after the next barrier.
  template <int kThreads>
  VQCC_DEVICE void make(const uint8* steps) const {
    if constexpr (kAny) {
      for (int i = static_cast<int>(threadIdx.x); i < kPairs * kBlockTokens; i += kThreads) {
        further[i] = rotation_of(turn_of_position(steps, i / kBlockTokens, i % kBlockTokens));
      }
    }
  }

  /// Turns to the token block whose first token is at `position`. Every lane of the warp calls it.
  VQCC_DEVICE void turn_to(const uint8* steps, int position) const {
    if constexpr (kAny) {
      warp_barrier();  // the last block's have been read
      for (int i = lane_index(); i < kPairs; i += kWarpSize) {
        first[i] = rotation_of(turn_of_position(steps, i, position));
      }
      warp_barrier();
    }
  }

  /// The rotation of this lane's token for a pair of channels.
  VQCC_DEVICE float2 of_pair(int pair) const {
    const float2 a = first[pair];
    const float2 b = further[pair * kBlockTokens + lane_index()];
    return make_float2(fused_multiply_add(a.x, b.x, -a.y * b.y), fused_multiply_add(a.x, b.y, a.y * b.x));
  }

  /// The pair that a channel belongs to, its other channel, and whether it is the second one.
  VQCC_HOST_DEVICE static constexpr int pair_of(int channel) {
    return Shape::kRope == Rope::kHalf ? channel % kPairs : channel / 2;
  }
  VQCC_HOST_DEVICE static constexpr int partner_of(int channel) {
    return Shape::kRope == Rope::kHalf ? channel ^ kPairs : channel ^ 1;
  }
  VQCC_HOST_DEVICE static constexpr bool is_second(int channel) {
    return Shape::kRope == Rope::kHalf ? channel >= kPairs : channel % 2 == 1;
  }

  /// What a key's `channel` is multiplied with, for a query's elements at `query`: a rotated key times the query is the key
  /// times the query rotated back.
  VQCC_DEVICE static float rotated_back(const float* query, int channel, float2 rotation) {
    const float sine = is_second(channel) ? -rotation.y : rotation.y;
    return fused_multiply_add(query[channel], rotation.x, query[partner_of(channel)] * sine);
  }
};

}  // namespace vqcc
