// How the blocks of a cluster share attention out: each has some neighbouring channel groups of keys and of values, their codes
// and their entries alone, and all tokens; scores are added up through shared memory.
#pragma once

#include "entry_rows.cuh"

namespace vqcc {

/// Keys of one of kBlocks blocks: its channel groups come in sets of up to 32, and a token's codes of a set lie together in
/// its stream, for keys in order and rotated ones alike: rotation moves runs of a power of two groups, and permutes them.
template <class Codes, int kHeadDim, KeyOrder kOrder, int kBlocks>
struct KeyShare {
  using Keys = KeyBlock<Codes, kHeadDim, kOrder>;
  static constexpr int kGroups = Keys::kGroups / kBlocks;
  static constexpr int kSetGroups = smaller(kGroups, Keys::kSetGroups);
  static constexpr int kSets = kGroups / kSetGroups;
  static constexpr int kGroupBits = Codes::kResiduals * Codes::kCodeBits;
  static constexpr int kRunBits = kSetGroups * kGroupBits;
  static constexpr int kWords = ceil_divide(kRunBits, 32);
  /// A run that fills words begins with one, and is read by the widest that both it and the stream's pieces have.
  static constexpr bool kWhole = kRunBits % 32 == 0;
  static constexpr int kPieceWords = Keys::Streams::kPieceWords;
  static constexpr int kLoadWords =
      !kWhole ? 1 : kWords % kPieceWords == 0 ? kPieceWords : smaller(power_of_two_at_most(kWords & -kWords), kPieceWords);
  static_assert(Keys::kGroups % kBlocks == 0 && kGroups > 0, "each block has channel groups");
  static_assert(kOrder != KeyOrder::kFragment, "lanes have tokens");

  /// A token's codes of one set, as CodeChunk has them.
  struct Run {
    static constexpr int kChunkVectors = kSetGroups;
    static constexpr int kChunkWords = kWords;
  };
  using Chunk = CodeChunk<Codes, Run>;

  /// The first group of block `rank`'s set `set`.
  VQCC_HOST_DEVICE static constexpr int first_group(int rank, int set) { return rank * kGroups + set * kSetGroups; }

  /// The group, counted from the set's first, at position `position` of a token's run; the map is its own inverse.
  VQCC_HOST_DEVICE static constexpr int group_of(int position, int token) {
    return Keys::kRotated ? position ^ token % kSetGroups : position;
  }

  /// This lane's token's codes of block `rank`'s set `set`, from a token block's bytes.
  VQCC_DEVICE static Chunk load_from(const uint8* block, int rank, int set) {
    const int group = first_group(rank, set);
    const int turned = Keys::kRotated ? (group ^ lane_index()) % Keys::kSetGroups : group % Keys::kSetGroups;
    const int bit = turned / kSetGroups * kRunBits;
    const uint8* stream = block + group / Keys::kSetGroups * Keys::Streams::kBytes;
    Chunk chunk;
    if constexpr (kWhole) {
      load_words<kLoadWords>(stream, bit / 32, chunk.words);
    } else {
      uint32 words[kWords + 1];
      load_words<1>(stream, bit / 32, words);
#pragma unroll
      for (int w = 0; w < kWords; ++w) chunk.words[w] = funnel_right(words[w], words[w + 1], bit % 32);
    }
    return chunk;
  }

 private:
  /// kCount words of this lane's stream from `first` on; past its end they are of no use, and its last one again.
  template <int kWidth, int kCount>
  VQCC_DEVICE static void load_words(const uint8* stream, int first, uint32 (&words)[kCount]) {
    using Word = typename WordOf<kWidth * 4>::Type;
#pragma unroll
    for (int w = 0; w < kCount; w += kWidth) {
      const int own = kWhole ? first + w : smaller(first + w, Keys::Streams::kChunkWords - 1);
      uint32 loaded[kWidth];
      to_registers(load_streaming(reinterpret_cast<const Word*>(stream + Keys::Streams::offset_of(lane_index(), own))), loaded);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) words[w + i] = loaded[i];
    }
  }
};

/// Halves of rows in shared memory: 256 rows of 128 bytes, 256 bytes apart, so that a code is the second byte of an address.
/// Two of them fill a region.
struct RowHalf {
  static constexpr int kBytes = 128;
  static constexpr int kRegionBytes = 256 * 256;
  VQCC_HOST_DEVICE static constexpr int offset_of(int half) { return half / 2 * kRegionBytes + half % 2 * kBytes; }
};

/// Entries of kGroups neighbouring channel groups by rows, in halves of rows from number kFirstHalf on, as lanes look them
/// up: a half has a word of an entry of each lane of a team, and copies of them, so that no two lanes meet in a bank.
template <class Codes, int kHeadDim, int kOwnGroups, int kFirstHalf>
struct ShareRows {
  using Whole = EntryRows<Codes, kHeadDim>;
  static constexpr int kVectorSize = Codes::kVectorSize;
  static constexpr int kGroups = kOwnGroups;
  static constexpr int kPairs = Whole::kPairs;
  static constexpr int kWordBytes = Whole::kWordBytes;
  static constexpr int kWords = Whole::kEntryBytes / kWordBytes;
  static constexpr int kColumns = RowHalf::kBytes / kWordBytes;
  static constexpr int kTeamLanes = smaller(kGroups, kColumns);
  static constexpr int kTeams = kWarpSize / kTeamLanes;
  static constexpr int kSlots = kGroups / kTeamLanes;
  static constexpr int kHalves = kSlots * kWords;
  static constexpr int kRunBytes = kTeamLanes * kWordBytes;  // of a row of the head's books
  using Word = typename WordOf<kWordBytes>::Type;
  static_assert(kRunBytes % 16 == 0, "rows are copied 16 bytes at a time");
  static_assert(Whole::kTeamLanes % kTeamLanes == 0, "neighbouring lanes have neighbouring groups in the head's books");

