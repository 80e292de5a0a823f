// Codebooks as the search for nearest entries reads them: by sheets, from shared memory where they fit.
#pragma once

#include "../elements.cuh"

namespace vqcc {

/// The sheets that tensor cores take a codebook in: as many entries as 8 multiplies have rows for, or 4 deep ones. Rows of
/// operand A are 16 bytes of the book as it is stored (32 of vectors of 16), so kSpan entries side by side.
template <class Algorithm>
struct EntrySheets {
  static constexpr int kWidth = Algorithm::kEntryStride;
  static constexpr int kDepth = kWidth > 8 ? 16 : 8;  // of a multiply
  static constexpr int kSpan = kWidth < 8 ? 8 / kWidth : 1;
  static constexpr int kMultiplies = smaller(kWidth > 8 ? 4 : 8, ceil_divide(Algorithm::kEntries, 16 * kSpan));
  static constexpr int kEntries = kMultiplies * 16 * kSpan;  // of a sheet
  static constexpr int kCount = ceil_divide(Algorithm::kEntries, kEntries);
  static constexpr bool kRagged = kCount * kEntries != Algorithm::kEntries;  // the last has rows without entries

  /// The squares of the lengths of kCountOf entries that lie together.
  template <int kCountOf>
  VQCC_DEVICE static void squares(const float (&elements)[kCountOf * kWidth], float (&sums)[kCountOf]) {
#pragma unroll
    for (int i = 0; i < kCountOf; ++i) {
      sums[i] = 0.0f;
#pragma unroll
      for (int c = 0; c < Algorithm::kVectorSize; ++c) {
        const float element = elements[i * kWidth + c];
        sums[i] = fused_multiply_add(element, element, sums[i]);
      }
    }
  }
};

/// A stage's entries, in kSpace. In shared memory they have their squares with them; those in global memory are read a sheet
/// at a time, for each tile of vectors.
template <Space kSpace>
struct StageEntries {
  const uint8* entries;
  const float* squares;
};

/// kBooks books that lie together, as a block has them in shared memory: as they are stored, and then the squares of their
/// entries. A thread brings whole entries.
template <class Algorithm, int kBooks, int kThreads>
class StagedBooks {
  using Sheets = EntrySheets<Algorithm>;
  static constexpr int kStages = Algorithm::kResiduals;
  static constexpr int kEntries = kBooks * kStages * Algorithm::kEntries;
  static constexpr int kEntriesBytes = kBooks * Algorithm::kTableBytes;
  static constexpr int kPieceEntries = Sheets::kSpan;
  static constexpr int kPieceElements = kPieceEntries * Sheets::kWidth;
  using Piece = Elements<Algorithm::kEntryType, kPieceElements, 16>;
  static constexpr int kPieces = kEntriesBytes / Piece::kBytes;
  static constexpr int kOwnPieces = ceil_divide(kPieces, kThreads);

 public:
  static constexpr int kBytes = kEntriesBytes + kEntries * 4;
  /// Whether there is room, and tensor cores can load the sheets: whole ones, four matrices at a time.
  static constexpr bool kPossible = !Sheets::kRagged && Sheets::kMultiplies % 2 == 0 && kBytes <= 24 * 1024;

  /// A thread's pieces, on their way.
  VQCC_DEVICE explicit StagedBooks(const uint8* books) {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      if (has(i)) pieces_[i] = Piece::template load_from<Space::kGlobal>(books + piece_of(i) * Piece::kBytes);
    }
  }

  /// Puts them in place: all may read them when the block has met.
  VQCC_DEVICE void store_to(uint8* shared) const {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      if (!has(i)) break;
#pragma unroll
      for (int w = 0; w < Piece::kBytes / 16; ++w) {
        const uint32* own = pieces_[i].registers + w * 4;
        uint4* place = reinterpret_cast<uint4*>(shared + piece_of(i) * Piece::kBytes) + w;
        store(place, from_registers({own[0], own[1], own[2], own[3]}));
      }
      float elements[kPieceElements];
      float squares[kPieceEntries];
      pieces_[i].to_float(elements);
      Sheets::template squares<kPieceEntries>(elements, squares);
#pragma unroll
      for (int e = 0; e < kPieceEntries; ++e) {
        reinterpret_cast<float*>(shared + kEntriesBytes)[piece_of(i) * kPieceEntries + e] = squares[e];
      }
    }
  }

  /// The entries of a stage of book `book`.
  VQCC_DEVICE static StageEntries<Space::kShared> stage(const uint8* shared, int book, int stage) {
    const float* squares = reinterpret_cast<const float*>(shared + kEntriesBytes);
    const int number = book * kStages + stage;
    return {shared + number * Algorithm::kStageBytes, squares + number * Algorithm::kEntries};
  }

 private:
  VQCC_DEVICE static int piece_of(int i) { return i * kThreads + static_cast<int>(threadIdx.x); }
  VQCC_DEVICE static bool has(int i) { return kPieces % kThreads == 0 || piece_of(i) < kPieces; }

  Piece pieces_[kOwnPieces];
};

}  // namespace vqcc
