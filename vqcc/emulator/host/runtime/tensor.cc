// mma.m16n8k16: the lanes' registers put together to tiles by the layouts of the PTX ISA, multiplied, and taken apart.
//
// Products are exact (of bfloat16, as far as fp32's range goes); they are added to the sum one after another, in the
// order of k, each time rounded to fp32. A GPU adds several at once, in a way that is not documented: results differ in
// the last bits.
#include "tensor.h"

#include "../include/vqcc_emulator/rounding.h"

namespace vqcc_emulator {

namespace {

constexpr unsigned rows = 16, columns = 8, depth = 16;

// One register holds k and k + 1, the lower in its low half.
void unpack(TensorFormat format, uint32_t pair, float* even, float* odd) {
  const unsigned short low = static_cast<unsigned short>(pair), high = static_cast<unsigned short>(pair >> 16);
  *even = format == TensorFormat::f16 ? half_to_float(low) : bfloat16_to_float(low);
  *odd = format == TensorFormat::f16 ? half_to_float(high) : bfloat16_to_float(high);
}

float canonical(float value) { return value != value ? bit_cast<float>(0x7fffffffu) : value; }

}  // namespace

void multiply_tiles(TensorOperands* const (&lanes)[warp_size]) {
  float a[rows][depth], b_by_column[columns][depth], b[depth][columns], sums[rows][columns];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    const TensorOperands& mine = *lanes[lane];
    const unsigned group = lane / 4, pair = lane % 4 * 2;
    for (unsigned i = 0; i < 4; ++i) {
      float* at = &a[group + i % 2 * 8][pair + i / 2 * 8];
      unpack(mine.format, mine.fragments.a[i], at, at + 1);
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
  for (unsigned row = 0; row < rows; ++row) {
    for (unsigned k = 0; k < depth; ++k) {
      for (unsigned column = 0; column < columns; ++column) {
        sums[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      lanes[lane]->fragments.sums[i] = canonical(sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
    }
  }
}

}  // namespace vqcc_emulator
