// A warp's softmax over the tokens that it sees, and values by rows weighted with it.
#pragma once

#include "entry_rows.cuh"
#include "warp_sums.cuh"
#include "window.cuh"

namespace vqcc {

/// Values and sums are scaled as the books are. Weights pass through shared memory as float16, and products of values are
/// added up in float16 over kFlushTokens tokens at a time. `Rows` are tables of entries: EntryRows of a head,
/// or of the part of a head that a block of a cluster has.
template <class Algorithm, class Shape, class Tile, class Rows = EntryRows<Algorithm, Shape::kHeadDim>>
class WarpSoftmax : public WarpSums<Rows, Tile::kRows, Tile::kWarps> {
  using Codes = ValueBlock<Algorithm, Shape::kHeadDim>;
  using Sums = WarpSums<Rows, Tile::kRows, Tile::kWarps>;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kTeams = Rows::kTeams;
  static constexpr int kFlushTokens = 8;
  using RowWeights = typename WordOf<kRows * 2>::Type;  // of a token
  static constexpr int kFlushWeights = kFlushTokens * kRows;

 public:
  using Sums::kPairs;
  using Sums::kSlots;
  /// Words of a lane's codes in each slot; bytes of a warp's weights, of each token its rows together.
  static constexpr int kCodeWords = Codes::Streams::kChunkWords;
  static constexpr int kWeightBytes = kTeams * kBlockTokens * kRows * 2;

  /// Turns the scores of this lane's tokens, one of each team's token block, into weights relative to a largest score that
  /// lags behind, and leaves them at `weights`.
  VQCC_DEVICE void weigh(const float (&scores)[kTeams][kRows], uint8* weights) {
    this->raise(scores);
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
      RowWeights* place = reinterpret_cast<RowWeights*>(weights) + team * kBlockTokens + lane_index();
      if constexpr (kRows == 1) {
        const float weight = this->weigh_one(0, scores[team][0]);
        store(place, static_cast<uint16>(to_float16_pair(make_float2(weight, 0.0f))));
      } else {
        uint32 pairs[kRows / 2];
#pragma unroll
        for (int p = 0; p < kRows / 2; ++p) {
          const float low = this->weigh_one(2 * p, scores[team][2 * p]);
          pairs[p] = to_float16_pair(make_float2(low, this->weigh_one(2 * p + 1, scores[team][2 * p + 1])));
        }
        store(place, from_registers(pairs));
      }
    }
  }

  /// Adds a token block's values, looked up by this lane's codes in `tables`, times their weights.
  VQCC_DEVICE void add_codes(const TableRegion& tables, const uint32 (&codes)[kSlots][kCodeWords], const uint8* weights) {
    const uint32 place = Rows::own_place(tables.region);
#pragma unroll
    for (int first = 0; first < kBlockTokens; first += kFlushTokens) {
      uint32 sums[kRows][kSlots][kPairs] = {};
      uint32 own[kFlushWeights / 2];
      load_weights(weights + first * kRows * 2, own);
#pragma unroll
      for (int t = first; t < first + kFlushTokens; ++t) {
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
          uint32 pairs[kPairs];
          Rows::look_up(tables.base, s, place, codes[s][t / 4], t % 4, pairs);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const int index = (t - first) * kRows + r;
            const uint32 weight = float16_twice(own[index / 2], index % 2);
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
              sums[r][s][p] = multiply_add_float16_pairs(pairs[p], weight, sums[r][s][p]);
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
#pragma unroll
          for (int p = 0; p < kPairs; ++p) this->add_pair(r, s, p, float16_pair(sums[r][s][p]));
        }
      }
    }
  }

  /// This lane's channels of a token's value in full precision.
  using Vector = Channels<Tile::kElement, Rows::kVectorSize>;
  struct Row {
    Vector vectors[kSlots];
  };
  template <class Element>
  VQCC_DEVICE static Row load_row(const Element* values) {
    Row row;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      row.vectors[s] = Vector::template load_from<Space::kGlobal>(values + WholeVectors<Rows>::channel_of(s, 0));
    }
    return row;
  }

  /// Adds a token's value, times `scale` and its weight, number `token` of `weights`.
  VQCC_DEVICE void add_row(const Row& row, float scale, const uint8* weights, int token) {
    float weight[kRows];
    Elements<ElementType::kFloat16, kRows, kRows * 2>::template load_from<Space::kShared>(weights + token * kRows * 2)
        .to_float(weight);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      float value[Rows::kVectorSize];
      row.vectors[s].to_float(value);
#pragma unroll
      for (int r = 0; r < kRows; ++r) this->add_vector(r, s, scale * weight[r], value);
    }
  }

 private:
  /// The weights of kFlushTokens tokens, of each its rows together.
  VQCC_DEVICE static void load_weights(const uint8* address, uint32 (&weights)[kFlushWeights / 2]) {
#pragma unroll
    for (int i = 0; i < kFlushWeights / 2; i += 4) {
      uint32 word[4];
      to_registers(load<Space::kShared>(reinterpret_cast<const uint4*>(address + i * 4)), word);
#pragma unroll
      for (int w = 0; w < 4; ++w) weights[i + w] = word[w];
    }
  }
};

}  // namespace vqcc
