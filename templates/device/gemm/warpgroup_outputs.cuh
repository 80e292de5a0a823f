// From a warp's sums of multiplies of a warpgroup to y.
#pragma once

#include "../gemv/outputs.cuh"
#include "stream_work.cuh"

namespace vqcc {

/// The sums of a warp: 32 rows of W, those of kTiles multiplies, by kBatch rows of x. Value i of tile `tile` is of row
/// 16 tile + g + 8 (i / 2 % 2) and of row 8 (i / 4) + 2t + i % 2 of x, for lane 4 g + t.
template <int kBatch>
struct WarpSums {
  static constexpr int kTiles = 2;
  static constexpr int kRows = 32;
  static constexpr int kValues = kBatch / 2;  // of a lane, in a tile
  float values[kTiles][kValues];
};

/// Adds up the parts of a tile that blocks share, each warp those of its rows, in the order of the columns. The block that
/// has the first of them adds up; each of the others has a place in the workspace for its sums.
template <int kBatch, int kWarps, int kArrivals>
class WarpParts {
  using Sums = WarpSums<kBatch>;
  static constexpr int kWords = Sums::kTiles * Sums::kValues / 4;  // of a lane, 16 bytes each

 public:
  VQCC_DEVICE WarpParts(uint8* workspace, int tile, int warp)
      : workspace_(workspace), counter_(arrival_of(workspace, tile * kWarps + warp)), warp_(warp) {}

  /// Leaves sums of a part that is not the first, and tells of it.
  VQCC_DEVICE void leave(int place, const Sums& sums) const {
    uint4* target = words_of(place);
#pragma unroll
    for (int tile = 0; tile < Sums::kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < Sums::kValues; i += 4) {
        const auto& v = sums.values[tile];
        store(target + (tile * Sums::kValues + i) / 4 * kWarpSize,
              make_uint4(float_as_bits(v[i]), float_as_bits(v[i + 1]), float_as_bits(v[i + 2]), float_as_bits(v[i + 3])));
      }
    }
    warp_barrier();  // all lanes' sums are written
    if (lane_index() == 0) tell_arrivals(counter_, 1u);
  }

  /// Adds those of the places from `first` to `last` to the first part's.
  VQCC_DEVICE void add_up(int first, int last, Sums& sums) const {
    if (lane_index() == 0) wait_for_arrivals(counter_, static_cast<uint32>(last - first + 1));
    warp_barrier();  // what the lane that waited may read, all may
    for (int place = first; place <= last; ++place) {
      const uint4* source = words_of(place);
#pragma unroll
      for (int tile = 0; tile < Sums::kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < Sums::kValues; i += 4) {
          uint32 bits[4];
          to_registers(load_fresh(source + (tile * Sums::kValues + i) / 4 * kWarpSize), bits);
#pragma unroll
          for (int j = 0; j < 4; ++j) sums.values[tile][i + j] += float_of_bits(bits[j]);
        }
      }
    }
    if (lane_index() == 0) *counter_ = 0u;  // as the next launch expects it
  }

 private:
  VQCC_DEVICE uint4* words_of(int place) const {
    const int first = (place * kWarps + warp_) * kWords * kWarpSize;  // all places have few bytes enough for an int
    return reinterpret_cast<uint4*>(part_sums<kArrivals>(workspace_)) + first + lane_index();
  }

  uint8* workspace_;
  uint32* counter_;
  int warp_;
};

/// Stores a warp's sums: by way of shared memory, so that eight rows of W are a store.
template <class Tile, class Matrix, class Arguments>
class WarpOutputs {
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Sums = WarpSums<Tile::kBatch>;
  static constexpr int kQuad = 4;
  static constexpr int kGroup = 8;                               // rows of x of a matrix of sums
  static constexpr int kInputs = smaller(Tile::kBatch, 32);      // rows of x at a time
  static constexpr int kPieceRows = 8;                           // of W, of 16 bytes
  static constexpr int kStride = 2 * (Sums::kRows + kPieceRows);  // of shared memory, bytes: rows of x then meet in no bank

 public:
  /// Shared memory of a warp.
  static constexpr int kBytes = kInputs * kStride;

  /// Rows from `first_row` on, as far as `end_row`, of y as `arguments` say; `shared` are the warp's kBytes.
  VQCC_DEVICE WarpOutputs(const Arguments& arguments, int first_row, int end_row, uint8* shared)
      : arguments_(arguments), first_row_(first_row), end_row_(end_row), shared_(shared) {}

  /// Sums times `factor`.
  VQCC_DEVICE void store(const Sums& sums, float factor) const {
    float scales[kQuad];  // of this lane's four rows, and their biases
    float biases[kQuad];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const int row = smaller(first_row_ + kGroup * i + lane_index() / kQuad, end_row_ - 1);
      scales[i] = factor * row_scale<Matrix>(arguments_.scales, row);
      biases[i] = arguments_.bias == nullptr ? 0.0f : load_element<Tile::kElement>(arguments_.bias, row);
    }
#pragma unroll
    for (int first = 0; first < Tile::kBatch; first += kInputs) {
      if (first >= arguments_.m) break;
#pragma unroll
      for (int group = 0; group < kInputs / kGroup; ++group) {
        uint32 matrices[kQuad];
#pragma unroll
        for (int i = 0; i < kQuad; ++i) {
          const float* pair = &sums.values[i / 2][(first / kGroup + group) * 4 + i % 2 * 2];
          const float2 outputs = make_float2(scales[i] * pair[0] + biases[i], scales[i] * pair[1] + biases[i]);
          matrices[i] = round_pair<Tile::kElement>(outputs);
        }
        store_transposed(matrices, place(group * kGroup + lane_index() % kGroup, lane_index() / kGroup));
      }
      warp_barrier();
#pragma unroll
      for (int group = 0; group < kInputs / kGroup; ++group) {
        const int b = group * kGroup + lane_index() / kQuad;
        store_piece(first + b, lane_index() % kQuad * kPieceRows, place(b, lane_index() % kQuad));
      }
      warp_barrier();  // before the next sums
    }
  }

 private:
  VQCC_DEVICE uint8* place(int b, int piece) const { return shared_ + b * kStride + piece * 2 * kPieceRows; }

  /// Rows of W from the warp's row `own` on, of row b of x.
  VQCC_DEVICE void store_piece(int b, int own, const uint8* sums) const {
    if (b >= arguments_.m) return;
    const int row = first_row_ + own;
    Element* target = arguments_.y + b * arguments_.y_stride + row;
    if (row + kPieceRows <= end_row_ && reinterpret_cast<unsigned long long>(target) % 16 == 0) {
      vqcc::store(reinterpret_cast<uint4*>(target), load<Space::kShared>(reinterpret_cast<const uint4*>(sums)));
    } else {
#pragma unroll
      for (int i = 0; i < kPieceRows; ++i) {
        if (row + i < end_row_) target[i] = reinterpret_cast<const Element*>(sums)[i];
      }
    }
  }

  const Arguments& arguments_;
  int first_row_;
  int end_row_;
  uint8* shared_;
};

}  // namespace vqcc
