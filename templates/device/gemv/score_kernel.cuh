// gemv over score tables: a block tabulates its columns of x and adds up looked-up scores for its rows of W.
#pragma once

#include "../score_table.cuh"
#include "outputs.cuh"

namespace vqcc {

/// y[n] = sum over k of x[k] W[n, k] (+ bias[n]), W never decoded: one row of x.
///
/// A row's codes lie stage after stage, each stage's padded to whole sets of 32 vectors. They are worked on in rounds
/// of as many codes as a region of score tables has tables. An item is the rounds of one part of the columns, for the
/// groups of 32 rows of one part of the rows, and each block has one: a warp takes a group at a time, a lane one of its
/// rows, and adds what it has looked up to the row's sum in shared memory. Tables of the next round are made while codes
/// are on their way, in a second region if there is one. Parts of the columns are added up as Algorithm 2 does, in a
/// fixed order.
template <class Algorithm, class Matrix, class Layout, class Tile>
class ScoreGemv {
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRowParts = Tile::kRowParts;
  static constexpr int kColumnParts = Tile::kColumnParts;
  static constexpr int kRegions = Tile::kRegions;
  using Table = ScoreTable<Algorithm, Tile::kElement, kWarps>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kVectors = Matrix::kColumns / kVectorSize;
  static constexpr int kRounds = ceil_divide(Layout::kPaddedVectors * Algorithm::kResiduals, Table::kTables);
  static constexpr int kRowGroups = ceil_divide(Matrix::kRows, kWarpSize);
  static constexpr int kGroups = ceil_divide(kRowGroups, kRowParts);  // of an item, at most
  static constexpr int kRows = kGroups * kWarpSize;
  static_assert(kRows == Tile::kBlockRows, "the plan's workspace has room for the sums of as many rows");
  static constexpr int kCodeWords = Table::kTables / 4;  // of a lane's row in one round
  static constexpr int kLoads = kCodeWords / 4;          // of 16 bytes
  static constexpr int kPanelLoads = Layout::kPanelCodes / 16;
  static_assert(Layout::kPaddedVectors % Table::kSetTables == 0, "the tables of a set are of one stage");
  static_assert(Layout::kPanelCodes % Table::kTables == 0, "a round's codes are of one panel");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "scores of different groups are added up");

  /// Shared memory: regions, codes on their way (each lane its own row's), sums of rows.
  static constexpr int kCodesOffset = kRegions * Table::kRegionBytes;
  static constexpr int kSumsOffset = kCodesOffset + kThreads * kCodeWords * 4;
  static_assert(kSumsOffset + kRows * 4 <= Tile::kOwnSharedBytes, "the plan has room for sums");

  /// A warp's place in its item: the round, and the group of rows among the item's.
  struct Place {
    int round;
    int group;
  };

