// What a block of a cluster does by tables: scores of its channel groups tabulated, values of its groups looked up by rows.
#pragma once

#include "cluster_share.cuh"
#include "head_scores.cuh"
#include "warp_softmax.cuh"

namespace vqcc {

/// Score tables of the key entries of a block's channel groups with kRows query rows, in halves of rows from the first on.
///
/// Each cell has the scores of up to four rows. A set of up to 32 groups has as many columns as lanes that read together: where
/// there are fewer groups, copies of them.
template <class Algorithm, class Shape, class Cache, class Tile>
class ShareScores {
  static constexpr int kRows = Tile::kRows;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kEntryRegisters = 16;  // of a thread, for entries on their way
  static constexpr int kCellRows = smaller(kRows, 4);
  static constexpr int kCells = kRows / kCellRows;
  using Share = KeyShare<Algorithm, kHeadDim, Cache::kKeyOrder, Tile::kClusterBlocks>;
  using Rows = EntryRows<Algorithm, kHeadDim>;
  using Cell = Scores<kCellRows>;
  static constexpr int kSetGroups = Share::kSetGroups;
  static constexpr int kColumns = RowHalf::kBytes / Cell::kBytes > kSetGroups ? RowHalf::kBytes / Cell::kBytes : kSetGroups;
  using LookUps = RotatedLookUps<kCellRows, kColumns>;
  static constexpr int kSetHalves = LookUps::kSetBytes / RowHalf::kBytes;
  static_assert(kRows % kCellRows == 0 && (kCellRows == 1 || kCellRows == 2 || kCellRows == 4), "1, 2, 4 or 8 rows");
  static_assert(kSetGroups % 4 == 0, "codes fill words");

  /// Entries that a warp makes scores of at a time, each lane's of one group; how often it does that; and for how many of these
  /// the entries are loaded together.
  static constexpr int kStepEntries = kWarpSize / kSetGroups;
  static constexpr int kSteps = ceil_divide(Rows::kRows, kStepEntries * kWarps);
  static constexpr int kRunSteps = smaller(kSteps, power_of_two_at_most(kEntryRegisters / Rows::kPairs));
  static constexpr int kCopies = kColumns / kSetGroups;

 public:
  static constexpr int kSets = Share::kSets;
  static constexpr int kHalves = kCells * kSets * kSetHalves;
  using Codes = typename Share::Chunk;

  /// Some of this thread's share of the entries, on their way from the head's rows.
  struct Entries {
    uint32 pairs[kRunSteps][Rows::kPairs];

    VQCC_DEVICE void load_from(const uint8* books, int rank, int set, int first_step) {
      const int group = Share::first_group(rank, set) + lane_index() % kSetGroups;
      const uint8* entry = books + Rows::offset_of(group % Rows::kTeamLanes, group / Rows::kTeamLanes);
#pragma unroll
      for (int i = 0; i < kRunSteps; ++i) {
        if (has_entry(first_step + i)) {
          Rows::template load_from<Space::kGlobal>(entry + entry_of(first_step + i) * Rows::kRowBytes, pairs[i]);
        }
      }
    }
  };

