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

}  // namespace vqcc_emulator
