// The entries of a codebook that are nearest to some vectors: tensor cores find the few that may be, exact distances decide.
#pragma once

#include "entry_sheets.cuh"

namespace vqcc {

/// Finds the nearest entries to up to kVectors vectors, by a warp: those of the least squared distance in float32, each
/// difference, square and sum rounded, ties going to the lower entry. Entry 0 where no distance is finite.
///
/// The score of an entry e for a vector x is |e|^2 - 2 x e: their squared distance, less |x|^2. Tensor cores give the scores
/// of a sheet of entries for a tile of vectors at a time: column v * kSpan + s of operand B is -2 x of vector v at the place
/// of the s-th of a row's entries, else zero. Only entries whose score is below a threshold can be the nearest. If that is
/// one, it is; else the distances of all of them are compared.
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
  using Stage = StageEntries<kSpace>;
  static constexpr ElementType kType = Algorithm::kEntryType;
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kWidth = Sheets::kWidth;
  static constexpr int kDepth = Sheets::kDepth;
  static constexpr int kSpan = Sheets::kSpan;
  static constexpr int kMultiplies = Sheets::kMultiplies;
  static constexpr bool kInShared = kSpace == Space::kShared;
  static constexpr int kTile = 8 / kSpan;          // vectors
  static constexpr int kOwn = kSpan == 1 ? 2 : 1;  // vectors of a tile that a lane has scores of
  static constexpr int kScores = kMultiplies * 4 / kOwn;  // of a lane, for each of its vectors
  static constexpr int kChains = smaller(4, kScores);     // of operations that wait for one another
  static constexpr int kStored = ceil_divide(kVectors, kTile) * kTile;
  static constexpr int kPairs = ceil_divide(kWidth, 2);
  /// Differences of stages, and float16 as a sum of bfloat16, take two parts.
  static constexpr int kParts = Algorithm::kResiduals > 1 || (kType != kElement && kType == ElementType::kBfloat16) ? 2 : 1;
  static constexpr float kError = static_cast<float>(kVectorSize + 2 * (kDepth + 2) * kParts + 4) * 0x1p-24f;
  static constexpr float kHuge = 0x1p100f;
  static_assert(kType == ElementType::kFloat16 || kType == ElementType::kBfloat16, "tensor cores multiply entries");
  static_assert(kWidth <= 16 && kStored <= kWarpSize, "a vector is a lane's");
  static_assert(!kInShared || (!Sheets::kRagged && kMultiplies % 2 == 0), "matrices are whole, and loaded by fours");

