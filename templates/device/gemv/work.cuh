// What a gemv launch passes, and what one warp of it works on.
#pragma once

#include "../matrix.cuh"

namespace vqcc {

/// What a launch passes. Strides are in elements; x, y and bias have the activations' type.
template <class Element>
struct GemvArguments {
  const uint32* codes;        // packed, in the layout of the dataflow
  const uint8* books;         // [books][kTableBytes]
  const float* stage_scales;  // [books][kResiduals], int8 codebooks only
  const void* scales;         // as ScaleMode says
  const Element* x;           // [m][k], rows x_stride apart
  const Element* bias;        // [n] or null
  Element* y;                 // [m][n], rows y_stride apart
  uint8* workspace;           // arrivals and partial sums of blocks that share outputs; all zero arrivals between launches
  int m;                      // at least 1, at most as many rows of x as the kernel is for
  int64 x_stride;
  int64 y_stride;
};

/// Panels of rows of x that a launch has at most: as many as the tile says, or one.
template <class Tile, class = void>
struct PanelsOf {
  static constexpr int kPanels = 1;
};
template <class Tile>
struct PanelsOf<Tile, decltype(static_cast<void>(Tile::kPanels))> {
  static constexpr int kPanels = Tile::kPanels;
};

/// Rows of x that a block works on. Where a launch has more than a pass over the weights serves, kBatch, it has the blocks
/// of one panel of so many rows after the other's. Where blocks of several panels share outputs each has counters of its own.
template <class Tile>
struct Panel {
  static constexpr int kPanels = PanelsOf<Tile>::kPanels;
  int panel;
  int block;  // of the panel's

  VQCC_DEVICE explicit Panel(int blocks)
      : panel(kPanels == 1 ? 0 : static_cast<int>(blockIdx.x) / blocks),
        block(kPanels == 1 ? static_cast<int>(blockIdx.x) : static_cast<int>(blockIdx.x) % blocks) {}

  /// What the launch passes, for the panel alone.
  template <class Arguments>
  VQCC_DEVICE Arguments of(const Arguments& launched) const {
    Arguments own = launched;
    if constexpr (kPanels > 1) {
      own.x += panel * Tile::kBatch * launched.x_stride;
      own.y += panel * Tile::kBatch * launched.y_stride;
      own.m -= panel * Tile::kBatch;
    }
    return own;
  }

  /// Blocks of each panel of a launch.
  VQCC_DEVICE static int blocks_of(int m) {
    return static_cast<int>(gridDim.x) / (kPanels == 1 ? 1 : ceil_divide(m, Tile::kBatch));
  }
};

/// A block's rows of W, and the columns and stages whose codebooks are resident.
struct GemvWork {
  int block_row;     // first row of the block
  int end_row;       // of the band: rows from here on have other books, or are past the matrix
  int first_book;    // resident book 0
  int first_tile;    // the column tile it belongs to
  int first_column;
  int end_column;
  int first_stage;
};

/// A block's warps: some have rows of their own, others share rows and split their columns.
template <class Tile>
struct GemvWarp {
  /// First row of the warp among the block's.
  VQCC_DEVICE static int row() { return warp_index() % Tile::kWarpsAcrossRows * Tile::kRowsPerWarp; }

  /// Which share of the columns the warp takes.
  VQCC_DEVICE static int share() { return warp_index() / Tile::kWarpsAcrossRows; }

  /// Row `r` of the warp in the matrix; past the end the last row again, decoded but never stored.
  VQCC_DEVICE static int row_of(const GemvWork& work, int r) {
    return smaller(work.block_row + row() + r, work.end_row - 1);
  }
};

/// The part of a row that a block takes: the columns and stages of one codebook-centric part (Sec. VI-A), whose books
/// are resident in phases if they do not all fit.
template <class Algorithm, class Matrix, class Layout, class Tile>
struct GemvParts {
  using Shape = Geometry<Algorithm, Matrix, Layout>;

  static constexpr int kParts = Tile::kSplitTiles * Tile::kSplitStages;
  static constexpr int kStages = Algorithm::kResiduals / Tile::kSplitStages;
  static constexpr int kPartTiles = ceil_divide(Shape::kColumnTiles, Tile::kSplitTiles);  // the last part may be shorter
  static constexpr int kPhases = ceil_divide(kPartTiles, Tile::kResidentTiles);
  static constexpr int kPhaseColumns = Tile::kResidentTiles * Matrix::kTileColumns;
  static constexpr int kPartColumns = kPartTiles * Matrix::kTileColumns;
  /// Pieces that a row is worked on in, one after another or by different blocks.
  static constexpr int kSteps = kPhases * Tile::kSplitTiles;
  static_assert((Tile::kSplitTiles - 1) * kPartTiles < Shape::kColumnTiles, "every part has column tiles");
  static_assert(Algorithm::kResiduals % Tile::kSplitStages == 0, "parts have as many stages each");
  /// Whether the columns of some phase begin or end inside a segment.
  static constexpr bool kCutSegments = (kPhases > 1 && kPhaseColumns % Shape::kSegmentColumns != 0) ||
                                       (Tile::kSplitTiles > 1 && kPartColumns % Shape::kSegmentColumns != 0);

  /// Narrows `work` to phase `phase` of part `part`; the number of its column tiles.
  VQCC_DEVICE static int narrow(GemvWork& work, int part, int phase) {
    const int part_tile = part % Tile::kSplitTiles * kPartTiles;
    work.first_stage = part / Tile::kSplitTiles * kStages;
    work.first_tile = part_tile + phase * Tile::kResidentTiles;
    const int end_tile = smaller(part_tile + kPartTiles, Shape::kColumnTiles);
    const int tiles = smaller(Tile::kResidentTiles, end_tile - work.first_tile);
    work.first_column = work.first_tile * Matrix::kTileColumns;
    work.end_column = smaller(Matrix::kColumns, work.first_column + tiles * Matrix::kTileColumns);
    return tiles;
  }
};

/// The book, among the resident ones, of the vector at `column`.
template <class Matrix, class Shape>
VQCC_DEVICE int resident_book(const GemvWork& work, int column) {
  return Shape::kColumnTiles == 1 ? 0 : column / Matrix::kTileColumns - work.first_tile;
}

}  // namespace vqcc
