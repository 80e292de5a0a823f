// The entries of a codebook that are nearest to some vectors: tensor cores find the few that may be, exact distances decide.
#pragma once

#include "tile_scores.cuh"

namespace vqcc {

/// Finds the nearest entries to up to kVectors vectors, by a warp: those of the least squared distance in float32, each
/// difference, square and sum rounded, ties going to the lower entry. Entry 0 where no distance is finite.
///
/// The score of an entry e for a vector x is |e|^2 - 2 x e: their squared distance, less |x|^2. Tensor cores give the scores
/// of a sheet of entries for a tile of vectors at a time. Only entries whose score is not above a threshold can be the
/// nearest. If that is one, it is; else the distances of all of them are compared.
///
/// Why no other entry can be. u = 2^-24, n channels, y = |x|, T(e) the true squared distance. 2 x goes to the tensor cores
/// as a sum of kParts 16-bit values, and r is the length of what is then left. Of a multiply's k + 1 terms each is cut off
/// at 2 u of the largest, and so is their sum; subnormal numbers count in full. So a score is off by at most
///     eps (|e|^2 + 2 y |e|) + r |e|,    eps = (n + 2 (k + 2) kParts + 4) u,
/// and a float32 distance by at most (n + 2) u T. Let m be the entry of the least score s, and e one whose distance is
/// no larger. Then T(e) <= T (1 + 2 (n + 3) u) with T = T(m), so |e| and |m| are at most y + sqrt(T), up to a factor next to
/// one, and, as 2 r a <= r^2 / eps + eps a^2,
///     score(e) - s <= 2 (n + 3) u T + 2 eps (2 y + sqrt(T))^2 + 2 r (y + sqrt(T))
///                  <= 18 eps y^2 + 6.8 eps T + 2 r^2 / eps,    T <= s + y^2 + (the same, below (y^2 + T) 2^-15)
///                  <= 25 eps y^2 + 6.8 eps s + 2.1 r^2 / eps.
/// The threshold allows 40 eps y^2 + 10 eps s + 3 r^2 / eps + 2^-99, the latter for what underflows; s is at least -y^2.
/// Where numbers are so large that anything may overflow, or are none, all entries are compared.
template <class Algorithm, ElementType kElement, int kVectors, Space kSpace>
class NearestEntries {
  using Sheets = EntrySheets<Algorithm>;
  using Scores = TileScores<Algorithm, kSpace>;
  using Sheet = typename Scores::Sheet;
  using Stage = StageEntries<kSpace>;
  static constexpr ElementType kType = Algorithm::kEntryType;
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kTile = Scores::kTile;
  static constexpr int kOwn = Scores::kOwn;
  static constexpr int kPairs = Scores::kPairs;
  static constexpr int kStored = ceil_divide(kVectors, kTile) * kTile;
  /// Differences of stages, and float16 as a sum of bfloat16, take two parts.
  static constexpr int kParts = Algorithm::kResiduals > 1 || (kType != kElement && kType == ElementType::kBfloat16) ? 2 : 1;
  static constexpr float kError = static_cast<float>(kVectorSize + 2 * (Sheets::kDepth + 2) * kParts + 4) * 0x1p-24f;
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "tensor cores multiply entries");
  static_assert(kStored <= kWarpSize, "a vector is a lane's");

  static constexpr int kSquaresBytes = kSpace == Space::kShared ? 0 : Sheets::kEntries * 4;
  static constexpr int kChannelsBytes = kStored * kVectorSize * 4;
  static constexpr int kPairsBytes = kParts * kStored * kPairs * 4;

 public:
  static constexpr int kScratchBytes = ceil_divide(kSquaresBytes + kChannelsBytes + kPairsBytes + kStored * 4, 16) * 16;

  VQCC_DEVICE explicit NearestEntries(uint8* scratch)
      : squares_(reinterpret_cast<float*>(scratch)),
        channels_(reinterpret_cast<float*>(scratch + kSquaresBytes)),
        pairs_(reinterpret_cast<uint32*>(scratch + kSquaresBytes + kChannelsBytes)),
        limits_(reinterpret_cast<float*>(scratch + kSquaresBytes + kChannelsBytes + kPairsBytes)) {}