  static constexpr int kSquaresBytes = kInShared ? 0 : Sheets::kEntries * 4;
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
        const uint32 pair = to_pair(make_float2(left[2 * p], left[2 * p + 1]));
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
    limits_[lane_index()] = square < kHuge ? limit : infinity();
  }

  /// Hands the code of each vector v in `wanted` to found(v, code), in one lane; every lane calls it.
  template <class Found>
  VQCC_DEVICE void find(const Stage& stage, uint32 wanted, const Found& found) const {
    Sheet sheet;
    if constexpr (Sheets::kCount == 1) load_sheet(stage, 0, sheet);
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

  /// A lane's part of a sheet's operands A, and the squares of its entries: they begin the sums of each tile, and have no
  /// registers in between.
  struct Sheet {
    uint32 words[kMultiplies][kDepth / 4];
    const float* squares;
  };
  using Sums = float[kMultiplies][4];

  VQCC_DEVICE static uint32 to_pair(float2 values) {
    return kType == ElementType::kFloat16 ? to_float16_pair(values) : to_bfloat16_pair(values);
  }
  VQCC_DEVICE static float2 of_pair(uint32 pair) {
    return kType == ElementType::kFloat16 ? float16_pair(pair) : bfloat16_pair(pair);
  }

  VQCC_DEVICE static int row() { return static_cast<int>(threadIdx.x % kWarpSize / 4); }
  VQCC_DEVICE static int member() { return static_cast<int>(threadIdx.x % 4); }
  /// The vector of the tile that own scores are for; of a row's entries those from first_of_span() on.
  VQCC_DEVICE static int own_vector(int own) { return kOwn == 2 ? 2 * member() + own : 2 * member() / kSpan; }
  VQCC_DEVICE static int first_of_span() { return 2 * member() % kSpan; }
  /// Lanes that differ in these bits only have scores for the same vector.
  static constexpr int kSharing = 28 | (kSpan >= 4 ? 1 : 0) | (kSpan >= 8 ? 2 : 0);
  VQCC_DEVICE static uint32 sharing_lanes() {
    constexpr uint32 kFirst = kSpan >= 8 ? 0xffffffffu : kSpan >= 4 ? 0x33333333u : 0x11111111u;
    return kFirst << (threadIdx.x % kWarpSize & ~static_cast<uint32>(kSharing));
  }

  /// Entry of a lane's score `score` in sheet `sheet`.
  VQCC_DEVICE static uint32 entry_of(int sheet, int score) {
    const int in_sheet = kOwn == 1 ? (score / 2 * 8 + row()) * kSpan + first_of_span() + score % 2 : score * 8 + row();
    return static_cast<uint32>(sheet * Sheets::kEntries + in_sheet);
  }
  VQCC_DEVICE static float score_of(const Sums& sums, int own, int score) {
    return kOwn == 1 ? sums[score / 4][score % 4] : sums[score / 2][score % 2 * 2 + own];
  }
  VQCC_DEVICE static bool has(uint32 entry) { return !Sheets::kRagged || entry < Algorithm::kEntries; }
  VQCC_DEVICE static typename Algorithm::Entry load_entry(const Stage& stage, uint32 entry) {
    return Algorithm::Entry::template load_from<kSpace>(stage.entries + entry * static_cast<uint32>(Algorithm::kEntryBytes));
  }

  VQCC_DEVICE void load_sheet(const Stage& stage, int number, Sheet& sheet) const {
    load_words(stage, number, sheet.words);
    sheet.squares = squares_of(stage, number) + row() * kSpan + first_of_span();
  }

  VQCC_DEVICE static void load_words(const Stage& stage, int sheet, uint32 (&words)[kMultiplies][kDepth / 4]) {
    constexpr int kRowBytes = kDepth * 2;
    constexpr int kOfMultiply = kDepth / 4;
    if constexpr (kInShared) {
#pragma unroll
      for (int i = 0; i < kMultiplies * kOfMultiply; i += 4) {
        const int own = i + static_cast<int>(threadIdx.x % kWarpSize / 8);  // the matrix that a row is named of
        const int row = (sheet * kMultiplies + own / kOfMultiply) * 16 + own % 2 * 8 + static_cast<int>(threadIdx.x % 8);
        uint32 matrices[4];
        load_matrices(matrices, stage.entries + row * kRowBytes + own % kOfMultiply / 2 * 16);
#pragma unroll
        for (int j = 0; j < 4; ++j) words[(i + j) / kOfMultiply][(i + j) % kOfMultiply] = matrices[j];
      }
    } else {
#pragma unroll
      for (int i = 0; i < kMultiplies * kOfMultiply; ++i) {
        const int own_row = (sheet * kMultiplies + i / kOfMultiply) * 16 + i % 2 * 8 + row();
        const int offset = own_row * kRowBytes + i % kOfMultiply / 2 * 16 + member() * 4;
        const uint32* word = reinterpret_cast<const uint32*>(stage.entries + offset);
        const bool present = !Sheets::kRagged || offset < Algorithm::kStageBytes;
        words[i / kOfMultiply][i % kOfMultiply] = present ? load<Space::kGlobal>(word) : 0u;
      }
    }
  }

  /// The squares of a sheet's entries; those in global memory are computed here, for all lanes.
  VQCC_DEVICE const float* squares_of(const Stage& stage, int sheet) const {
    if constexpr (kInShared) return stage.squares + sheet * Sheets::kEntries;
    warp_barrier();  // those of the sheet before have been read
    for (int i = lane_index(); i < Sheets::kEntries; i += kWarpSize) {
      const uint32 entry = static_cast<uint32>(sheet * Sheets::kEntries + i);
      float values[kWidth];
      float square[1];
      load_entry(stage, has(entry) ? entry : 0).to_float(values);
      Sheets::template squares<1>(values, square);
      squares_[i] = has(entry) ? square[0] : infinity();
    }
    warp_barrier();
    return squares_;
  }

  /// This lane's part of operand B: a column's vector, at the place of one of a row's entries.
  VQCC_DEVICE void read_vectors(int tile, int part, uint32 (&b)[kDepth / 8]) const {
    const int span = row() % kSpan;
    const uint32* pairs = pairs_ + (part * kStored + tile * kTile + row() / kSpan) * kPairs;
#pragma unroll
    for (int i = 0; i < kDepth / 8; ++i) {
      const uint32 pair = pairs[(member() + i * 4) % kPairs];
      if constexpr (kWidth == 1) {
        b[i] = span / 2 == member() ? span % 2 == 0 ? pair & 0xffffu : pair << 16 : 0u;
      } else b[i] = kSpan == 1 || span == 2 * member() / kWidth ? pair : 0u;
    }
  }

  VQCC_DEVICE static void multiply(const Sheet& sheet, const uint32 (&b)[kParts][kDepth / 8], Sums& sums) {
#pragma unroll
    for (int m = 0; m < kMultiplies; ++m) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {  // rows 0 to 7 and 8 to 15
        const float* squares = sheet.squares + (m * 16 + i * 4) * kSpan;
        if constexpr (kSpan > 1) {
          const float2 both = load<Space::kShared>(reinterpret_cast<const float2*>(squares));
          sums[m][i] = both.x;
          sums[m][i + 1] = both.y;
        } else sums[m][i] = sums[m][i + 1] = *squares;
      }
#pragma unroll
      for (int part = 0; part < kParts; ++part) multiply_fragments<kType>(sums[m], sheet.words[m], b[part]);
    }
  }

  /// The least score of an own vector, of all lanes'.
  VQCC_DEVICE static float least_score(const Sums& sums, int own) {
    float chains[kChains];
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const float score = score_of(sums, own, i);
      chains[i % kChains] = i < kChains ? score : lesser(chains[i % kChains], score);
    }
    float least = chains[0];
