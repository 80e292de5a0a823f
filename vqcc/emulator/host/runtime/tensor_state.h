// Multiplies of a warpgroup on their way, as multiplies.cc and operands.cc keep them.
#pragma once

#include "memory.h"
#include "order.h"
#include "tensor.h"

namespace vqcc_emulator {

constexpr unsigned warps_of_group = 4;
constexpr unsigned row_bytes = 128, segment_bytes = 32;  // of an operand, and of a slice in a row

struct Sums {
  float* lanes[warp_size];
  unsigned columns;
  unsigned users = 0;  // multiplies on their way that add to them
  float values[tile_rows][maximum_columns];
};

struct Multiply {
  uint32_t serial;  // of its warp, from 1 on: what tensor cores of a warp have read is known by it
  uint32_t group;
  uint32_t epoch;   // of its start
  uint64_t a_offset;  // of operand A in the arena, 0 where it lies in registers
  uint64_t offset;    // of operand B
  MultiplyShape shape;
  Site site;
  Sums* sums;
};

// What all four warps of a warpgroup must do alike.
struct Issued {
  Site site;
  MultiplyShape shape;
  const unsigned char* a_rows;
  const unsigned char* rows;
};

struct TensorWarp {
  std::vector<Multiply> flying;
  std::vector<std::unique_ptr<Sums>> sums;
  uint32_t serial = 0;
  uint32_t group = 0;  // that is being filled
  bool fenced = false;
  size_t issued = 0;
};

struct TensorBlock {
  TensorWarp warps[maximum_warps];
  std::vector<Issued> issued[maximum_warps / warps_of_group];
  std::vector<uint16_t> readers;  // multiplies on their way that read a segment of shared memory
};
// Of the block that runs.
TensorBlock& own_block();

// Calls `action` with each of some rows and where in the arena their parts of a slice lie: 16-byte pieces are turned by the
// row, so that two neighbours stay such.
template <class Action>
void for_segments(uint64_t offset, unsigned first_row, unsigned rows, unsigned slice, Action action) {
  for (unsigned row = first_row; row < first_row + rows; ++row) {
    action(row, offset + row * row_bytes + ((2 * slice ^ row % 8) & ~1u) * 16);
  }
}

// The same of all that a warp's tensor cores read for a multiply: operand B, and its own rows of operand A.
template <class Action>
void for_operands(unsigned warp, const Multiply& multiply, Action action) {
  for_segments(multiply.offset, 0, multiply.shape.columns, multiply.shape.slice, action);
  if (multiply.a_offset != 0) {
    for_segments(multiply.a_offset, warp % warps_of_group * tile_rows, tile_rows, multiply.shape.slice, action);
  }
}

// Tensor cores begin to read operands in shared memory for a multiply, or have read them.
void read_operands(unsigned warp, const Multiply& multiply);
void release_operands(unsigned warp, const Multiply& multiply);

}  // namespace vqcc_emulator
