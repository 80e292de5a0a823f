// The codebook cache (VQ-LLM, Sec. V): Load, Access and Switch. Of table t, entries [0, register_entries(t)) are in
// registers, those up to kSharedEntries in shared memory and the rest in global memory. Entries are in the order of
// their frequency if the plan has a profile, so an entry's number says where it is.
#pragma once

#include "elements.cuh"

namespace vqcc {

/// Where a block finds the books of the column tiles and stages it is working on.
///
/// `Tile` names kSharedEntries, kCopies, kSharedBookBytes, kResidentTiles, kSplitStages, register_entries(table) and the
/// most of these, kRegisterEntries. A book has one table per residual stage, or one that its stages share
/// (Algorithm::kStagesShareTable), and possibly one of constants (Algorithm::kConstantEntries), cached whenever any entry
/// is. The kCopies copies of an entry are neighbours, and lane l looks up copy l % kCopies: with 128 bytes of copies,
/// lanes of one wavefront never meet in a bank.
template <class Algorithm, class Tile, int kThreads>
class CodebookCache {
  using Entry = typename Algorithm::Entry;

  static constexpr int kStages = Algorithm::kResiduals / Tile::kSplitStages;
  static constexpr int kTables = Algorithm::kStagesShareTable ? 1 : kStages;
  static constexpr int kRegisters = Tile::kRegisterEntries;
  static constexpr int kShared = Tile::kSharedEntries;
  static constexpr int kCopies = Tile::kCopies;
  static constexpr int kEntryBytes = Algorithm::kEntryBytes;
  static constexpr bool kAllShared = kShared == Algorithm::kTableEntries;
  static constexpr int kSlotBytes = kCopies * kEntryBytes;
  static constexpr int kSharedTableBytes = kShared * kSlotBytes;
  static constexpr int kConstantBytes = kShared > 0 ? Algorithm::kConstantEntries * kSlotBytes : 0;
  static_assert(kRegisters == 0 || Tile::kResidentTiles == 1, "registers hold entries of one book");
  static_assert(kRegisters <= kShared || kShared == 0, "register entries are the first of the shared ones");
  static_assert(kCopies == 1 || kSlotBytes % 16 == 0, "copies fill whole words");

 public:
  /// `books` are all tables of the matrix, one book after another; `shared` has room for the resident ones.
  VQCC_DEVICE CodebookCache(const uint8* books, const float* stage_scales, uint8* shared)
      : books_(books), stage_scales_(stage_scales), shared_(shared), own_copy_(lane_index() % kCopies * kEntryBytes) {}

  /// Switch: makes `count` books from `first_book` on, and their stages from `first_stage` on, the ones that `access`
  /// finds. Every thread of the block calls it.
  VQCC_DEVICE void switch_to(int first_book, int first_stage, int count) {
    if (first_book == first_book_ && first_stage == first_stage_) return;  // one book for all: it is loaded once
    const bool reload = first_book_ >= 0;
    first_book_ = first_book;
    first_stage_ = first_stage;
    if constexpr (kShared > 0) {
      if (reload) block_barrier();  // the entries being replaced have been read
      load_shared(count);
      block_barrier();
    }
    if constexpr (kRegisters > 0) load_registers();
  }

  /// The books have been overwritten: the next switch loads them again.
  VQCC_DEVICE void forget() { first_book_ = -1; }

  /// Access: entry `index` of stage `stage` (counted from the block's first; constant once loops are unrolled) in
  /// resident book `book`.
  VQCC_DEVICE Entry access(int book, int stage, uint32 index) const {
    const int table = Algorithm::kStagesShareTable ? 0 : stage;
    const int held = Tile::register_entries(table);
    Entry entry = {};
    if (held == 0 || index >= static_cast<uint32>(held)) {
      if (kAllShared || (kShared > 0 && index < static_cast<uint32>(kShared))) {
        entry = shared_entry(book, table * kSharedTableBytes, index);
      } else {
        entry = Entry::template load_from<Space::kGlobal>(table_of(book, table) + index * static_cast<uint32>(kEntryBytes));
      }
    }
    if constexpr (kRegisters > 0) {
#pragma unroll
      for (int i = 0; i < kRegisters; ++i) {
        if (i < held && index == static_cast<uint32>(i)) entry = hot_[table][i];
      }
    }
    return entry;
  }

  /// Constant `index` of resident book `book`.
  VQCC_DEVICE Entry constant(int book, uint32 index) const {
    if constexpr (kShared > 0) return shared_entry(book, kTables * kSharedTableBytes, index);
    return Entry::template load_from<Space::kGlobal>(constants_of(book) + index * static_cast<uint32>(kEntryBytes));
  }