 public:
  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    wait_for_previous_kernels();  // x is needed before anything else
    const int item = static_cast<int>(blockIdx.x);
    work_on(arguments, item / kColumnParts, item % kColumnParts);
  }

 private:
  /// First of the `count` things that part `part` of kParts has: each has as many, or the first ones one more.
  template <int kCount, int kParts>
  VQCC_DEVICE static int first_of(int part) {
    return kCount / kParts * part + smaller(part, kCount % kParts);
  }

  VQCC_DEVICE static void work_on(const Arguments& arguments, int row_part, int column_part) {
    uint8* regions = dynamic_shared();
    uint4* codes = reinterpret_cast<uint4*>(regions + kCodesOffset) + warp_index() * kWarpSize * kLoads + lane_index();
    float* row_sums = reinterpret_cast<float*>(regions + kSumsOffset);
    const int first_group = first_of<kRowGroups, kRowParts>(row_part);
    const int groups = first_of<kRowGroups, kRowParts>(row_part + 1) - first_group;
    const int first_round = first_of<kRounds, kColumnParts>(column_part);
    const int end_round = first_of<kRounds, kColumnParts>(column_part + 1);

    typename Table::Operands operands;
    load_operands(arguments, first_round, operands);  // before any codes, that these do not wait for those
    Place ahead = {first_round, warp_index()};
    if (ahead.group < groups) start_codes(arguments, first_group, ahead, codes);
    // The first turn of the loop makes the first round's tables, every other one looks a round up and makes the next.
    int region = kRegions - 1;
#pragma unroll 1
    for (int round = first_round - 1;; ++round) {
      const bool last = round + 1 == end_round;
      const int next_region = kRegions - 1 - region;
      const auto build_next = [&] {
        if (last) return;
        Table::build(regions + next_region * Table::kRegionBytes, operands);
        if (round + 2 < end_round) load_operands(arguments, round + 2, operands);
      };
      if constexpr (kRegions > 1) build_next();
#pragma unroll 1
      for (int group = round < first_round ? groups : warp_index(); group < groups; group += kWarps) {
        uint32 words[kCodeWords];
        take_codes(codes, words);
        ahead.group += kWarps;
        if (ahead.group >= groups) ahead = {round + 1, warp_index()};
        if (ahead.round < end_round) start_codes(arguments, first_group, ahead, codes);
        typename Table::Sums sums;
        Table::look_up(regions, region, words, sums);
        float* sum = row_sums + group * kWarpSize + lane_index();
        *sum = sums.total() + (round == first_round ? 0.0f : *sum);
      }
      if (last) break;
      block_barrier();  // the round has been looked up
      if constexpr (kRegions == 1) {
        build_next();
        block_barrier();
      }
      region = next_region;
    }
    block_barrier();
    finish(arguments, row_part, column_part, first_group * kWarpSize, groups * kWarpSize, row_sums);
  }

  /// x and entries for the tables of round `round`.
  VQCC_DEVICE static void load_operands(const Arguments& arguments, int round, typename Table::Operands& operands) {
    const int first_code = round * Table::kTables + Table::own_set() * Table::kSetTables;
    const int stage = first_code / Layout::kPaddedVectors;
    const int first_vector = first_code % Layout::kPaddedVectors;
    const bool present = stage < Algorithm::kResiduals;  // past the last stage there are no codes but padding
    const uint8* table = arguments.books + (present ? stage : 0) * Algorithm::kStageBytes;
    Table::load_operands(
        operands,
        [&](int vector, int pair) {
          vector += first_vector;
          if (!present || vector >= kVectors) return 0u;
          const Element* x = arguments.x + vector * kVectorSize;
          return load<Space::kGlobal>(reinterpret_cast<const uint32*>(x) + pair);
        },
        [&](int entry, int pair) {
          return load<Space::kGlobal>(reinterpret_cast<const uint32*>(table + entry * Algorithm::kEntryBytes) + pair);
        });
  }

  /// Starts to copy this lane's codes of a place.
  VQCC_DEVICE static void start_codes(const Arguments& arguments, int first_group, const Place& place, uint4* codes) {
    const int panel = place.round * Table::kTables / Layout::kPanelCodes;
    const int first = place.round * Table::kTables % Layout::kPanelCodes / 16;
    const uint4* source = reinterpret_cast<const uint4*>(arguments.codes) + lane_index() +
                          ((static_cast<int64>(panel) * kRowGroups + first_group + place.group) * kPanelLoads + first) *
                              kWarpSize;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) start_copy(codes + i * kWarpSize, source + i * kWarpSize);
  }

  /// Waits for this lane's codes, and takes them out of the way of the next.
  VQCC_DEVICE static void take_codes(const uint4* codes, uint32 (&words)[kCodeWords]) {
    wait_for_copies();
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      uint32 loaded[4];
      to_registers(load<Space::kShared>(codes + i * kWarpSize), loaded);
#pragma unroll
      for (int w = 0; w < 4; ++w) words[4 * i + w] = loaded[w];
    }
  }

  /// Stores the sums of the item's rows, or leaves them to the other parts of the columns.
  VQCC_DEVICE static void finish(const Arguments& arguments, int row_part, int column_part, int first_row, int rows,
                                 float* row_sums) {
    const auto store = [&](int i, float sum) {
      const int row = first_row + i;
      if (i < rows && row < Matrix::kRows) store_output<Tile, Matrix>(arguments, row, 0, sum);
    };
    if constexpr (kColumnParts == 1) {
      for (int i = static_cast<int>(threadIdx.x); i < rows; i += kThreads) store(i, row_sums[i]);
    } else {
      uint32* flag = reinterpret_cast<uint32*>(dynamic_shared());  // tables have been looked up
      reduce_parts<kRows, kThreads>(
          arrival_of(arguments.workspace, row_part),
          part_sums<Tile::kArrivals>(arguments.workspace) + static_cast<int64>(row_part) * kColumnParts * kRows, flag,
          column_part, kColumnParts, [&](int i) { return i < rows ? row_sums[i] : 0.0f; }, store);
    }
  }
};

}  // namespace vqcc
