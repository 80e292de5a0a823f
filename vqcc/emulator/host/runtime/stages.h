// Barriers of stages, and bulk copies that report to them (see stages.cc).
#pragma once

#include "state.h"

namespace vqcc_emulator {

void begin_block_stages();

// No thread of the block can run: lands the copies of one phase that some wait for and that lacks nothing else. Returns
// whether it did; the result holds a failure if a copy is found wrong then.
bool land_copies();

// The last thread of the block ends: no copy may be on its way.
void check_no_flying_copies();

// Adds to a failure what barriers and parities threads wait for, and what the barrier of one of them lacks, if it waits
// for one: arrivals as its mask, bytes as its bytes.
void describe_stages(Failure& failure, const Thread& first);

}  // namespace vqcc_emulator