  /// Lane l gives vector l; each lane calls it, and find() is for all the vectors that were given last.
  VQCC_DEVICE void take(const float (&vector)[kVectorSize]) const {
    warp_barrier();  // the vectors before have been read
    if (lane_index() >= kStored) return;
    float left[2 * kPairs] = {};
    float square = 0.0f;
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) {
      channels_[lane_index() * kVectorSize + c] = vector[c];
      left[c] = -2.0f * vector[c];
      square = fused_multiply_add(vector[c], vector[c], square);
    }
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const uint32 pair = round_pair<kType>(make_float2(left[2 * p], left[2 * p + 1]));
        const float2 taken = of_pair(pair);
        pairs_[(part * kStored + lane_index()) * kPairs + p] = pair;
        left[2 * p] -= taken.x;
        left[2 * p + 1] -= taken.y;
      }
    }
    float left_square = 0.0f;
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) left_square = fused_multiply_add(left[c], left[c], left_square);
    const float limit = fused_multiply_add(40.0f * kError, square, fused_multiply_add(3.0f / kError, left_square, 0x1p-99f));
    limits_[lane_index()] = square < Scores::kHuge ? limit : infinity();
  }

  /// Hands the code of each vector v in `wanted` to found(v, code), in one lane; every lane calls it.
  template <class Found>
  VQCC_DEVICE void find(const Stage& stage, uint32 wanted, const Found& found) const {
    Sheet sheet;
    if constexpr (Sheets::kCount == 1) Scores::load_sheet(stage, 0, squares_, sheet);
    warp_barrier();  // vectors are in shared memory
#pragma unroll 1
    for (int tile = 0; tile < kStored / kTile; ++tile) {
      if ((wanted >> tile * kTile & ((1u << kTile) - 1u)) != 0) search(stage, sheet, tile, found);
    }
  }

 private:
  float* squares_;   // [Sheets::kEntries] of a sheet in global memory
  float* channels_;  // [kStored, kVectorSize]
  uint32* pairs_;    // [kParts, kStored, kPairs] of -2 x
  float* limits_;    // [kStored] by how much a score may be above the least, but for that one's share

  VQCC_DEVICE static float2 of_pair(uint32 pair) {
    return kType == ElementType::kFloat16 ? float16_pair(pair) : bfloat16_pair(pair);
  }

  /// What a lane knows of a vector: the least score so far, and the nearest of the entries that it compared.
  struct Nearest {
    float score = infinity();
    float distance = infinity();
    uint32 code = 0;

    VQCC_DEVICE void meet(float other, uint32 other_code) {
      if (other < distance || (other == distance && other_code < code)) {
        distance = other;
        code = other_code;
      }
    }
  };

  template <class Found>
  VQCC_DEVICE void search(const Stage& stage, Sheet& sheet, int tile, const Found& found) const {
    uint32 b[kParts][Scores::kOperands];
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      Scores::read_vectors(pairs_ + (part * kStored + tile * kTile) * kPairs, b[part]);
    }
    Nearest nearest[kOwn];
#pragma unroll 1
    for (int i = 0; i < Sheets::kCount; ++i) {
      if constexpr (Sheets::kCount > 1) Scores::load_sheet(stage, i, squares_, sheet);
      typename Scores::Sums sums;
      Scores::multiply(sheet, b, sums);
      uint32 candidates[kOwn];
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        const float least = Scores::least_score(sums, own);
        nearest[own].score = Sheets::kCount == 1 ? least : lesser(nearest[own].score, least);
        const float limit = limits_[tile * kTile + Scores::own_vector(own)];
        const float threshold = nearest[own].score + fused_multiply_add(10.0f * kError, nearest[own].score, limit);
        candidates[own] = Scores::candidates_of(sums, own, threshold);
      }
      if (Sheets::kCount == 1 && hand_out_only_ones(candidates, tile, found)) return;
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        compare(stage, i, candidates[own], tile * kTile + Scores::own_vector(own), nearest[own]);
      }
    }
    hand_out(nearest, tile, found);
  }

  /// Whether each vector of the tile has but one candidate, which then is the nearest.
  template <class Found>
  VQCC_DEVICE static bool hand_out_only_ones(const uint32 (&candidates)[kOwn], int tile, const Found& found) {
    bool only = true;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const uint32 lanes = lanes_where(candidates[own] != 0) & Scores::sharing_lanes();
      only = only && (lanes & (lanes - 1)) == 0 && (candidates[own] & (candidates[own] - 1)) == 0;
    }
    if (any_lane(!only)) return false;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const uint32 code = Scores::entry_of(0, Scores::first_of(candidates[own]));
      if (candidates[own] != 0) found(tile * kTile + Scores::own_vector(own), code);
    }
    return true;
  }

  /// Compares an own vector with this lane's candidates.
  VQCC_DEVICE void compare(const Stage& stage, int sheet, uint32 candidates, int vector, Nearest& nearest) const {
    while (candidates != 0) {
      const uint32 entry = Scores::entry_of(sheet, Scores::first_of(candidates));
      candidates &= ~(0x80000000u >> leading_zeros(candidates));
      if (!Scores::has(entry)) continue;
      nearest.meet(distance_to(Scores::load_entry(stage, entry), channels_ + vector * kVectorSize), entry);
    }
  }

  /// The squared distance, each difference, square and sum rounded: what NumPy gives in float32.
  VQCC_DEVICE static float distance_to(const typename Algorithm::Entry& entry, const float* vector) {
    float values[Sheets::kWidth];
    entry.to_float(values);
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) {
      const float difference = vector[c] - values[c];
      sum = rounded_sum(sum, rounded_product(difference, difference));
    }
    return sum;
  }

  /// The nearest of what all lanes have compared.
  template <class Found>
  VQCC_DEVICE static void hand_out(Nearest (&nearest)[kOwn], int tile, const Found& found) {
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
#pragma unroll
      for (int mask = 1; mask < kWarpSize; mask *= 2) {
        if ((Scores::kSharing & mask) == 0) continue;
        const float other = exchange_xor(nearest[own].distance, mask);
        nearest[own].meet(other, exchange_xor(nearest[own].code, mask));
      }
      if ((lane_index() & Scores::kSharing) == 0) found(tile * kTile + Scores::own_vector(own), nearest[own].code);
    }
  }
};

}  // namespace vqcc
