// Counting what a warp's accesses cost together. Each lane's accesses are logged until the warp synchronizes; then the
// k-th access of every lane at one place in the code is taken as one access of the warp, as lanes in lockstep would
// make it.
#pragma once

#include "state.h"

namespace vqcc_emulator {

struct Logged {
  Site site;
  uint32_t bytes;
  uint64_t offset;
  Access access;
  bool shared;
};

void count_access(const Thread& thread, uint64_t offset, uint64_t bytes, Access access, bool shared, Site site);
void count_operation(WarpOperation operation);
// Takes the logs of these lanes as complete up to here.
void flush_lanes(unsigned warp, uint32_t lanes);
void discard_logs();

}  // namespace vqcc_emulator
