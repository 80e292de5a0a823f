// A warp's softmax over the tokens that it sees, and values by rows weighted with it on tensor cores.
#pragma once

#include "entry_rows.cuh"
#include "merge.cuh"
#include "quarters.cuh"
#include "window.cuh"

namespace vqcc {

/// As WarpSoftmax, a lane for each token of scores and for each channel group of values. Values are operand B, columns
/// channel groups, lane 4 g + m having group 4 g + m of 32. Rows of operand A are (query row, member), four times four: in
/// those of member m only the tokens of lanes of that member have weights, so that all lanes multiply the same four tokens at
/// a time, each its own group.
template <class Algorithm, class Shape, class Tile>
class FragmentSoftmax {
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Codes = ValueBlock<Algorithm, Shape::kHeadDim>;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kVectorSize = Rows::kVectorSize;
  static constexpr int kPairs = Rows::kPairs;
  static_assert(Rows::kTeams == 1, "lanes have channel groups of the same token");
  static_assert(kRows == Quarters::kRows, "four rows");
  static constexpr int kSteps = kBlockTokens / 4;
  static constexpr int kRunBytes = 16;
  static constexpr int kPairBytes = kSteps * kRunBytes;  // of two rows

 public:
  static constexpr int kSlots = Rows::kSlots;
  static constexpr int kCodeWords = Codes::Streams::kChunkWords;  // of a lane in each slot: four codes each
  static_assert(kCodeWords == kSteps, "a word has a step's codes");
  /// A warp's weights in float16. Rows r and r + 2 have 16 bytes for each step of four tokens, operand A of a lane: of the
  /// first two tokens row r, then r + 2, and of the other two.
  static constexpr int kWeightBytes = kRows * kBlockTokens * 2;
  /// Floats that `merge` needs: of warps, largest scores and sums of each row.
  static constexpr int kScratchFloats = 2 * kRows * kWarps;

  VQCC_DEVICE void start() {
#pragma unroll
    for (int i = 0; i < 4; ++i) operand_[i] = 0u;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      largest_[r] = kMasked;
      sum_[r] = 0.0f;
    }
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
#pragma unroll
      for (int c = 0; c < kVectorSize; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values_[s][c][i] = 0.0f;
      }
    }
  }

  /// Turns the scores of this lane's token into weights relative to a largest score that lags behind, and leaves them at
  /// `weights`.
  VQCC_DEVICE void weigh(const float (&scores)[1][kRows], uint8* weights) {
    bool behind = false;
#pragma unroll
    for (int r = 0; r < kRows; ++r) behind = behind || scores[0][r] > largest_[r] + kHeadroom;
    if (any_lane(behind)) raise(scores[0]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float weight = weight_of(scores[0][r], largest_[r]);
      sum_[r] += weight;
      store(reinterpret_cast<uint16*>(weights + place_of(r, lane_index())),
            static_cast<uint16>(to_float16_pair(make_float2(weight, 0.0f))));
    }
  }

  /// Adds a token block's values, looked up by this lane's codes in `tables`, times their weights.
  VQCC_DEVICE void add_codes(const TableRegion& tables, const uint32 (&codes)[kSlots][kCodeWords], const uint8* weights) {
    const uint32 place = Rows::own_place(tables.region);
    const bool has_weights = Quarters::turn() == Quarters::member();
    const uint8* own = weights + Quarters::row() * kPairBytes;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (has_weights) to_registers(load<Space::kShared>(reinterpret_cast<const uint4*>(own + step * kRunBytes)), operand_);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        uint32 entries[4][kPairs];
#pragma unroll
        for (int t = 0; t < 4; ++t) Rows::look_up(tables.base, s, place, codes[s][step], t, entries[t]);
#pragma unroll
        for (int c = 0; c < kVectorSize; ++c) {  // the lower or upper channels of pairs of tokens
          const uint32 selector = c % 2 == 0 ? 0x5410u : 0x7632u;
          multiply_fragments<ElementType::kFloat16>(values_[s][c], operand_,
                                                    {permute_bytes(entries[0][c / 2], entries[1][c / 2], selector),
                                                     permute_bytes(entries[2][c / 2], entries[3][c / 2], selector)});
        }
      }
    }
  }

  /// This lane's channels of a token's value in full precision: of each slot its two groups.
  using Vector = Channels<Tile::kElement, kVectorSize>;
  struct Row {
    Vector vectors[kSlots][2];
  };
  template <class Element>
  VQCC_DEVICE static Row load_row(const Element* values) {
    Row row;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        row.vectors[s][i] = Vector::template load_from<Space::kGlobal>(values + group_of(s, i) * kVectorSize);
      }
    }
    return row;
  }

  /// Adds a token's value, times `scale` and its weight, number `token` of `weights`.
  VQCC_DEVICE void add_row(const Row& row, float scale, const uint8* weights, int token) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint8* place = weights + place_of(Quarters::row() + i / 2 * 2, token);
      const float weight = scale * float16_pair(load<Space::kShared>(reinterpret_cast<const uint16*>(place))).x;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        float channels[kVectorSize];
        row.vectors[s][i % 2].to_float(channels);
#pragma unroll
        for (int c = 0; c < kVectorSize; ++c) {
          values_[s][c][i] = fused_multiply_add(weight, channels[c], values_[s][c][i]);
        }
      }
    }
  }

  /// As WarpSums::merge.
  template <class Store>
  VQCC_DEVICE void merge(float* state, float* sums, float* scratch, float unscale, const Store& store_sum) const {
    float scales[kRows];
    merge_warps<kRows, kWarps>(largest_, sum_, state, scratch, scales);  // and what lay where sums will has been read
    float* own = sums + warp_index() * kRows * kHeadDim;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int r = Quarters::row() + 2 * j;
      const float scale = unscale * (Quarters::row() == 0 ? scales[2 * j] : scales[2 * j + 1]);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int c = 0; c < kVectorSize; ++c) {
            own[r * kHeadDim + group_of(s, i) * kVectorSize + c] = scale * values_[s][c][2 * j + i];
          }
        }
      }
    }
    block_barrier();
    add_warps<kRows * kHeadDim, kWarps>(sums, store_sum);
  }

 private:
  VQCC_DEVICE void raise(const float (&scores)[kRows]) {
    float scales[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float largest = larger(largest_of_warp(scores[r]), largest_[r]);
      scales[r] = weight_of(largest_[r], largest);
      largest_[r] = largest;
      sum_[r] *= scales[r];
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float scale = Quarters::row() == 0 ? scales[2 * j] : scales[2 * j + 1];
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int c = 0; c < kVectorSize; ++c) {
          values_[s][c][2 * j] *= scale;
          values_[s][c][2 * j + 1] *= scale;
        }
      }
    }
  }

  /// Where a token's weight of a row is.
  VQCC_DEVICE static int place_of(int row, int token) {
    return row % 2 * kPairBytes + token / 4 * kRunBytes + token % 4 / 2 * 8 + row / 2 * 4 + token % 2 * 2;
  }

  /// The channel group of this lane's sums [slot][.][i]: column 2 member + i % 2, in its rows' turn.
  VQCC_DEVICE static int group_of(int slot, int i) {
    return slot * kWarpSize + (Quarters::member() * 2 + i % 2) * 4 + Quarters::turn();
  }

  float largest_[kRows];
  float sum_[kRows];
  /// Weights of a step. Lanes whose rows are of other members' tokens have zeros, and leave them.
  uint32 operand_[4];
  float values_[kSlots][kVectorSize][4];  // [slot][channel of a group][row, column of the multiply]
};

}  // namespace vqcc
