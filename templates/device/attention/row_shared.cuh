// Shared memory of a block of RowAttention: tables, codes on their way, and what warps and segments have.
#pragma once

#include "entry_rows.cuh"
#include "merge.cuh"

namespace vqcc {

/// Tables of keys' products, then rows of values, begin at a multiple of kTableRegionBytes of the block's window of shared
/// memory (Tile::kTablesRegion), so that a place in them is put together whole; stages of codes and all else are in front of
/// them as far as there is room, other stages behind. Or, where they take more than what lies past the first such multiple
/// (kTablesRegion 0), tables come first, and places are counted from them.
template <class Products, class Softmax, class ValueRows, int kWarpStageBytes, class Shape, class Tile>
class RowShared {
  static constexpr int kRows = Tile::kRows;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr bool kPlaced = Tile::kTablesRegion > 0;
  static constexpr int kTableBytes = Products::kBytes + ValueRows::kBytes;
  static constexpr int kTablesOffset = Tile::kTablesOffset;
  static constexpr int kReserved = kPlaced ? Tile::kTablesRegion * kTableRegionBytes - kTablesOffset : 0;

  static constexpr int kStageBytes = kWarps * kWarpStageBytes;
  static constexpr int kSumBytes = kWarps * kRows * Shape::kHeadDim * 4;
  static constexpr int kStateBytes = ceil_divide(2 * kRows + 1, 4) * 16;  // largest scores and sums of rows, and a flag

  // All but tables and stages.
  static constexpr int kWeights = 0;
  static constexpr int kRotations = kWeights + kWarps * Softmax::kWeightBytes;
  static constexpr int kScratch = kRotations + Products::kRotationBytes;
  static constexpr int kQueries = kScratch + kWarps * Products::kScratchBytes;
  static constexpr int kState = kQueries + kRows * Shape::kHeadDim * 4;
  static constexpr int kWarpState = kState + kStateBytes;
  static constexpr int kProgress = kWarpState + Softmax::kScratchFloats * 4;
  static constexpr int kOwnSums = kProgress + ceil_divide(static_cast<int>(sizeof(Progress<Tile::kBatch>)), 16) * 16;
  /// Sums of warps lie where tables were that are made anew, or where codes were that had as much room.
  static constexpr bool kSumsInTables = !Products::kKeepsRows && kSumBytes <= Products::kBytes;
  static constexpr bool kSumsInStage = !kSumsInTables && Tile::kStages > 0 && kSumBytes <= kStageBytes;
  static constexpr int kPartBytes = kOwnSums + (kSumsInTables || kSumsInStage ? 0 : kSumBytes);

  static constexpr int kFrontStages = kPlaced ? smaller(Tile::kStages, (kTablesOffset - kPartBytes) / kStageBytes) : 0;
  static constexpr int kPartsOffset = kPlaced ? kFrontStages * kStageBytes : kTableBytes;
  static constexpr int kBackOffset = kPlaced ? kTablesOffset + kTableBytes : kTableBytes + kPartBytes;
  static_assert(!kPlaced || kPartsOffset + kPartBytes <= kTablesOffset, "there is room in front of the tables");

 public:
  static constexpr int kBytes = kBackOffset + (Tile::kStages - kFrontStages) * kStageBytes;

  VQCC_DEVICE explicit RowShared(uint8* shared) : shared_(shared) {}

  /// Makes sure that tables are where look-ups expect them: a driver that reserves other than it says is an error.
  VQCC_DEVICE void start() const {
    if (kPlaced && shared_ - shared_window<kReserved>() != kReserved) stop_launch();
  }

  VQCC_DEVICE TableRegion products() const { return {base(), Tile::kTablesRegion}; }
  VQCC_DEVICE TableRegion values() const {
    return {base(), Tile::kTablesRegion + Products::kBytes / kTableRegionBytes};
  }

  /// This warp's codes of stage `stage`.
  VQCC_DEVICE uint8* stage(int stage) const {
    const int front = stage * kStageBytes;
    const int back = kBackOffset + (stage - kFrontStages) * kStageBytes;
    const int offset = kFrontStages == Tile::kStages || (kFrontStages > 0 && stage < kFrontStages) ? front : back;
    return shared_ + offset + warp_index() * kWarpStageBytes;
  }

  /// Of this warp: weights, scores on their way to the lanes of their tokens.
  VQCC_DEVICE uint8* weights() const { return part(kWeights) + warp_index() * Softmax::kWeightBytes; }
  VQCC_DEVICE uint8* scratch() const { return part(kScratch) + warp_index() * Products::kScratchBytes; }
  /// Of all warps: rotations of a token block's tokens, where keys need them.
  VQCC_DEVICE uint8* rotations() const { return part(kRotations); }
  /// [row][channel].
  VQCC_DEVICE float* queries() const { return reinterpret_cast<float*>(part(kQueries)); }
  /// Of rows, largest scores, then sums; those of warps.
  VQCC_DEVICE float* state() const { return reinterpret_cast<float*>(part(kState)); }
  VQCC_DEVICE uint32* flag() const { return reinterpret_cast<uint32*>(part(kState)) + 2 * kRows; }
  VQCC_DEVICE float* warp_state() const { return reinterpret_cast<float*>(part(kWarpState)); }
  VQCC_DEVICE Progress<Tile::kBatch>& progress() const {
    return *reinterpret_cast<Progress<Tile::kBatch>*>(part(kProgress));
  }
  VQCC_DEVICE float* sums() const {
    if constexpr (kSumsInTables) return reinterpret_cast<float*>(products().begin());
    else if constexpr (kSumsInStage) return reinterpret_cast<float*>(shared_ + (kFrontStages > 0 ? 0 : kBackOffset));
    else return reinterpret_cast<float*>(part(kOwnSums));
  }

 private:
  VQCC_DEVICE uint8* base() const { return kPlaced ? shared_window<kReserved>() : shared_; }
  VQCC_DEVICE uint8* part(int offset) const { return shared_ + kPartsOffset + offset; }

  uint8* shared_;
};

}  // namespace vqcc
