// The multiply of tensor cores (see tensor.cc).
#pragma once

#include "state.h"

namespace vqcc_emulator {

// What a lane waits with: its registers, whose sums the last lane to come replaces.
struct TensorOperands {
  TensorFormat format;
  Fragments fragments;
};

void multiply_tiles(TensorOperands* const (&lanes)[warp_size]);

constexpr unsigned tile_rows = 16, tile_depth = 16;
constexpr unsigned maximum_columns = 256;

// Eight 16-bit elements, widened.
void unpack_row(TensorFormat format, const unsigned char* elements, float* widened);

// A lane's part of A: rows g and g + 8 at k = 2t and 2t + 8.
void place_rows(TensorFormat format, unsigned lane, const uint32_t (&words)[4], float (&a)[tile_rows][tile_depth]);

// sums += A B for a warp's rows of A and columns of B, each a row of `b`.
void multiply_rows(unsigned columns, const float (&a)[tile_rows][tile_depth],
                   const float (&b)[maximum_columns][tile_depth], float (&sums)[tile_rows][maximum_columns]);

}  // namespace vqcc_emulator
