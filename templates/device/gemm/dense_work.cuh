// What the blocks of a DenseGemm launch share: pieces of W that are decoded once, tiles of y, counters that deal them.
#pragma once

#include "../arch_warpgroup_shared.cuh"
#include "../gemv/outputs.cuh"
#include "stages.cuh"

namespace vqcc {

/// W is cut into pieces of kPieceRows rows, which are decoded to the workspace, and x into panels of kPanelRows rows. A piece
/// times a panel is a tile of y, one after the other in order of the pieces, the panels of each inner.
///
/// A piece lies in the workspace as images of stages: its rows of 64 columns as SwizzledRows, zeros past the columns, so that
/// a stage is one copy of neighbouring bytes. kRing pieces have room there, in turn. Behind them lies x likewise, all of it.
template <class Algorithm, class Matrix, class Layout, class Tile>
struct DenseWork {
  static constexpr int kPieceRows = 256;
  static constexpr int kPanelRows = 128;
  static constexpr int kStageColumns = SwizzledRows::kColumns;
  static constexpr int kStages = ceil_divide(Matrix::kColumns, kStageColumns);  // of a piece
  static constexpr int kPaddedColumns = kStages * kStageColumns;
  static constexpr int kImageBytes = kPieceRows * SwizzledRows::kRowBytes;
  static constexpr int64 kPieceBytes = static_cast<int64>(kStages) * kImageBytes;
  static constexpr int kRing = Tile::kRing;
  static_assert(Tile::kFirstPieces <= kRing, "what blocks wait for has room before anything is multiplied");
  using Inputs = ArrangedInputs<Tile::kElement, kPanelRows, kStages, PlainOrder, Matrix::kColumns>;

  /// Pieces; none crosses from one band of codebook tiles to the next.
  static constexpr int kBandRows = smaller(Matrix::kTileRows, Matrix::kRows);
  static constexpr int kBandPieces = ceil_divide(kBandRows, kPieceRows);
  static constexpr int kBands = ceil_divide(Matrix::kRows, kBandRows);
  static constexpr int kPieces = kBands * kBandPieces;
  static constexpr int kColumnTiles = ceil_divide(Matrix::kColumns, Matrix::kTileColumns);

  /// A piece is decoded in units of kUnitSteps steps along k of a lane, each of 32 rows at a time: as many as it takes to
  /// write all of its images.
  static constexpr int kQuad = 4;
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kStepColumns = Layout::kStepVectors * kVectorSize;  // of a lane
  static constexpr int kSpanColumns = Layout::kSpanVectors * kVectorSize;  // a lane's neighbouring ones
  static constexpr int kLaneColumns = ceil_divide(Matrix::kColumns, kQuad * kSpanColumns) * kSpanColumns;
  static constexpr int kPackedSteps = ceil_divide(kLaneColumns, kStepColumns);
  static constexpr int kTurnColumns = kSpanColumns > kStepColumns ? kSpanColumns : kStepColumns;
  static constexpr int kSteps = ceil_divide(kPaddedColumns, kQuad * kTurnColumns) * (kTurnColumns / kStepColumns);
  static constexpr int kUnitSteps = Tile::kUnitSteps;
  static constexpr int kPieceUnits = ceil_divide(kSteps, kUnitSteps);
  static constexpr int kUnits = kPieces * kPieceUnits;
  static_assert(kTurnColumns % kStepColumns == 0 && kTurnColumns % kSpanColumns == 0, "steps and spans are whole either way");
  static_assert(kBands == 1 || kBandRows % 32 == 0, "32 rows have one band's books");
  static_assert(kColumnTiles == 1 || (kSpanColumns == Matrix::kTileColumns && kSpanColumns / kStepColumns % kUnitSteps == 0),
                "a unit's lanes have one book each");
  static_assert(Tile::kQuadTiles == (kColumnTiles > 1 ? kQuad : 1), "each lane of a quad has its own column tile");

  /// Counters in the workspace, all zero between launches; behind room for kArrivals of them come the pieces. Those of x are
  /// of kPanels panels, the most that a launch has.
  struct Counters {
    uint32* words;

    VQCC_DEVICE uint32* next_tile() const { return words; }
    VQCC_DEVICE uint32* next_unit() const { return words + 1; }
    VQCC_DEVICE uint32* departed() const { return words + 2; }  // blocks
    VQCC_DEVICE uint32* of_inputs() const { return words + 3; }
    VQCC_DEVICE uint32* decoded(int piece) const { return words + kBeforePieces + piece; }  // units of it
    VQCC_DEVICE uint32* multiplied(int piece) const { return decoded(kPieces + piece); }  // tiles of it
  };
  static constexpr int kBeforePieces = 3 + Inputs::Counters::kBeforePanels + Tile::kPanels;
  static constexpr int kCounters = kBeforePieces + 2 * kPieces;
  static_assert(kCounters <= Tile::kArrivals, "every piece has counters");

  VQCC_DEVICE static Counters counters(uint8* workspace) { return {arrival_of(workspace, 0)}; }

  /// Where a piece is decoded to, as long as it has its place in the ring.
  VQCC_DEVICE static uint8* place_of(uint8* workspace, int piece) { return pieces(workspace) + piece % kRing * kPieceBytes; }
  VQCC_DEVICE static Inputs inputs(uint8* workspace) {
    return {pieces(workspace) + kRing * kPieceBytes, counters(workspace).of_inputs()};
  }

  /// Rows of a piece in W.
  VQCC_DEVICE static int band_of(int piece) { return piece / kBandPieces; }
  VQCC_DEVICE static int first_row_of(int piece) { return band_of(piece) * kBandRows + piece % kBandPieces * kPieceRows; }
  VQCC_DEVICE static int end_row_of(int piece) {
    return smaller(Matrix::kRows, smaller((band_of(piece) + 1) * kBandRows, first_row_of(piece) + kPieceRows));
  }

  VQCC_DEVICE static int panels_of(int m) { return ceil_divide(m, kPanelRows); }

 private:
  VQCC_DEVICE static uint8* pieces(uint8* workspace) {
    return reinterpret_cast<uint8*>(part_sums<Tile::kArrivals>(workspace));
  }
};

}  // namespace vqcc
