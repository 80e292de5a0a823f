// Counting what a warp's accesses cost together. Each lane's accesses are logged until the warp synchronizes; then the
// k-th access of every lane at one place in the code is taken as one access of the warp, as lanes in lockstep would
// make it.
#pragma once

#include "state.h"

namespace vqcc_emulator {

// Global memory, the block's shared memory, or that of another block of its cluster.
enum class Place : uint8_t { global, shared, remote };

struct Logged {
  Site site;
  uint32_t bytes;
  uint64_t offset;
  Access access;
  Place place;
};

void count_access(const Thread& thread, uint64_t offset, uint64_t bytes, Access access, Place place, Site site);
void count_operation(WarpOperation operation);
// Takes the logs of these lanes as complete up to here.
void flush_lanes(unsigned warp, uint32_t lanes);
void discard_logs();

}  // namespace vqcc_emulator
