// Work that is dealt out by parts of the rows times parts of the columns: where a part begins, and how sums end.
#pragma once

#include "outputs.cuh"

namespace vqcc {

/// First of the kCount things that part `part` of kParts has: each has as many, or the first ones one more.
template <int kCount, int kParts>
VQCC_DEVICE int first_of(int part) {
  return kCount / kParts * part + smaller(part, kCount % kParts);
}

/// Stores the sums of a block's `rows` rows from `first_row` on, or leaves them to the other parts of the columns, of
/// which it is part `column_part`. Shared memory has them at [b * kRows + row] of `row_sums` for row b of x, and has
/// been read but for them. Every thread of the block calls it.
template <class Tile, class Matrix, int kRows, int kInputRows, int kThreads, class Arguments>
VQCC_DEVICE void finish_rows(const Arguments& arguments, int row_part, int column_part, int first_row, int rows,
                             const float* row_sums) {
  constexpr int kSums = kRows * kInputRows;
  const auto sum_of = [&](int i) { return i % kRows < rows ? row_sums[i] : 0.0f; };
  const auto store = [&](int i, float sum) {
    const int row = first_row + i % kRows;
    if (i % kRows < rows && row < Matrix::kRows) store_output<Tile, Matrix>(arguments, row, i / kRows, sum);
  };
  if constexpr (Tile::kColumnParts == 1) {
    for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) store(i, sum_of(i));
  } else {
    constexpr int kParts = Tile::kColumnParts;
    uint32* flag = reinterpret_cast<uint32*>(dynamic_shared());
    float* sums = part_sums<Tile::kArrivals>(arguments.workspace) + static_cast<int64>(row_part) * kParts * kSums;
    reduce_parts<kSums, kThreads>(arrival_of(arguments.workspace, row_part), sums, flag, column_part, kParts, sum_of,
                                  store);
  }
}

}  // namespace vqcc
