// Multiplies of a warpgroup that are on their way (see multiplies.cc), and what tensor cores may read.
#pragma once

#include "race.h"

namespace vqcc_emulator {

// What a lane brings to the start of a multiply.
struct StartedMultiply {
  MultiplyShape shape;
  float* sums;
  MatrixWords a;                // operand A in registers, or
  const unsigned char* a_rows;  // in shared memory
  const unsigned char* rows;    // operand B
};

void begin_block_multiplies();
void begin_block_showing();

// All lanes of a warp have come to one of the operations.
void fence_registers(unsigned warp);
void issue_multiply(unsigned warp);
void end_group(unsigned warp);
void finish_multiplies(unsigned warp);

// A thread ends: its warp may have no multiply on its way, and its warpgroup's warps must have made the same ones.
void check_no_multiplies(const Thread& thread);

// A store to bytes of shared memory that a multiply still reads is an error, and so is an access to its sums.
void check_operands(uint64_t offset, uint64_t bytes, Access access, Site site);
void check_sums(const void* address, uint64_t bytes, Access access, Site site);

// Whether what a thread stored at a clock has been shown to tensor cores and copies before what the observer does now.
bool is_shown(unsigned thread, uint32_t clock, const Thread& observer);
// A block barrier: all know what each had shown.
void meet_all();

}  // namespace vqcc_emulator