#pragma unroll
    for (int i = 1; i < kChains; ++i) least = lesser(least, chains[i]);
#pragma unroll
    for (int mask = 1; mask < kWarpSize; mask *= 2) {
      if ((kSharing & mask) != 0) least = lesser(least, exchange_xor(least, mask));
    }
    return least;
  }

  /// A bit for each own score that may be the nearest entry's, score 0 above all others.
  VQCC_DEVICE static uint32 candidates_of(const Sums& sums, int own, float threshold) {
    uint32 chains[kChains] = {~0u};
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      uint32& chain = chains[i / (kScores / kChains)];
      chain = shift_in_sign(chain, threshold - score_of(sums, own, i));
    }
    uint32 above = chains[0];
#pragma unroll
    for (int i = 1; i < kChains; ++i) above = (above << kScores / kChains) + chains[i];
    return threshold < kHuge ? ~above : ~0u >> (32 - kScores);
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
    uint32 b[kParts][kDepth / 8];
#pragma unroll
    for (int part = 0; part < kParts; ++part) read_vectors(tile, part, b[part]);
    Nearest nearest[kOwn];
#pragma unroll 1
    for (int i = 0; i < Sheets::kCount; ++i) {
      if constexpr (Sheets::kCount > 1) load_sheet(stage, i, sheet);
      Sums sums;
      multiply(sheet, b, sums);
      uint32 candidates[kOwn];
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        const float least = least_score(sums, own);
        nearest[own].score = Sheets::kCount == 1 ? least : lesser(nearest[own].score, least);
        const float limit = limits_[tile * kTile + own_vector(own)];
        const float threshold = nearest[own].score + fused_multiply_add(10.0f * kError, nearest[own].score, limit);
        candidates[own] = candidates_of(sums, own, threshold);
      }
      if (Sheets::kCount == 1 && hand_out_only_ones(candidates, tile, found)) return;
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        compare(stage, i, candidates[own], tile * kTile + own_vector(own), nearest[own]);
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
      const uint32 lanes = lanes_where(candidates[own] != 0) & sharing_lanes();
      only = only && (lanes & (lanes - 1)) == 0 && (candidates[own] & (candidates[own] - 1)) == 0;
    }
    if (any_lane(!only)) return false;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int score = leading_zeros(candidates[own]) - (32 - kScores);
      if (candidates[own] != 0) found(tile * kTile + own_vector(own), entry_of(0, score));
    }
    return true;
  }

  /// Compares an own vector with this lane's candidates.
  VQCC_DEVICE void compare(const Stage& stage, int sheet, uint32 candidates, int vector, Nearest& nearest) const {
    while (candidates != 0) {
      const int zeros = leading_zeros(candidates);
      candidates &= ~(0x80000000u >> zeros);
      const uint32 entry = entry_of(sheet, zeros - (32 - kScores));
      if (has(entry)) nearest.meet(distance_to(load_entry(stage, entry), channels_ + vector * kVectorSize), entry);
    }
  }

  /// The squared distance, each difference, square and sum rounded: what NumPy gives in float32.
  VQCC_DEVICE static float distance_to(const typename Algorithm::Entry& entry, const float* vector) {
    float values[kWidth];
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
        if ((kSharing & mask) == 0) continue;
        const float other = exchange_xor(nearest[own].distance, mask);
        nearest[own].meet(other, exchange_xor(nearest[own].code, mask));
      }
      if ((lane_index() & kSharing) == 0) found(tile * kTile + own_vector(own), nearest[own].code);
    }
  }
};

}  // namespace vqcc
