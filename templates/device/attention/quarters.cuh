// Which rows and columns of an m16n8k16 a lane has, where rows are (query row, turn), four times four.
#pragma once

#include "cache.cuh"

namespace vqcc {

/// Lane 4 g + m has rows g and g + 8 of operand A and of sums: turn g % 4 of query rows g / 4 and g / 4 + 2.
struct Quarters {
  static constexpr int kTurns = 4;
  static constexpr int kRows = 4;

  VQCC_DEVICE static int turn() { return lane_index() / 4 % 4; }
  /// The first query row that this lane has; the other one is two further.
  VQCC_DEVICE static int row() { return lane_index() / 16; }
  /// The member of its quad of lanes.
  VQCC_DEVICE static int member() { return lane_index() % 4; }

  /// Keys: columns are an octet's tokens, of which a row is of use in those of its own turn, `turn` and `turn` + 4. Half of
  /// the lanes have such a column: whether this one does, and the token of an octet that it is.
  VQCC_DEVICE static bool has_token() { return member() % 2 == turn() / 2; }
  VQCC_DEVICE static int token_of(int octet) { return octet * 8 + member() * 2 + turn() % 2; }

  /// The largest `value` of the 16 lanes that have the same query rows.
  VQCC_DEVICE static float largest_of_row(float value) {
#pragma unroll
    for (int mask = 8; mask > 0; mask /= 2) value = larger(value, exchange_xor(value, mask));
    return value;
  }
};

}  // namespace vqcc
