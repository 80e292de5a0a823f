// Barriers of groups of warps (see groups.cc).
#pragma once

#include "state.h"

namespace vqcc_emulator {

void begin_block_groups();

// Adds to a failure the names and the counts that threads wait with.
void describe_groups(Failure& failure);

}  // namespace vqcc_emulator