  /// The number of the stage that `access` calls `stage`.
  VQCC_DEVICE int stage_number(int stage) const { return Tile::kSplitStages == 1 ? stage : first_stage_ + stage; }

  /// The fp32 factor of an int8 book's stage.
  VQCC_DEVICE float stage_scale(int book, int stage) const {
    return load<Space::kGlobal>(stage_scales_ + (first_book_ + book) * Algorithm::kResiduals + stage_number(stage));
  }

 private:
  VQCC_DEVICE Entry shared_entry(int book, int table_offset, uint32 index) const {
    return Entry::template load_from<Space::kShared>(
        shared_ + (book * Tile::kSharedBookBytes + table_offset + own_copy_ + index * static_cast<uint32>(kSlotBytes)));
  }

  VQCC_DEVICE const uint8* table_of(int book, int table) const {
    return books_ + static_cast<int64>(first_book_ + book) * Algorithm::kTableBytes +
           (Algorithm::kStagesShareTable ? 0 : stage_number(table)) * Algorithm::kStageBytes;
  }

  VQCC_DEVICE const uint8* constants_of(int book) const {
    return books_ + static_cast<int64>(first_book_ + book) * Algorithm::kTableBytes +
           Algorithm::kTableBytes - Algorithm::kConstantEntries * kEntryBytes;
  }

  /// Load, shared part. Whole single books are copied at once; else one table at a time.
  VQCC_DEVICE void load_shared(int count) const {
    if constexpr (kCopies == 1 && kAllShared && Tile::kSharedBookBytes == Algorithm::kTableBytes) {
      load_runs<Algorithm::kTableBytes, 1>(count, [this](int book, int) { return table_of(book, 0); });
    } else {
      load_runs<kSharedTableBytes, kTables>(count, [this](int book, int table) { return table_of(book, table); });
      if constexpr (kConstantBytes > 0) {
        load_runs<kConstantBytes, 1, kTables * kSharedTableBytes>(
            count, [this](int book, int) { return constants_of(book); });
      }
    }
  }

  /// Fills kRuns runs of kBytes each of `count` resident books, kCopies of every entry, from `source_of(book, run)`.
  template <int kBytes, int kRuns, int kOffset = 0, class Source>
  VQCC_DEVICE void load_runs(int count, Source source_of) const {
    static_assert(kBytes % 16 == 0, "tables are copied by 16-byte words");
    constexpr int kWords = kBytes / 16;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < count * kRuns * kWords; i += kThreads) {
      const int word = i % kWords;
      const int run = i / kWords % kRuns;
      const int book = i / kWords / kRuns;
      uint8* target = shared_ + book * Tile::kSharedBookBytes + kOffset + run * kBytes + word * 16;
      *reinterpret_cast<uint4*>(target) = copied_word(source_of(book, run), word);
    }
  }

  /// Word `word` of kCopies-fold entries made from those at `source`.
  VQCC_DEVICE static uint4 copied_word(const uint8* source, int word) {
    if constexpr (kCopies == 1) {
      return load<Space::kGlobal>(reinterpret_cast<const uint4*>(source) + word);
    } else if constexpr (kEntryBytes >= 16) {
      constexpr int kEntryWords = kEntryBytes / 16;
      const int entry = word / (kCopies * kEntryWords);
      return load<Space::kGlobal>(reinterpret_cast<const uint4*>(source) + entry * kEntryWords + word % kEntryWords);
    } else if constexpr (kEntryBytes == 8) {
      const uint2 entry = load<Space::kGlobal>(reinterpret_cast<const uint2*>(source) + word / (kCopies / 2));
      return make_uint4(entry.x, entry.y, entry.x, entry.y);
    } else {
      static_assert(kEntryBytes >= 4, "entries of less than a bank have no copies of their own");
      const uint32 entry = load<Space::kGlobal>(reinterpret_cast<const uint32*>(source) + word / (kCopies / 4));
      return make_uint4(entry, entry, entry, entry);
    }
  }

  /// Load, register part: every thread holds the hot entries.
  VQCC_DEVICE void load_registers() {
#pragma unroll
    for (int table = 0; table < kTables; ++table) {
#pragma unroll
      for (int i = 0; i < kRegisters; ++i) {
        if (i >= Tile::register_entries(table)) continue;
        hot_[table][i] = Entry::template load_from<Space::kGlobal>(table_of(0, table) + i * kEntryBytes);
      }
    }
  }

  const uint8* books_;
  const float* stage_scales_;
  uint8* shared_;
  int own_copy_;  // byte offset of the copy that this lane looks up
  int first_book_ = -1;
  int first_stage_ = 0;
  Entry hot_[kTables][kRegisters > 0 ? kRegisters : 1];
};

}  // namespace vqcc
