// Codebooks for those who decode once and have time: one copy, in shared memory where there is room.
#pragma once

#include "../elements.cuh"
#include "../unpack.cuh"

namespace vqcc {

/// The books of kQuadTiles neighbouring column tiles, of which lane l looks up number l % kQuadTiles: in shared memory, where
/// Tile::kSharedBooks says so, else where they are in global memory, through L1. A book is as packed; lanes meet in banks.
template <class Algorithm, class Tile, int kThreads>
class DenseBooks {
  using Entry = typename Algorithm::Entry;

  static constexpr bool kShared = Tile::kSharedBooks;
  static constexpr Space kSpace = kShared ? Space::kShared : Space::kGlobal;
  static constexpr int kBookBytes = Algorithm::kTableBytes;
  static constexpr int kQuadTiles = Tile::kQuadTiles;
  static constexpr int kCopyBytes = 16;
  static_assert(kBookBytes % kCopyBytes == 0, "books are copied by whole words");

 public:
  static constexpr int kBytes = kShared ? kQuadTiles * kBookBytes : 0;

  VQCC_DEVICE DenseBooks(const uint8* books, const float* stage_scales, uint8* shared)
      : books_(books), stage_scales_(stage_scales), shared_(shared) {}

  /// Takes books `book_of(t)` for lanes that look up tile t of a quad's. All threads of the kThreads call it, with barriers
  /// before, past which nobody looks up others, and after; `thread` is this one's number among them.
  template <class BookOf>
  VQCC_DEVICE void use(int thread, const BookOf& book_of) {
    const int tile = lane_index() % kQuadTiles;
    book_ = book_of(tile);
    own_ = kShared ? shared_ + tile * kBookBytes : books_ + static_cast<int64>(book_) * kBookBytes;
    if constexpr (kShared) {
      constexpr int kBookCopies = kBookBytes / kCopyBytes;
      for (int i = thread; i < kQuadTiles * kBookCopies; i += kThreads) {
        const uint8* source = books_ + static_cast<int64>(book_of(i / kBookCopies)) * kBookBytes;
        start_copy<kCopyBytes>(shared_ + i * kCopyBytes, source + i % kBookCopies * kCopyBytes, true);
      }
      wait_for_copies();
    }
  }

  /// The entry of stage `stage` that a code stands for. `book` is 0: a lane has one at a time.
  template <class Code>
  VQCC_DEVICE Entry access(int /*book*/, int stage, const Code& code) const {
    return entry_at(Algorithm::kStagesShareTable ? 0 : stage, code);
  }

  /// Likewise of the table of constants.
  template <class Code>
  VQCC_DEVICE Entry constant(int /*book*/, const Code& code) const {
    return entry_at(Algorithm::kStagesShareTable ? 1 : Algorithm::kResiduals, code);
  }

  VQCC_DEVICE float stage_scale(int /*book*/, int stage) const {
    return load<Space::kGlobal>(stage_scales_ + book_ * Algorithm::kResiduals + stage);
  }

  VQCC_DEVICE static int stage_number(int stage) { return stage; }

 private:
  VQCC_DEVICE Entry entry_at(int table, const PackedCode& code) const { return entry_at(table, code.value()); }
  VQCC_DEVICE Entry entry_at(int table, uint32 code) const {
    const int offset = table * Algorithm::kStageBytes + static_cast<int>(code) * Algorithm::kEntryBytes;
    return Entry::template load_from<kSpace>(own_ + offset);
  }

  const uint8* books_;
  const float* stage_scales_;
  uint8* shared_;
  const uint8* own_ = nullptr;
  int book_ = 0;
};

}  // namespace vqcc
