// Order between the blocks of a launch (see fences.cc).
#pragma once

#include <stdint.h>

namespace vqcc_emulator {

void begin_launch_order();
void begin_cluster_order();
void note_global_atomic(uint64_t offset);

}  // namespace vqcc_emulator
