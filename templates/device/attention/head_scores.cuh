// Score tables of a kv-head: the products of every key entry with its channel group of some queries.
#pragma once

#include "../score_table.cuh"
#include "entry_rows.cuh"
#include "work.cuh"

namespace vqcc {

/// A power of two that brings `largest` to 2^12 to 2^13, so that four scores together stay below 2^15, and its inverse.
VQCC_DEVICE void find_score_scale(float largest, float& scale, float& unscale) {
  const int exponent = static_cast<int>(float_as_bits(largest) >> 23) - 126;  // of the power of two past it
  const int shift = 13 - exponent < -100 ? -100 : smaller(13 - exponent, 100);
  scale = float_of_bits(static_cast<uint32>(127 + shift) << 23);
  unscale = float_of_bits(static_cast<uint32>(127 - shift) << 23);
}

/// Tables for kRows query rows, of up to four rows in a cell (RotatedLookUps) and 32 channel groups in a set. Scores that are
/// kept as float16 are scaled by a power of two for each row.
template <class Algorithm, class Shape, class Cache, class Tile>
class HeadScores {
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Keys = KeyBlock<Algorithm, Shape::kHeadDim, Cache::kKeyOrder>;

  static constexpr int kRows = Tile::kRows;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kCellRows = smaller(kRows, 4);
  static constexpr int kCells = kRows / kCellRows;
  using LookUps = RotatedLookUps<kCellRows>;
  static constexpr int kCellRegions = ceil_divide(ceil_divide(Keys::kGroups, kWarpSize), LookUps::kSets);
  static_assert(kRows % kCellRows == 0 && (kCellRows == 1 || kCellRows == 2 || kCellRows == 4), "1, 2, 4 or 8 rows");
  static_assert(Keys::kSetGroups % 4 == 0, "codes fill words");

 public:
  static constexpr int kSets = ceil_divide(Keys::kGroups, kWarpSize);
  static constexpr int kSetWords = Keys::kSetGroups / 4;  // of a token's codes
  static constexpr int kBytes = kCells * kCellRegions * LookUps::kRegionBytes;
  static constexpr Space kRowsSpace = Tile::kKeysResident ? Space::kShared : Space::kGlobal;

  /// Makes the tables at `tables` from `queries` [kRows][kHeadDim] in fp32 and the head's key entries by rows. `bound` is the
  /// largest sum of magnitudes of an entry's elements. A lane has a channel group of each set, warps take entries in turn.
  VQCC_DEVICE void make(uint8* tables, const float* queries, const uint8* key_rows, float bound) {
    float scales[kRows];
    find_scales(queries, bound, scales);
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
      const int group = (set * kWarpSize + lane_index()) % Keys::kGroups;
      const uint8* entry = key_rows + Rows::offset_of(group % Rows::kTeamLanes, group / Rows::kTeamLanes);
#pragma unroll
      for (int cell = 0; cell < kCells; ++cell) {
        float query[kCellRows][Rows::kVectorSize];
#pragma unroll
        for (int r = 0; r < kCellRows; ++r) {
#pragma unroll
          for (int c = 0; c < Rows::kVectorSize; ++c) {
            const int row = cell * kCellRows + r;
            query[r][c] = scales[row] * queries[row * Shape::kHeadDim + group * Rows::kVectorSize + c];
          }
        }
        uint8* table = tables + (cell * kCellRegions + set / LookUps::kSets) * LookUps::kRegionBytes +
                       set % LookUps::kSets * LookUps::kSetBytes + lane_index() * LookUps::Cell::kBytes;
#pragma unroll 4
        for (int e = warp_index(); e < Rows::kRows; e += kWarps) {
          uint32 pairs[Rows::kPairs];
          Rows::template load_from<kRowsSpace>(entry + e * Rows::kRowBytes, pairs);
          float products[kCellRows] = {};
#pragma unroll
          for (int p = 0; p < Rows::kPairs; ++p) {
            const float2 values = float16_pair(pairs[p]);
#pragma unroll
            for (int r = 0; r < kCellRows; ++r) {
              products[r] = fused_multiply_add(values.x, query[r][2 * p], products[r]);
              products[r] = fused_multiply_add(values.y, query[r][2 * p + 1], products[r]);
            }
          }
          LookUps::Cell::of(products).store_to(table + e * LookUps::kEntryBytes);
        }
      }
    }
  }

  /// The scores of this lane's token: each group's code looked up once.
  VQCC_DEVICE void add_up(const uint8* tables, const uint32 (&codes)[kSets][kSetWords], float (&scores)[kRows]) const {
#pragma unroll
    for (int cell = 0; cell < kCells; ++cell) {
      typename LookUps::Sums sums;
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        LookUps::template add<1, Keys::kSetGroups>(tables, cell * kCellRegions + set / LookUps::kSets,
                                                   set % LookUps::kSets, codes[set], sums);
      }
#pragma unroll
      for (int r = 0; r < kCellRows; ++r) {
        scores[cell * kCellRows + r] = unscale_[cell * kCellRows + r] * sums.total(r);
      }
    }
  }

 private:
  VQCC_DEVICE void find_scales(const float* queries, float bound, float (&scales)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      scales[r] = unscale_[r] = 1.0f;
      if constexpr (LookUps::Cell::kScaled) {
        float largest = 0.0f;
        for (int i = lane_index(); i < Shape::kHeadDim; i += kWarpSize) {
          largest = larger(largest, magnitude(queries[r * Shape::kHeadDim + i]));
        }
        find_score_scale(largest_of_warp(largest) * bound, scales[r], unscale_[r]);
      }
    }
  }

  float unscale_[kRows];
};

}  // namespace vqcc