  /// Makes the tables at `tables` from a head's `books`, of which `entries` has the first run. `query(row, channel)` is a
  /// query's element in fp32; `bound` the largest sum of magnitudes of an entry's elements.
  template <class Query>
  VQCC_DEVICE void make(uint8* tables, const uint8* books, Entries& entries, const Query& query, float bound, int rank) {
    float scales[kRows];
    find_scales(query, bound, rank, scales);
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
      const int group = Share::first_group(rank, set) + lane_index() % kSetGroups;
      float queries[kRows][Rows::kVectorSize];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < Rows::kVectorSize; ++c) queries[r][c] = scales[r] * query(r, group * Rows::kVectorSize + c);
      }
#pragma unroll 1
      for (int step = 0; step < kSteps; step += kRunSteps) {
        if (set > 0 || step > 0) entries.load_from(books, rank, set, step);
        make_run(tables, set, step, entries, queries);
      }
    }
  }

  /// The scores of this lane's token over the block's groups: each group's code looked up once.
  VQCC_DEVICE void add_up(const uint8* tables, const Codes (&codes)[kSets], float (&scores)[kRows]) const {
#pragma unroll
    for (int cell = 0; cell < kCells; ++cell) {
      typename LookUps::Sums sums;
#pragma unroll
      for (int set = 0; set < kSets; ++set) {
        const int half = (cell * kSets + set) * kSetHalves;
        LookUps::template add<1, kSetGroups>(tables, half / 2, half % 2, codes[set].words, sums);
      }
#pragma unroll
      for (int r = 0; r < kCellRows; ++r) {
        scores[cell * kCellRows + r] = unscale_[cell * kCellRows + r] * sums.total(r);
      }
    }
  }

 private:
  VQCC_DEVICE static int entry_of(int step) {
    return (step * kWarps + warp_index()) * kStepEntries + lane_index() / kSetGroups;
  }
  VQCC_DEVICE static bool has_entry(int step) {
    return Rows::kRows % (kStepEntries * kWarps) == 0 || entry_of(step) < Rows::kRows;
  }

  template <class Query>
  VQCC_DEVICE void find_scales(const Query& query, float bound, int rank, float (&scales)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      scales[r] = unscale_[r] = 1.0f;
      if constexpr (Cell::kScaled) {
        constexpr int kChannels = Share::kGroups * Rows::kVectorSize;
        float largest = 0.0f;
        for (int i = lane_index(); i < kChannels; i += kWarpSize) {
          largest = larger(largest, magnitude(query(r, rank * kChannels + i)));
        }
        find_score_scale(largest_of_warp(largest) * bound, scales[r], unscale_[r]);
      }
    }
  }

  /// Lanes of different entries store their copies in different turns, so that they meet in no bank.
  VQCC_DEVICE static void make_run(uint8* tables, int set, int first_step, const Entries& entries,
                                   const float (&queries)[kRows][Rows::kVectorSize]) {
#pragma unroll
    for (int i = 0; i < kRunSteps; ++i) {
      if (!has_entry(first_step + i)) continue;
      float products[kRows] = {};
#pragma unroll
      for (int p = 0; p < Rows::kPairs; ++p) {
        const float2 values = float16_pair(entries.pairs[i][p]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          products[r] = fused_multiply_add(values.x, queries[r][2 * p], products[r]);
          products[r] = fused_multiply_add(values.y, queries[r][2 * p + 1], products[r]);
        }
      }
#pragma unroll
      for (int cell = 0; cell < kCells; ++cell) {
        float own[kCellRows];
#pragma unroll
        for (int r = 0; r < kCellRows; ++r) own[r] = products[cell * kCellRows + r];
        const Cell scores = Cell::of(own);
        uint8* row = tables + RowHalf::offset_of((cell * kSets + set) * kSetHalves) +
                     entry_of(first_step + i) * LookUps::kEntryBytes;
#pragma unroll
        for (int copy = 0; copy < kCopies; ++copy) {
          const int column = (copy ^ lane_index() / kSetGroups % kCopies) * kSetGroups + lane_index() % kSetGroups;
          scores.store_to(row + column * Cell::kBytes);
        }
      }
    }
  }

  float unscale_[kRows];
};

/// The parts of ClusterAttention that know how products come about: by look-ups, of scores and of entries by rows.
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class Tile>
class ScoredProducts {
  static constexpr int kThreads = Tile::kWarps * kWarpSize;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kBlocks = Tile::kClusterBlocks;
  using Share = KeyShare<KeyAlgorithm, kHeadDim, Cache::kKeyOrder, kBlocks>;
  using Tables = ShareScores<KeyAlgorithm, Shape, Cache, Tile>;
  using KeyRows = EntryRows<KeyAlgorithm, kHeadDim>;
  using Values = ValueBlock<ValueAlgorithm, kHeadDim>;
  static constexpr int kValueGroups = Values::kGroups / kBlocks;
  using ValueRows = ShareRows<ValueAlgorithm, kHeadDim, kValueGroups, Tables::kHalves>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AttentionArguments<Element>;
  using RowSets = RowSet<Shape, Tile::kRows>;
  static_assert(Cache::kKeyOrder == KeyOrder::kRotated, "lanes look different tables up");
  static_assert(Shape::kRope == Rope::kNone, "scores of a table are of all positions");

