// Activations as operands of m16n8k16 multiplies whose other operand is eight rows of weights, as they are decoded.
#pragma once

#include "../elements.cuh"

namespace vqcc {

/// Few rows of x, as operand B: the weights are operand A, and a multiply takes eight columns of each lane of a quad.
///
/// A looked-up entry lies in neighbouring registers, which operand A gives to rows g and g + 8 in turn. Both are row g of
/// the weights here, at other columns: of B's eight columns the first four are rows of x where rows g of A are, the others
/// the same rows of x where rows g + 8 are. So half of each sum is of use, nothing has to be moved, and a multiply takes
/// 32 weights of each row. kRows is 1, 2 or 4.
template <ElementType kType, int kRows>
struct FewInputs {
  static constexpr int kTiles = 1;        // of rows of x that an operand has
  static constexpr int kLaneColumns = 8;  // of a fragment
  static constexpr int kBytes = kRows * kLaneColumns * 4 * 2;
  static_assert(kRows <= 4, "half of operand B's eight columns");

  struct Fragment {
    uint32 pairs[2];
  };

  /// Where pair `pair` of lane t's columns of row `row` lies: A's registers 0 and 2 are of rows g, 1 and 3 of rows g + 8.
  VQCC_DEVICE static int place(int fragment, int row, int t, int pair) {
    return fragment * kBytes + ((pair % 2 * kRows + row) * 4 + t) * 8 + pair / 2 * 4;
  }

  VQCC_DEVICE static Fragment load_fragment(const uint8* inputs, int fragment) {
    const int column = lane_index() / 4;
    const uint8* own = inputs + place(fragment, column % kRows, lane_index() % 4, column / 4);
    Fragment loaded;
    to_registers(load<Space::kShared>(reinterpret_cast<const uint2*>(own)), loaded.pairs);
    return loaded;
  }

  VQCC_DEVICE static void multiply(float (&sums)[kTiles][4], const Fragment& inputs, const uint32 (&weights)[4]) {
    multiply_fragments<kType>(sums[0], weights, inputs.pairs);
  }

  /// Calls `take(row, b, sum)` for the sums that this lane has of eight rows of weights and rows b of x.
  template <class Take>
  VQCC_DEVICE static void take_sums(const float (&sums)[kTiles][4], const Take& take) {
    const int t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float half = t < 2 ? sums[0][i] : sums[0][2 + i];
      const float sum = half + exchange_xor(half, 2);
      if (t < 2) take(lane_index() / 4, 2 * t + i, sum);
    }
  }
};

/// Sixteen rows of x, or several times as many, as operand A: the weights are operand B, four columns of each lane of a
/// quad. What was decoded is multiplied with kTiles tiles of sixteen rows.
template <ElementType kType, int kInputRows>
struct ManyInputs {
  static constexpr int kTileRows = 16;
  static constexpr int kTiles = kInputRows / kTileRows;
  static constexpr int kLaneColumns = 4;
  static constexpr int kTileBytes = kTileRows * kLaneColumns * 4 * 2;
  static constexpr int kBytes = kTiles * kTileBytes;
  static_assert(kInputRows % kTileRows == 0, "whole tiles");

  struct Fragment {
    uint32 pairs[kTiles][4];
  };

  /// Where a pair lies: a lane's 16 bytes are its registers of A. Threads next to each other write what is four or eight
  /// columns apart, so fragments are turned against each other: writes meet in few banks, and loads in none.
  VQCC_DEVICE static int place(int fragment, int row, int t, int pair) {
    // Rows of either parity are a constant apart: bit 2 of a turn exchanges even and odd ones.
    const int turn = turn_of(fragment);
    const int exchanged = row % 2 == 0 ? turn & 4 : -(turn & 4);
    const int tile = kTiles == 1 ? 0 : row / kTileRows;  // which the compiler may not see of a row of one
    return fragment * kBytes + tile * kTileBytes + ((t ^ (turn & 3)) + exchanged + row % 8 * 4) * 16 + pair * 8 +
           (row - tile * kTileRows) / 8 * 4;
  }

  VQCC_DEVICE static Fragment load_fragment(const uint8* inputs, int fragment) {
    const uint8* own = inputs + fragment * kBytes + (lane_index() * 16 ^ turn_of(fragment) * 16);
    Fragment loaded;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      to_registers(load<Space::kShared>(reinterpret_cast<const uint4*>(own + tile * kTileBytes)), loaded.pairs[tile]);
    }
    return loaded;
  }

  VQCC_DEVICE static void multiply(float (&sums)[kTiles][4], const Fragment& inputs, const uint32 (&weights)[2]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) multiply_fragments<kType>(sums[tile], inputs.pairs[tile], weights);
  }

  template <class Take>
  VQCC_DEVICE static void take_sums(const float (&sums)[kTiles][4], const Take& take) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        take(lane_index() % 4 * 2 + i % 2, tile * kTileRows + lane_index() / 4 + i / 2 * 8, sums[tile][i]);
      }
    }
  }

 private:
  VQCC_DEVICE static int turn_of(int fragment) { return (fragment & 1) * 4 + (fragment >> 1 & 3); }
};

template <ElementType kType, int kRows, bool kMany = (kRows >= 16)> struct InputsOf;
template <ElementType kType, int kRows> struct InputsOf<kType, kRows, false> { using Type = FewInputs<kType, kRows>; };
template <ElementType kType, int kRows> struct InputsOf<kType, kRows, true> { using Type = ManyInputs<kType, kRows>; };

}  // namespace vqcc
