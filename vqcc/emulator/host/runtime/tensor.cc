// mma.m16n8k16: the lanes' registers put together to tiles by the layouts of the PTX ISA, multiplied, and taken apart.
//
// Products are exact (of bfloat16, as far as fp32's range goes); they are added to the sum one after another, in the
// order of k, each time rounded to fp32. A GPU adds several at once, in a way that is not documented: results differ in
// the last bits.
#include "tensor.h"

#include <string.h>

#include "../include/vqcc_emulator/rounding.h"

namespace vqcc_emulator {

namespace {

constexpr unsigned rows = tile_rows, columns = 8, depth = tile_depth;

// One register holds k and k + 1, the lower in its low half.
void unpack(TensorFormat format, uint32_t pair, float* even, float* odd) {
  const unsigned short low = static_cast<unsigned short>(pair), high = static_cast<unsigned short>(pair >> 16);
  *even = format == TensorFormat::f16 ? half_to_float(low) : bfloat16_to_float(low);
  *odd = format == TensorFormat::f16 ? half_to_float(high) : bfloat16_to_float(high);
}

// Row by row, so that the inner loop is one of neighbours.
void add_products(const float (&a)[rows][depth], const float (&b)[depth][columns], float (&sums)[rows][columns]) {
  for (unsigned row = 0; row < rows; ++row) {
    for (unsigned k = 0; k < depth; ++k) {
      for (unsigned column = 0; column < columns; ++column) {
        sums[row][column] += a[row][k] * b[k][column];
      }
    }
  }
}

float canonical(float value) { return value != value ? bit_cast<float>(0x7fffffffu) : value; }

}  // namespace

void place_rows(TensorFormat format, unsigned lane, const uint32_t (&words)[4], float (&a)[rows][depth]) {
  for (unsigned i = 0; i < 4; ++i) {
    float* at = &a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8];
    unpack(format, words[i], at, at + 1);
  }
}

void multiply_tiles(TensorOperands* const (&lanes)[warp_size]) {
  float a[rows][depth], b_by_column[columns][depth], b[depth][columns], sums[rows][columns];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    const TensorOperands& mine = *lanes[lane];
    const unsigned group = lane / 4, pair = lane % 4 * 2;
    place_rows(mine.format, lane, mine.fragments.a, a);
    for (unsigned i = 0; i < 4; ++i) {
      sums[group + i / 2 * 8][pair + i % 2] = mine.fragments.sums[i];
    }
    for (unsigned i = 0; i < 2; ++i) {
      float* at = &b_by_column[group][pair + i * 8];
      unpack(mine.format, mine.fragments.b[i], at, at + 1);
    }
  }
  for (unsigned k = 0; k < depth; ++k) {
    for (unsigned column = 0; column < columns; ++column) {
      b[k][column] = b_by_column[column][k];
    }
  }
  add_products(a, b, sums);
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      lanes[lane]->fragments.sums[i] = canonical(sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
    }
  }
}

void unpack_row(TensorFormat format, const unsigned char* elements, float* widened) {
  for (unsigned i = 0; i < 8; i += 2) {
    uint32_t pair;
    memcpy(&pair, elements + 2 * i, sizeof(pair));
    unpack(format, pair, widened + i, widened + i + 1);
  }
}

void multiply_rows(unsigned all_columns, const float (&a)[tile_rows][tile_depth],
                   const float (&b)[maximum_columns][tile_depth], float (&sums)[tile_rows][maximum_columns]) {
  float right[depth][columns], tile[rows][columns];
  for (unsigned first = 0; first < all_columns; first += columns) {
    for (unsigned column = 0; column < columns; ++column) {
      for (unsigned k = 0; k < depth; ++k) {
        right[k][column] = b[first + column][k];
      }
      for (unsigned row = 0; row < rows; ++row) {
        tile[row][column] = sums[row][first + column];
      }
    }
    add_products(a, right, tile);
    for (unsigned row = 0; row < rows; ++row) {
      for (unsigned column = 0; column < columns; ++column) {
        sums[row][first + column] = canonical(tile[row][column]);
      }
    }
  }
}

}  // namespace vqcc_emulator