 public:
  using Softmax = WarpSoftmax<ValueAlgorithm, Shape, Tile, ValueRows>;
  using Lanes = ValueRows;
  /// Shared memory for tables and entries; whether queries must be there too; and whether a team of lanes must decode along
  /// with others where it has no codes.
  static constexpr bool kReadsQueries = false;
  static constexpr bool kTogether = false;
  static constexpr int kBookBytes = 0;  // of a codebook cache
  static constexpr int kBytes = ceil_divide(Tables::kHalves + ValueRows::kHalves, 2) * RowHalf::kRegionBytes;

  /// Codes on their way: of a lane's token, and of its value groups in a token block.
  struct KeyCodes {
    typename Share::Chunk sets[Share::kSets];
  };
  struct ValueCodes {
    uint32 words[ValueRows::kSlots][Softmax::kCodeWords];
  };

  VQCC_DEVICE ScoredProducts(const Arguments& arguments, int rank, uint8* shared, const float* /*queries*/)
      : arguments_(arguments), rank_(rank), tables_(shared) {}

  /// Starts to load `head`'s first entries of keys, to registers.
  VQCC_DEVICE void start_keys(int head) { entries_.load_from(key_books(book_of<Cache>(head)), rank_, 0, 0); }

  /// Starts to copy `head`'s entries of values, which then stay until another head's are wanted. All warps have read those
  /// that are there. What it reads no kernel writes, nor what start_keys does.
  VQCC_DEVICE void start_books(int head) {
    const int book = book_of<Cache>(head);
    if (book == resident_) return;
    resident_ = book;
    ValueRows::template start_copies<kThreads>(
        tables_, arguments_.value_books + static_cast<int64>(book) * ValueRows::Whole::kBytes, rank_ * kValueGroups);
  }

  /// Makes the tables for some queries: they are there after the next barrier of the block.
  VQCC_DEVICE void prepare(const RowSets& rows, int sequence, float scale) {
    const int book = book_of<Cache>(rows.head);
    const float bound = load<Space::kGlobal>(arguments_.book_facts + 2 * book);
    unscale_ = load<Space::kGlobal>(arguments_.book_facts + 2 * book + 1);
    scores_.make(
        tables_, key_books(book), entries_,
        [&](int row, int channel) { return query_element<Tile>(arguments_, rows, sequence, row, channel, scale); },
        bound, rank_);
  }

  VQCC_DEVICE void load_keys(const uint8* block, KeyCodes& codes) const {
#pragma unroll
    for (int set = 0; set < Share::kSets; ++set) codes.sets[set] = Share::load_from(block, rank_, set);
  }
  VQCC_DEVICE void load_values(const uint8* block, ValueCodes& codes) const {
#pragma unroll
    for (int s = 0; s < ValueRows::kSlots; ++s) {
      const int group = rank_ * kValueGroups + s * ValueRows::kTeamLanes + lane_index() % ValueRows::kTeamLanes;
      const auto chunk = Values::Streams::load_from(block, group);
#pragma unroll
      for (int w = 0; w < Softmax::kCodeWords; ++w) codes.words[s][w] = chunk.words[w];
    }
  }

  /// The scores of this lane's token over the block's channels; `position` is that of the token block's first.
  VQCC_DEVICE void score(const KeyCodes& codes, int /*position*/, float (&scores)[Tile::kRows]) {
    scores_.add_up(tables_, codes.sets, scores);
  }
  VQCC_DEVICE Rotations<Shape> rotations(int /*position*/) const { return {}; }

  VQCC_DEVICE void add_values(const ValueCodes& codes, bool /*coded*/, const uint8* weights, Softmax& softmax) const {
    softmax.add_codes({tables_, 0}, codes.words, weights);
  }
  /// What sums of values are multiplied with, and values in full precision before they are added to them.
  VQCC_DEVICE float unscale() const { return unscale_; }
  VQCC_DEVICE float scale() const { return 1.0f / unscale_; }

 private:
  VQCC_DEVICE const uint8* key_books(int book) const {
    return arguments_.key_books + static_cast<int64>(book) * KeyRows::kBytes;
  }

  const Arguments& arguments_;
  int rank_;
  uint8* tables_;
  int resident_ = -1;
  float unscale_ = 1.0f;
  typename Tables::Entries entries_;
  Tables scores_;
};

}  // namespace vqcc
