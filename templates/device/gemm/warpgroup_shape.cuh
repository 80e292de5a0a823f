// Sizes of WarpgroupGemm: what a warp, a block and a tile have of W and x.
#pragma once

#include "stages.cuh"

namespace vqcc {

/// Rows, columns, stages and books, from the plan's constants.
template <class Algorithm, class Matrix, class Layout, class Tile>
struct WarpgroupShape {
  static constexpr int kBatch = Tile::kBatch;
  static constexpr int kMultiplying = 4 * Tile::kWarpgroups;  // warps
  static constexpr int kHelping = 4;
  static constexpr int kThreads = (kMultiplying + kHelping) * kWarpSize;
  static constexpr int kQuad = 4;
  static constexpr int kBlockRows = 32;  // of a warp
  static constexpr int kRows = kBlockRows * kMultiplying;
  static constexpr int kAllRowBlocks = ceil_divide(Matrix::kRows, 2 * kBlockRows) * 2;  // as packed: an even number

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kStepVectors = Layout::kStepVectors;
  static constexpr int kStepWords = Layout::kStepWords;
  static constexpr int kStepColumns = kStepVectors * kVectorSize;  // of a lane
  static constexpr int kSpanColumns = Layout::kSpanVectors * kVectorSize;
  static constexpr int kLaneColumns = ceil_divide(Matrix::kColumns, kQuad * kSpanColumns) * kSpanColumns;
  static constexpr int kSteps = ceil_divide(kLaneColumns, kStepColumns);
  using Order = InputOrder<kSpanColumns>;

  /// A stage is 64 columns of x, sixteen of a lane: four multiplies deep. A round is kRoundStages of them, and whole steps;
  /// a unit of work kPartUnit rounds.
  static constexpr int kStageColumns = Order::kStageColumns;
  static constexpr int kRoundStages = Tile::kRoundStages;
  static constexpr int kRoundColumns = kRoundStages * kStageColumns;
  static constexpr int kRoundSteps = kRoundColumns / kStepColumns;
  static constexpr int kUnitColumns = Order::kUnitColumns;
  static constexpr int kStageUnits = kStageColumns / kUnitColumns;
  static constexpr int kRounds = ceil_divide(kLaneColumns, kRoundColumns);
  static constexpr int kPartUnit = Tile::kPartUnit;
  static constexpr int kPanelGroup = Tile::kPanelGroup;
  static constexpr int kParts = ceil_divide(kRounds, kPartUnit);
  static constexpr int kTileStages = kParts * kPartUnit * kRoundStages;
  static_assert(kTileStages == Tile::kTileStages, "the workspace has room for x");
  static_assert(kRoundColumns % kStepColumns == 0, "rounds are of whole steps");
  static_assert(kVectorSize <= kUnitColumns, "multiplies are decoded in whole vectors");

  /// Rows of one band of codebook tiles have the same books; of column tiles each lane of a quad has one at a time.
  static constexpr int kBandRows = smaller(Matrix::kTileRows, Matrix::kRows);
  static constexpr int kSetsPerBand = ceil_divide(kBandRows, kRows);
  static constexpr int kBands = ceil_divide(Matrix::kRows, kBandRows);
  static constexpr int kSets = kBands * kSetsPerBand;
  static constexpr int kColumnTiles = ceil_divide(Matrix::kColumns, Matrix::kTileColumns);
  static constexpr int kSpanRounds = kColumnTiles > 1 ? kSpanColumns / kRoundColumns : kPartUnit * kParts;
  static constexpr bool kBooksChange = kColumnTiles > 1 || kBands > 1;
  static_assert(kBands == 1 || kBandRows % kRows == 0, "a tile's rows have one band's books");
  static_assert(kColumnTiles == 1 || (kSpanColumns == Matrix::kTileColumns && kSpanColumns % kRoundColumns == 0),
                "a round's lanes have one book each");
  static_assert(kColumnTiles == 1 || kPartUnit == kSpanRounds, "parts are whole column tiles");
  static_assert(Tile::kQuadTiles == (kColumnTiles > 1 ? kQuad : 1), "each lane of a quad has its own column tile");
  static_assert(Tile::kBookBuffers == (kBooksChange ? 2 : 1), "the next books arrive while these are looked up");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "group scales are applied to decoded weights in fp32");

  /// Stages of residuals are added up before they are multiplied, in float16, or multiplied one after the other.
  static constexpr int kResiduals = Algorithm::kResiduals;
  static constexpr bool kAddsResiduals = kResiduals > 1 && Tile::kElement == ElementType::kFloat16;
  static constexpr int kOperands = kAddsResiduals ? 1 : kResiduals;
  static_assert(kOperands == 1 || !Algorithm::kStageFactors, "what is multiplied apart has one factor");

  /// This warp's first row of 32 among those packed, of set `set`; past the last: any will do.
  VQCC_DEVICE static int row_block(int set) {
    const int first_row = set / kSetsPerBand * kBandRows + set % kSetsPerBand * kRows;
    return smaller(first_row / kBlockRows + warp_index(), kAllRowBlocks - 1);
  }
};

}  // namespace vqcc
