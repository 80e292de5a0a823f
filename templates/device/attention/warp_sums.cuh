// A warp's softmax over the tokens that it sees: what it has added up so far, and how warps' sums are merged.
#pragma once

#include "merge.cuh"

namespace vqcc {

/// Lanes that have whole vectors: element `i` of a slot is a channel of this lane's group.
template <class Lanes>
struct WholeVectors {
  static constexpr bool kNeighbours = true;
  VQCC_DEVICE static int channel_of(int slot, int i) {
    return (slot * Lanes::kTeamLanes + lane_index() % Lanes::kTeamLanes) * Lanes::kVectorSize + i;
  }
};

/// Rows' largest scores, this lane's share of the sums of weights, and weighted values of this lane's channel groups, in fp32.
///
/// `Lanes` names kVectorSize, kGroups, kTeamLanes, kTeams and kSlots: kTeams teams of lanes have a token block each, and lane l
/// of a team has channel groups l, l + kTeamLanes and so on, one in each of kSlots slots, unless `Channels` says otherwise: it
/// names channel_of(slot, i), the channel of this lane's element `i`, and whether kNeighbours are in the elements of a slot.
template <class Lanes, int kRows, int kWarps, class Channels = WholeVectors<Lanes>>
class WarpSums {
  static constexpr int kTeams = Lanes::kTeams;

 public:
  static constexpr int kSlots = Lanes::kSlots;
  static constexpr int kPairs = Lanes::kVectorSize / 2;
  static constexpr int kChannels = Lanes::kGroups * Lanes::kVectorSize;
  static_assert(Lanes::kVectorSize % 2 == 0, "channels come in pairs");
  /// Floats that `merge` needs: of warps, largest scores and sums of each row; and of each warp, a row's weighted values.
  static constexpr int kScratchFloats = 2 * kRows * kWarps;
  static constexpr int kWarpFloats = kRows * kChannels;

  VQCC_DEVICE void start() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      largest_[r] = kMasked;
      sum_[r] = 0.0f;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int p = 0; p < kPairs; ++p) values_[r][s][p] = make_float2(0.0f, 0.0f);
      }
    }
  }

  /// Merges the softmaxes of the block's warps: state[r] is a row's largest score, state[kRows + r] its sum, and
  /// store(r * kChannels + channel, sum) is called with its weighted values, times `unscale`. `sums` has room for each warp's.
  /// Every thread of the block calls it; it may read the state then, others after a barrier.
  template <class Store>
  VQCC_DEVICE void merge(float* state, float* sums, float* scratch, float unscale, const Store& store_sum) const {
    float scales[kRows];
    merge_warps<kRows, kWarps>(largest_, sum_, state, scratch, scales);  // and what lay where sums will has been read
    float* own = sums + warp_index() * kWarpFloats;
#pragma unroll
    for (int r = 0; r < kRows; ++r) store_own(own + r * kChannels, r, unscale * scales[r]);
    block_barrier();
    add_warps<kWarpFloats, kWarps>(sums, store_sum);
  }

 protected:
  /// Raises rows' largest scores to those of this lane's tokens, one of each team's token block, if they lag behind too far.
  VQCC_DEVICE void raise(const float (&scores)[kTeams][kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float largest = scores[0][r];
#pragma unroll
      for (int team = 1; team < kTeams; ++team) largest = larger(largest, scores[team][r]);
      if (any_lane(largest > largest_[r] + kHeadroom)) {
        largest = larger(largest_of_warp(largest), largest_[r]);
        const float scale = weight_of(largest_[r], largest);
        largest_[r] = largest;
        sum_[r] *= scale;
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
#pragma unroll
          for (int p = 0; p < kPairs; ++p) {
            values_[r][s][p].x *= scale;
            values_[r][s][p].y *= scale;
          }
        }
      }
    }
  }

  /// A score's weight relative to the row's largest, which this lane's share of the sum takes in.
  VQCC_DEVICE float weigh_one(int row, float score) {
    const float weight = weight_of(score, largest_[row]);
    sum_[row] += weight;
    return weight;
  }

  /// Adds a vector times `factor` to the values of this lane's group in slot `slot`.
  VQCC_DEVICE void add_vector(int row, int slot, float factor, const float (&value)[Lanes::kVectorSize]) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      values_[row][slot][p].x = fused_multiply_add(factor, value[2 * p], values_[row][slot][p].x);
      values_[row][slot][p].y = fused_multiply_add(factor, value[2 * p + 1], values_[row][slot][p].y);
    }
  }
  VQCC_DEVICE void add_pair(int row, int slot, int pair, float2 value) {
    values_[row][slot][pair].x += value.x;
    values_[row][slot][pair].y += value.y;
  }

 private:
  /// Leaves a row's weighted values, times `scale`, at row[channel], those of the warp's teams added up.
  VQCC_DEVICE void store_own(float* row, int r, float scale) const {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const float low = sum_of_teams(scale * values_[r][s][p].x);
        const float high = sum_of_teams(scale * values_[r][s][p].y);
        if (lane_index() >= Lanes::kTeamLanes) continue;
        if constexpr (Channels::kNeighbours) {
          *reinterpret_cast<float2*>(row + Channels::channel_of(s, 2 * p)) = make_float2(low, high);
        } else {
          row[Channels::channel_of(s, 2 * p)] = low;
          row[Channels::channel_of(s, 2 * p + 1)] = high;
        }
      }
    }
  }

  VQCC_DEVICE static float sum_of_teams(float value) {
#pragma unroll
    for (int distance = Lanes::kTeamLanes; distance < kWarpSize; distance *= 2) value += exchange_xor(value, distance);
    return value;
  }

  float largest_[kRows];
  float sum_[kRows];
  float2 values_[kRows][kSlots][kPairs];
};

}  // namespace vqcc
