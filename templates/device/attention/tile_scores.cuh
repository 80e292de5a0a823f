// Scores of a sheet of entries for a tile of vectors, by tensor cores, as the lanes of a warp have them.
#pragma once

#include "entry_sheets.cuh"

namespace vqcc {

/// |e|^2 - 2 x e of each entry e of a sheet and each vector x of a tile. Rows of operand A are as EntrySheets has them; column
/// v * kSpan + s of operand B is -2 x of vector v at the place of the s-th of a row's entries, else zero.
template <class Algorithm, Space kSpace>
class TileScores {
  using Sheets = EntrySheets<Algorithm>;
  using Stage = StageEntries<kSpace>;
  static constexpr int kWidth = Sheets::kWidth;
  static constexpr int kDepth = Sheets::kDepth;
  static constexpr int kSpan = Sheets::kSpan;
  static constexpr int kMultiplies = Sheets::kMultiplies;
  static constexpr bool kInShared = kSpace == Space::kShared;
  static_assert(kWidth <= 16, "a row has whole entries");
  static_assert(!kInShared || (!Sheets::kRagged && kMultiplies % 2 == 0), "matrices are whole, and loaded by fours");

 public:
  static constexpr float kHuge = 0x1p100f;
  static constexpr int kTile = 8 / kSpan;                 // vectors
  static constexpr int kPairs = ceil_divide(kWidth, 2);   // of a vector, packed
  static constexpr int kOperands = kDepth / 8;            // of B
  static constexpr int kOwn = kSpan == 1 ? 2 : 1;         // vectors of a tile that a lane has scores of
  static constexpr int kScores = kMultiplies * 4 / kOwn;  // of a lane, for each of its vectors
  static constexpr int kChains = smaller(4, kScores);     // of operations that wait for one another

  /// A lane's part of a sheet's operands A, and the squares of its entries: they begin the sums of each tile, and have no
  /// registers in between.
  struct Sheet {
    uint32 words[kMultiplies][kDepth / 4];
    const float* squares;
  };
  using Sums = float[kMultiplies][4];

  /// Sheet `number` of a stage. The squares of entries in global memory are computed, into `squares`.
  VQCC_DEVICE static void load_sheet(const Stage& stage, int number, float* squares, Sheet& sheet) {
    load_words(stage, number, sheet.words);
    sheet.squares = squares_of(stage, number, squares) + row() * kSpan + first_of_span();
  }

  /// The vector of the tile that own scores are for.
  VQCC_DEVICE static int own_vector(int own) { return kOwn == 2 ? 2 * member() + own : 2 * member() / kSpan; }
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
  VQCC_DEVICE static bool has(uint32 entry) { return !Sheets::kRagged || entry < Algorithm::kEntries; }
  VQCC_DEVICE static typename Algorithm::Entry load_entry(const Stage& stage, uint32 entry) {
    return Algorithm::Entry::template load_from<kSpace>(stage.entries + entry * static_cast<uint32>(Algorithm::kEntryBytes));
  }

  /// This lane's part of operand B, of a tile's vectors in pairs [kTile, kPairs]: a column's vector, at the place of one of a
  /// row's entries.
  VQCC_DEVICE static void read_vectors(const uint32* pairs, uint32 (&b)[kDepth / 8]) {
    const int span = row() % kSpan;
    pairs += row() / kSpan * kPairs;
#pragma unroll
    for (int i = 0; i < kDepth / 8; ++i) {
      const uint32 pair = pairs[(member() + i * 4) % kPairs];
      if constexpr (kWidth == 1) {
        b[i] = span / 2 == member() ? span % 2 == 0 ? pair & 0xffffu : pair << 16 : 0u;
      } else b[i] = kSpan == 1 || span == 2 * member() / kWidth ? pair : 0u;
    }
  }

  /// The scores of a sheet, for vectors of kParts parts.
  template <int kParts>
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
      for (int part = 0; part < kParts; ++part) multiply_fragments<Algorithm::kEntryType>(sums[m], sheet.words[m], b[part]);
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

  /// A bit for each own score that is not above the threshold, score 0 above all others; for all if that is huge or none.
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

  /// Which of the own scores the highest bit of candidates stands for.
  VQCC_DEVICE static int first_of(uint32 candidates) { return leading_zeros(candidates) - (32 - kScores); }

 private:
  VQCC_DEVICE static int row() { return static_cast<int>(threadIdx.x % kWarpSize / 4); }
  VQCC_DEVICE static int member() { return static_cast<int>(threadIdx.x % 4); }
  /// Of a row's entries own scores are for those from here on.
  VQCC_DEVICE static int first_of_span() { return 2 * member() % kSpan; }
  VQCC_DEVICE static float score_of(const Sums& sums, int own, int score) {
    return kOwn == 1 ? sums[score / 4][score % 4] : sums[score / 2][score % 2 * 2 + own];
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

  VQCC_DEVICE static const float* squares_of(const Stage& stage, int sheet, float* squares) {
    if constexpr (kInShared) return stage.squares + sheet * Sheets::kEntries;
    warp_barrier();  // those of the sheet before have been read
    for (int i = lane_index(); i < Sheets::kEntries; i += kWarpSize) {
      const uint32 entry = static_cast<uint32>(sheet * Sheets::kEntries + i);
      float values[kWidth];
      float square[1];
      load_entry(stage, has(entry) ? entry : 0).to_float(values);
      Sheets::template squares<1>(values, square);
      squares[i] = has(entry) ? square[0] : infinity();
    }
    warp_barrier();
    return squares;
  }
};

}  // namespace vqcc
