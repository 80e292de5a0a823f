// gemv over score tables: a block tabulates its columns of x and adds up looked-up scores for its rows of W.
#pragma once

#include "../score_table_wide.cuh"
#include "dealing.cuh"

namespace vqcc {

/// The score tables that codes of an algorithm look up.
template <class Algorithm, ElementType kType, int kWarps, int kRows, int kCodeBits = Algorithm::kCodeBits>
struct ScoreTableFor;
template <class Algorithm, ElementType kType, int kWarps, int kRows>
struct ScoreTableFor<Algorithm, kType, kWarps, kRows, 8> {
  using Type = ByteScoreTable<Algorithm, kType, kWarps, kRows>;
};
template <class Algorithm, ElementType kType, int kWarps>
struct ScoreTableFor<Algorithm, kType, kWarps, 1, 12> {
  using Type = WideScoreTable<Algorithm, kType, kWarps>;
};

/// y[b, n] = sum over k of x[b, k] W[n, k] (+ bias[n]), W never decoded: one, two or four rows of x.
///
/// A row's codes lie stage after stage, each stage's padded to whole sets of vectors. They are worked on in rounds
/// of as many codes as a region of score tables has tables. An item is the rounds of one part of the columns, for the
/// groups of 32 rows of one part of the rows, and each block has one: a warp takes a group at a time, a lane one of its
/// rows, and adds what it has looked up to the row's sums in shared memory. Tables of the next round are made while codes
/// are on their way, in a second region if there is one. Parts of the columns are added up as Algorithm 2 does, in a
/// fixed order.
template <class Algorithm, class Matrix, class Layout, class Tile>
class ScoreGemv {
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRowParts = Tile::kRowParts;
  static constexpr int kColumnParts = Tile::kColumnParts;
  static constexpr int kRegions = Tile::kRegions;
  static constexpr int kInputRows = Tile::kInputRows;
  using Table = typename ScoreTableFor<Algorithm, Tile::kElement, kWarps, kInputRows>::Type;
  using Scales = typename Table::Scales;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kVectors = Matrix::kColumns / kVectorSize;
  static constexpr int kRounds = ceil_divide(Layout::kPaddedVectors * Algorithm::kResiduals, Table::kTables);
  static constexpr int kRowGroups = ceil_divide(Matrix::kRows, kWarpSize);
  static constexpr int kGroups = ceil_divide(kRowGroups, kRowParts);  // of an item, at most
  static constexpr int kRows = kGroups * kWarpSize;
  static constexpr int kSums = kRows * kInputRows;
  static_assert(kSums == Tile::kBlockSums, "the plan's workspace has room for as many sums");
  static constexpr int kCodeWords = Table::kCodeWords;  // of a lane's row in one round
  static constexpr int kRuns = kCodeWords * 4 / Table::kRunBytes;
  static constexpr int kGroupRuns = kRuns * (Layout::kPanelCodes / Table::kTables) * kWarpSize;  // of a panel
  using Run = typename WordOf<Table::kRunBytes>::Type;
  static_assert(Layout::kPaddedVectors % Table::kSetTables == 0, "the tables of a set are of one stage");
  static_assert(Layout::kPanelCodes % Table::kTables == 0, "a round's codes are of one panel");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "scores of different groups are added up");

  /// Shared memory: regions, codes on their way (each lane its own row's), sums of rows.
  static constexpr int kCodesOffset = kRegions * Table::kRegionBytes;
  static constexpr int kSumsOffset = kCodesOffset + (Table::kCodesStaged ? kThreads * kCodeWords * 4 : 0);
  static_assert(kSumsOffset + kSums * 4 <= Tile::kOwnSharedBytes, "the plan has room for sums");

