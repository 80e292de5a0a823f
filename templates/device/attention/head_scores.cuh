// Score tables of a kv-head: the products of every key entry with its channel group of some queries.
#pragma once

#include "../score_table.cuh"
#include "entry_rows.cuh"
#include "work.cuh"

namespace vqcc {

/// A power of two that brings `largest` below 2^15 / kTogether, so that as many scores together stay below 2^15; its inverse.
template <int kTogether = 4>
VQCC_DEVICE void find_score_scale(float largest, float& scale, float& unscale) {
  constexpr int kPower = kTogether == 8 ? 12 : 13;
  static_assert(kTogether << kPower == 1 << 15, "four or eight");
  const int exponent = static_cast<int>(float_as_bits(largest) >> 23) - 126;  // of the power of two past it
  const int shift = kPower - exponent < -100 ? -100 : smaller(kPower - exponent, 100);
  scale = float_of_bits(static_cast<uint32>(127 + shift) << 23);
  unscale = float_of_bits(static_cast<uint32>(127 - shift) << 23);
}

/// Tables for kRows query rows, of up to four rows in a cell (RotatedLookUps) and 32 channel groups in a set. Scores that are
/// kept as float16 are scaled by a power of two for each row.
template <class Algorithm, class Shape, class Cache, class Tile>
class HeadScores : public FixedKeys {
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Keys = KeyBlock<Algorithm, Shape::kHeadDim, Cache::kKeyOrder>;

  static constexpr int kRows = Tile::kRows;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kCellRows = smaller(kRows, 4);
  static constexpr int kCells = kRows / kCellRows;
  static constexpr int kOwnEntries = ceil_divide(Rows::kRows, kWarps);
  static constexpr int kAhead = kCells == 1 || kOwnEntries % 8 == 0 ? smaller(8, kOwnEntries) : kOwnEntries;  // on their way
  static constexpr int kTogether = Keys::kSetGroups % 8 == 0 ? 8 : 4;  // scores that are added up in float16
  using LookUps = RotatedLookUps<kCellRows, kWarpSize, kTogether>;
  static constexpr int kCellRegions = ceil_divide(ceil_divide(Keys::kGroups, kWarpSize), LookUps::kSets);
  static_assert(kRows % kCellRows == 0 && (kCellRows == 1 || kCellRows == 2 || kCellRows == 4), "1, 2, 4 or 8 rows");
  static_assert(Keys::kSetGroups % 4 == 0, "codes fill words");
  static_assert(Shape::kRope == Rope::kNone, "products of entries are of all positions");

 public:
  static constexpr int kSets = ceil_divide(Keys::kGroups, kWarpSize);
  static constexpr int kSetWords = Keys::kSetGroups / 4;  // of a token's codes
  static constexpr int kBytes = kCells * kCellRegions * LookUps::kRegionBytes;
  static constexpr bool kKeepsRows = false;  // tables are made of rows in global memory
  static constexpr bool kScalesScores = false;  // queries are
  static constexpr int kScratchBytes = 0;

  /// Starts to load the first entries that this lane makes scores of, by rows from `key_rows` on: of a channel group of each
  /// set, those that are this warp's in turn.
  VQCC_DEVICE void load_entries(const uint8* key_rows) {
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) load_entry(key_rows, set, i);
    }
  }

  /// Makes the tables of these entries and `queries` [kRows][kHeadDim] in fp32. `bound` is the largest sum of magnitudes of an
  /// entry's elements.
  VQCC_DEVICE void start(const TableRegion& region, const float* queries, const uint8* key_rows, float bound, float /*scale*/) {
    float scales[kRows];
    find_scales(queries, bound, scales);
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
      const int group = group_of(set);
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
        uint8* table = region.begin() + (cell * kCellRegions + set / LookUps::kSets) * LookUps::kRegionBytes +
                       set % LookUps::kSets * LookUps::kSetBytes + lane_index() * LookUps::Cell::kBytes;
#pragma unroll
        for (int i = 0; i < kOwnEntries; ++i) {
          const int e = i * kWarps + warp_index();
          if (Rows::kRows % kWarps != 0 && e >= Rows::kRows) break;
          const uint32(&pairs)[Rows::kPairs] = entries_[set][i % kAhead];
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
          // Another cell wants the first ones again.
          if (i + kAhead < kOwnEntries) load_entry(key_rows, set, i + kAhead);
          else if (cell + 1 < kCells) load_entry(key_rows, set, i + kAhead - kOwnEntries);
        }
      }
    }
  }

  /// The scores of this lane's token: each group's code looked up once.
  VQCC_DEVICE void add_up(const uint32 (&codes)[kSets][kSetWords], const TableRegion& tables, uint8* /*scratch*/,
                          float (&scores)[kRows]) const {
#pragma unroll
    for (int cell = 0; cell < kCells; ++cell) {
      typename LookUps::Sums sums;
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        LookUps::template add<1, Keys::kSetGroups>(tables.base, tables.region + cell * kCellRegions + set / LookUps::kSets,
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
        find_score_scale<kTogether>(largest_of_warp(largest) * bound, scales[r], unscale_[r]);
      }
    }
  }

  /// Starts to load entry number `own` of this warp's.
  VQCC_DEVICE void load_entry(const uint8* key_rows, int set, int own) {
    const int e = own * kWarps + warp_index();
    if (Rows::kRows % kWarps != 0 && e >= Rows::kRows) return;
    const int group = group_of(set);
    const int offset = Rows::offset_of(group % Rows::kTeamLanes, group / Rows::kTeamLanes) + e * Rows::kRowBytes;
    Rows::template load_from<Space::kGlobal>(key_rows + offset, entries_[set][own % kAhead]);
  }

  /// The channel group of a set that this lane makes scores of.
  VQCC_DEVICE static int group_of(int set) { return (set * kWarpSize + computed_anew(lane_index())) % Keys::kGroups; }

  float unscale_[kRows];
  uint32 entries_[kSets][kAhead][Rows::kPairs];
};

}  // namespace vqcc
