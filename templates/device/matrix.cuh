// Where the parts of a quantized matrix lie: scopes of codebooks, scales, packed rows.
#pragma once

#include "elements.cuh"

namespace vqcc {

enum class ScaleMode { kNone, kTensor, kRow, kGroup };

/// Facts that follow from the constants of `Matrix` (n, k, scope, scales) and `Layout` (packed rows).
template <class Codes, class Matrix, class Layout>
struct Geometry {
  static constexpr int kVectors = Matrix::kColumns / Codes::kVectorSize;
  static_assert(Matrix::kColumns % Codes::kVectorSize == 0, "a vector never crosses a row's end");

  /// Codebook scope: tiles of kTileRows x kTileColumns, the last of each direction cut by the matrix's edge.
  static constexpr int kColumnTiles = ceil_divide(Matrix::kColumns, Matrix::kTileColumns);
  static constexpr int kBands = ceil_divide(Matrix::kRows, Matrix::kTileRows);
  static_assert(Matrix::kTileColumns % Codes::kVectorSize == 0 || kColumnTiles == 1, "a vector has one codebook");

  /// A row is cut into segments of kLanes chunks, the last shorter. Vector j of chunk l is number `j * lanes + l` of
  /// its segment, so that lanes next to each other read activations next to each other.
  static constexpr int kLanes = Layout::kLanes;
  static constexpr int kSegmentVectors = kLanes * Layout::kChunkVectors;
  static constexpr int kSegmentColumns = kSegmentVectors * Codes::kVectorSize;
  static constexpr int kFullSegments = kVectors / kSegmentVectors;
  static constexpr int kTailVectors = kVectors % kSegmentVectors;
  static constexpr int kTailLanes = ceil_divide(kTailVectors, Layout::kChunkVectors);
  static constexpr int kSegments = kFullSegments + (kTailVectors > 0 ? 1 : 0);
  static constexpr int kRowWords = (kFullSegments * kLanes + kTailLanes) * Layout::kChunkWords;

  /// Chunks of segment `segment`.
  VQCC_DEVICE static int lanes_of(int segment) { return segment < kFullSegments ? kLanes : kTailLanes; }
};

/// The factor of the vector at (`row`, `column`), for scales that change along a row.
template <class Matrix>
VQCC_DEVICE float group_scale(const void* scales, int row, int column) {
  if constexpr (Matrix::kScaleMode == ScaleMode::kGroup) {
    constexpr int kGroups = ceil_divide(Matrix::kColumns, Matrix::kGroupColumns);
    return load_element<ElementType::kFloat16>(scales, row * kGroups + column / Matrix::kGroupColumns);
  } else {
    return 1.0f;
  }
}

/// The factor of a whole row, for scales that do not.
template <class Matrix>
VQCC_DEVICE float row_scale(const void* scales, int row) {
  if constexpr (Matrix::kScaleMode == ScaleMode::kTensor) return load_element<ElementType::kFloat32>(scales, 0);
  if constexpr (Matrix::kScaleMode == ScaleMode::kRow) return load_element<ElementType::kFloat32>(scales, row);
  return 1.0f;
}

}  // namespace vqcc