 public:
  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    wait_for_previous_kernels();  // x is needed before anything else
    const int item = static_cast<int>(blockIdx.x);
    work_on(arguments, item / kColumnParts, item % kColumnParts);
  }

 private:
  VQCC_DEVICE static void work_on(const Arguments& arguments, int row_part, int column_part) {
    uint8* regions = dynamic_shared();
    CodesAhead codes(regions + kCodesOffset);
    float* row_sums = reinterpret_cast<float*>(regions + kSumsOffset);
    const int first_group = first_of<kRowGroups, kRowParts>(row_part);
    const int groups = first_of<kRowGroups, kRowParts>(row_part + 1) - first_group;
    const int first_round = first_of<kRounds, kColumnParts>(column_part);
    const int end_round = first_of<kRounds, kColumnParts>(column_part + 1);

    typename Table::Operands operands;
    load_operands(arguments, first_round, operands);  // before any codes, that these do not wait for those
    // A warp without a group starts the last one's: were there a branch, the compiler would no longer know that the
    // addresses of look-ups have the same base in all lanes, and add it for each.
    const int own_group = first_group + smaller(warp_index(), groups - 1);
    const Run* ahead = codes_of(arguments, own_group, first_round);
    codes.start(ahead);
    Scales scales = {};
    if constexpr (Table::kScaled) scales = find_scales(arguments, first_round, end_round);
    // The first turn of the loop makes the first round's tables, every other one looks a round up and makes the next.
    int region = kRegions - 1;
#pragma unroll 1
    for (int round = first_round - 1;; ++round) {
      const bool last = round + 1 == end_round;
      const int next_region = kRegions - 1 - region;
      const auto build_next = [&] {
        if (last) return;
        Table::build(regions + next_region * Table::kRegionBytes, operands, scales);
        if (round + 2 < end_round) load_operands(arguments, round + 2, operands);
      };
      if constexpr (kRegions > 1) build_next();
#pragma unroll 1
      for (int group = round < first_round ? groups : warp_index(); group < groups; group += kWarps) {
        uint32 words[kCodeWords];
        codes.take(words);
        const bool more = group + kWarps < groups;
        ahead = more ? ahead + kWarps * kGroupRuns : codes_of(arguments, own_group, round + 1);
        if (more || !last) codes.start(ahead);
        if (!Table::kCodesStaged && group + 2 * kWarps < groups) CodesAhead::prefetch(ahead + kWarps * kGroupRuns);
        typename Table::Sums sums;
        Table::look_up(regions, region, words, sums);
#pragma unroll
        for (int b = 0; b < kInputRows; ++b) {
          float* sum = row_sums + b * kRows + group * kWarpSize + lane_index();
          const float before = round == first_round ? 0.0f : *sum;
          *sum = Table::kScaled ? fused_multiply_add(sums.total(b), scales.down(b), before) : sums.total(b) + before;
        }
      }
      if (last) break;
      block_barrier();  // the round has been looked up
      if constexpr (kRegions == 1) {
        build_next();
        block_barrier();
      }
      region = next_region;
    }
    wait_for_copies();  // a warp without a group has one
    block_barrier();
    finish_rows<Tile, Matrix, kRows, kInputRows, kThreads>(arguments, row_part, column_part, first_group * kWarpSize,
                                                           groups * kWarpSize, row_sums);
  }

  /// Scales of the scores of rounds `first_round` to `end_round`, found where tables will be.
  VQCC_DEVICE static Scales find_scales(const Arguments& arguments, int first_round, int end_round) {
    const int thread = static_cast<int>(threadIdx.x);
    float largest[kInputRows + 1] = {};  // of each row of x, and of the sums of entries
    const int first_code = first_round * Table::kTables;
    const int end_code = smaller(end_round * Table::kTables, Layout::kPaddedVectors * Algorithm::kResiduals);
    for (int code = first_code + thread; code < end_code; code += kThreads) {
      const int vector = code % Layout::kPaddedVectors;
      if (vector >= kVectors) continue;
#pragma unroll
      for (int b = 0; b < kInputRows; ++b) {
        const Element* x = input_row(arguments, b) + vector * kVectorSize;
        largest[b] = largest_magnitude<Tile::kElement, kVectorSize>(x, largest[b]);
      }
    }
    const int first_entry = first_code / Layout::kPaddedVectors * Algorithm::kTableEntries;
    const int end_entry = ((end_code - 1) / Layout::kPaddedVectors + 1) * Algorithm::kTableEntries;
    float& largest_entry = largest[kInputRows];
#pragma unroll 4
    for (int entry = first_entry + thread; entry < end_entry; entry += kThreads) {
      const uint8* values = arguments.books + entry * Algorithm::kEntryBytes;
      largest_entry = largest_sum<Tile::kElement, kVectorSize>(values, largest_entry);
    }
    largest_of_block<kWarps>(largest, reinterpret_cast<float*>(dynamic_shared()));
    block_barrier();  // every warp has read it
    float largest_x[kInputRows];
#pragma unroll
    for (int b = 0; b < kInputRows; ++b) largest_x[b] = largest[b];
    return Scales::of(largest_x, largest_entry);
  }

  /// Row `b` of x. Rows past m repeat the last: nothing of theirs is stored.
  VQCC_DEVICE static const Element* input_row(const Arguments& arguments, int b) {
    return arguments.x + smaller(b, arguments.m - 1) * arguments.x_stride;
  }

  /// x and entries for the tables of round `round`.
  VQCC_DEVICE static void load_operands(const Arguments& arguments, int round, typename Table::Operands& operands) {
    constexpr int kCodes = Layout::kPaddedVectors * Algorithm::kResiduals;
    constexpr bool kWhole = kVectors == Layout::kPaddedVectors && kCodes % Table::kTables == 0;
    const int first_code = round * Table::kTables + Table::own_set() * Table::kSetTables;
    const int first_vector = first_code % Layout::kPaddedVectors;
    const bool present = kWhole || first_code < kCodes;  // past the last stage there are no codes but padding
    const int stage = present ? first_code / Layout::kPaddedVectors : 0;
    Table::template load_operands<kWhole>(
        operands, [&](int row) { return input_row(arguments, row) + first_vector * kVectorSize; },
        present ? kVectors - first_vector : 0, arguments.books + stage * Algorithm::kStageBytes);
  }

  /// This lane's codes of a group of rows for round `round`.
  VQCC_DEVICE static const Run* codes_of(const Arguments& arguments, int group, int round) {
    const int panel = round * Table::kTables / Layout::kPanelCodes;
    const int first = round * Table::kTables % Layout::kPanelCodes / Table::kTables * kRuns;
    return reinterpret_cast<const Run*>(arguments.codes) +
           (static_cast<int64>(panel) * kRowGroups + group) * kGroupRuns + first * kWarpSize + lane_index();
  }

  /// A lane's codes of one group on their way: to shared memory, or in registers.
  class CodesAhead {
    static constexpr int kRunWords = Table::kRunBytes / 4;

   public:
    /// `staging` is the block's shared memory for codes.
    VQCC_DEVICE explicit CodesAhead(uint8* staging)
        : own_(reinterpret_cast<Run*>(staging) + warp_index() * kWarpSize * kRuns + lane_index()) {}

    VQCC_DEVICE void start(const Run* source) {
#pragma unroll
      for (int i = 0; i < kRuns; ++i) {
        if constexpr (Table::kCodesStaged) {
          start_copy(own_ + i * kWarpSize, source + i * kWarpSize);
        } else {
          runs_[i] = load_streaming(source + i * kWarpSize);
        }
      }
    }

    /// Brings codes of a group to L2: codes in registers are too few to hide how far memory is.
    VQCC_DEVICE static void prefetch(const Run* source) {
      constexpr int kLines = kRuns * kWarpSize * Table::kRunBytes / 128;
      if (lane_index() < kLines) prefetch_line(reinterpret_cast<const uint8*>(source - lane_index()) + lane_index() * 128);
    }

    /// Waits for the codes, and takes them out of the way of the next.
    VQCC_DEVICE void take(uint32 (&words)[kCodeWords]) {
      if constexpr (Table::kCodesStaged) wait_for_copies();
#pragma unroll
      for (int i = 0; i < kRuns; ++i) {
        uint32 loaded[kRunWords];
        to_registers(Table::kCodesStaged ? load<Space::kShared>(own_ + i * kWarpSize) : runs_[i], loaded);
#pragma unroll
        for (int w = 0; w < kRunWords; ++w) words[kRunWords * i + w] = loaded[w];
      }
    }

   private:
    Run* own_;
    Run runs_[Table::kCodesStaged ? 1 : kRuns];
  };
};

}  // namespace vqcc
