// A warp's softmax over the tokens that it sees, and values by rows weighted with it.
#pragma once

#include "entry_rows.cuh"
#include "merge.cuh"
#include "window.cuh"

namespace vqcc {

/// Rows' largest scores, this lane's share of the sums of weights, and weighted values of this lane's channel groups, in fp32
/// and scaled as the books are. Weights pass through shared memory, as pairs of the same float16, and products of values are
/// added up in float16 over kFlushTokens tokens at a time.
template <class Algorithm, class Shape, class Tile>
class WarpSoftmax {
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Codes = ValueBlock<Algorithm, Shape::kHeadDim>;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kTeams = Rows::kTeams;
  static constexpr int kSlots = Rows::kSlots;
  static constexpr int kPairs = Rows::kPairs;
  static constexpr int kFlushTokens = 8;
  /// A warp's largest score may be passed by so many powers of two before earlier weights are scaled anew.
  static constexpr float kHeadroom = 8.0f;
  using WeightWord = typename WordOf<smaller(16, kRows * 4)>::Type;
  static constexpr int kWordPairs = sizeof(WeightWord) / 4;

 public:
  /// Words of a lane's codes in each slot; bytes of a warp's weights, of each token its rows together.
  static constexpr int kCodeWords = Codes::Streams::kChunkWords;
  static constexpr int kWeightBytes = kTeams * kBlockTokens * kRows * 4;
  /// Floats that `merge` needs: of warps, largest scores and sums of each row.
  static constexpr int kScratchFloats = 2 * kRows * kWarps;

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

  /// Turns the scores of this lane's tokens, one of each team's token block, into weights relative to a largest score that
  /// lags behind by at most kHeadroom, and leaves them at `weights`.
  VQCC_DEVICE void weigh(const float (&scores)[kTeams][kRows], uint8* weights) {
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
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
      uint32 pairs[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float weight = weight_of(scores[team][r], largest_[r]);
        sum_[r] += weight;
        pairs[r] = to_float16_pair(make_float2(weight, weight));
      }
#pragma unroll
      for (int r = 0; r < kRows; r += kWordPairs) {
        uint32 word[kWordPairs];
#pragma unroll
        for (int i = 0; i < kWordPairs; ++i) word[i] = pairs[r + i];
        uint8* place = weights + ((team * kBlockTokens + lane_index()) * kRows + r) * 4;
        store(reinterpret_cast<WeightWord*>(place), from_registers(word));
      }
    }
  }

  /// Adds a token block's values, looked up by this lane's codes in `tables`, times their weights.
  VQCC_DEVICE void add_codes(const uint8* tables, const uint32 (&codes)[kSlots][kCodeWords], const uint8* weights) {
    const uint32 place = Rows::own_place();
#pragma unroll
    for (int first = 0; first < kBlockTokens; first += kFlushTokens) {
      uint32 sums[kRows][kSlots][kPairs] = {};
#pragma unroll
      for (int t = first; t < first + kFlushTokens; ++t) {
        uint32 weight[kRows];
        load_weights(weights + t * kRows * 4, weight);
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
          uint32 pairs[kPairs];
          Rows::look_up(tables, s, place, codes[s][t / 4], t % 4, pairs);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
              sums[r][s][p] = multiply_add_float16_pairs(pairs[p], weight[r], sums[r][s][p]);
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
#pragma unroll
          for (int p = 0; p < kPairs; ++p) {
            const float2 pair = float16_pair(sums[r][s][p]);
            values_[r][s][p].x += pair.x;
            values_[r][s][p].y += pair.y;
          }
        }
      }
    }
  }

  /// Adds a token's value in full precision, times `scale` and its weight, number `token` of `weights`.
  template <class Element>
  VQCC_DEVICE void add_row(const Element* row, float scale, const uint8* weights, int token) {
    uint32 weight[kRows];
    load_weights(weights + token * kRows * 4, weight);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      float value[Rows::kVectorSize];
      load_channels<Tile::kElement>(row + group_of(s) * Rows::kVectorSize, value);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float factor = scale * float16_pair(weight[r]).x;
#pragma unroll
        for (int p = 0; p < kPairs; ++p) {
          values_[r][s][p].x = fused_multiply_add(factor, value[2 * p], values_[r][s][p].x);
          values_[r][s][p].y = fused_multiply_add(factor, value[2 * p + 1], values_[r][s][p].y);
        }
      }
    }
  }

  /// Merges the softmaxes of the block's warps: state[r] is a row's largest score, state[kRows + r] its sum, and
  /// sums[r * kHeadDim + channel] its weighted values, times `unscale`. `sums` has room for each warp's. Every thread of the
  /// block calls it; the result is there at its end.
  VQCC_DEVICE void merge(float* state, float* sums, float* scratch, float unscale) const {
    float* largest_of = scratch;  // [row][warp]
    float* sum_of = scratch + kRows * kWarps;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = sum_of_warp(sum_[r]);
      if (lane_index() == 0) {
        largest_of[r * kWarps + warp_index()] = largest_[r];
        sum_of[r * kWarps + warp_index()] = sum;
      }
    }
    block_barrier();  // and what lay where sums will has been read
    float* own = sums + warp_index() * kRows * kHeadDim;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float largest = kMasked;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) largest = larger(largest, largest_of[r * kWarps + w]);
      if (warp_index() == r % kWarps && lane_index() == 0) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          sum = fused_multiply_add(sum_of[r * kWarps + w], weight_of(largest_of[r * kWarps + w], largest), sum);
        }
        state[r] = largest;
        state[kRows + r] = sum;
      }
      const float scale = unscale * weight_of(largest_[r], largest);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int p = 0; p < kPairs; ++p) {
          float* place = own + r * kHeadDim + group_of(s) * Rows::kVectorSize + 2 * p;
          const float low = sum_of_teams(scale * values_[r][s][p].x);
          const float high = sum_of_teams(scale * values_[r][s][p].y);
          if (lane_index() < Rows::kTeamLanes) *reinterpret_cast<float2*>(place) = make_float2(low, high);
        }
      }
    }
    block_barrier();
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kHeadDim; i += kThreads) {
      float sum = sums[i];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += sums[w * kRows * kHeadDim + i];
      sums[i] = sum;
    }
    block_barrier();
  }

 private:
  /// This lane's channel group in slot `slot`.
  VQCC_DEVICE static int group_of(int slot) { return slot * Rows::kTeamLanes + lane_index() % Rows::kTeamLanes; }

  VQCC_DEVICE static float sum_of_teams(float value) {
#pragma unroll
    for (int distance = Rows::kTeamLanes; distance < kWarpSize; distance *= 2) value += exchange_xor(value, distance);
    return value;
  }

  VQCC_DEVICE static void load_weights(const uint8* address, uint32 (&weights)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; r += kWordPairs) {
      uint32 word[kWordPairs];
      to_registers(load<Space::kShared>(reinterpret_cast<const WeightWord*>(address + r * 4)), word);
#pragma unroll
      for (int i = 0; i < kWordPairs; ++i) weights[r + i] = word[i];
    }
  }

  float largest_[kRows];
  float sum_[kRows];
  float2 values_[kRows][kSlots][kPairs];
};

}  // namespace vqcc