  /// The place of this lane in a row, less than 256 with the half that it begins in.
  VQCC_DEVICE static uint32 own_place(int /*region*/) {
    return static_cast<uint32>(lane_index() % kColumns * kWordBytes + kFirstHalf % 2 * RowHalf::kBytes);
  }

  /// The entry of this lane in slot `slot` for byte `byte` of `codes`.
  VQCC_DEVICE static void look_up(const uint8* tables, int slot, uint32 own, uint32 codes, int byte,
                                  uint32 (&pairs)[kPairs]) {
    const uint32 place = permute_bytes(own, codes, static_cast<uint32>(4 + byte) << 4 | 0x2200u);
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const int half = kFirstHalf + slot * kWords + w;
      uint32 word[kWordBytes / 4];
      const uint8* address = tables + (RowHalf::offset_of(half) - kFirstHalf % 2 * RowHalf::kBytes) + place;
      to_registers(load<Space::kShared>(reinterpret_cast<const Word*>(address)), word);
#pragma unroll
      for (int i = 0; i < kWordBytes / 4; ++i) pairs[w * (kWordBytes / 4) + i] = word[i];
    }
  }

  /// Starts to copy the entries of the groups from `first_group` on, of a head's `books`. Every thread of the block calls it.
  template <int kThreads>
  VQCC_DEVICE static void start_copies(uint8* tables, const uint8* books, int first_group) {
    // A thread has a piece of every kStride-th row: its places are constants apart.
    constexpr int kPieces = RowHalf::kBytes / 16;
    constexpr int kStride = kThreads / kPieces;
    const int first = static_cast<int>(threadIdx.x) / kPieces;
    const int piece = static_cast<int>(threadIdx.x) % kPieces * 16;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int group = first_group + half / kWords * kTeamLanes;
      const uint8* source = books + Whole::offset_of(group % Whole::kTeamLanes, group / Whole::kTeamLanes) +
                            half % kWords * Whole::kWordStride + first * Whole::kRowBytes + piece % kRunBytes;
      uint8* target = tables + RowHalf::offset_of(kFirstHalf + half) + first * Whole::kRowBytes + piece;
#pragma unroll 16
      for (int row = 0; row < Whole::kRows; row += kStride) {
        if (Whole::kRows % kStride != 0 && first + row >= Whole::kRows) break;
        start_copy(reinterpret_cast<uint4*>(target + row * Whole::kRowBytes),
                   reinterpret_cast<const uint4*>(source + row * Whole::kRowBytes));
      }
    }
  }
};

/// Units of a launch, a row set and a sequence each, set after set: clusters take equal shares of them, one after another, so
/// that a head's books stay where they are.
struct UnitRange {
  int first;
  int end;

  VQCC_DEVICE static UnitRange of(int units, int cluster, int clusters) {
    const int share = units / clusters;
    const int more = units % clusters;  // clusters that have one more: the first
    const int first = cluster * share + smaller(cluster, more);
    return {first, first + share + (cluster < more ? 1 : 0)};
  }
};

/// Rooms for the partial scores of a chunk's tokens, one for each block of the cluster: [block][token][row]. Each block writes
/// its own partial sums to its room in every block, and adds all of them up in the order of blocks: all get equal bits.
template <int kBlocks, int kTokens, int kRows>
struct PartialScores {
  static constexpr int kRoomFloats = kTokens * kRows;
  static constexpr int kBytes = kBlocks * kRoomFloats * 4;
  static constexpr int kWordRows = smaller(kRows, 4);
  static_assert(kRows % kWordRows == 0, "rows fill words");

  float* rooms;

  using Word = typename WordOf<kWordRows * 4>::Type;

  VQCC_DEVICE void push(int rank, int token, const float (&scores)[kRows]) const {
    float* own = rooms + rank * kRoomFloats + token * kRows;
#pragma unroll
    for (int r = 0; r < kRows; r += kWordRows) {
      uint32 word[kWordRows];
#pragma unroll
      for (int i = 0; i < kWordRows; ++i) word[i] = float_as_bits(scores[r + i]);
      Word* place = reinterpret_cast<Word*>(own + r);
      store(place, from_registers(word));
#pragma unroll
      for (int other = 1; other < kBlocks; ++other) {
        store_remote(place, (rank + other) % kBlocks, from_registers(word));
      }
    }
  }

  VQCC_DEVICE void add_up(int token, float (&scores)[kRows]) const {
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int r = 0; r < kRows; r += kWordRows) {
        const float* place = rooms + block * kRoomFloats + token * kRows + r;
        uint32 word[kWordRows];
        to_registers(load<Space::kShared>(reinterpret_cast<const Word*>(place)), word);
#pragma unroll
        for (int i = 0; i < kWordRows; ++i) {
          scores[r + i] = block == 0 ? float_of_bits(word[i]) : scores[r + i] + float_of_bits(word[i]);
        }
      }
    }
  }
};

}  // namespace vqcc
