// The state of the one launch in progress. A process runs one launch at a time; the caller holds a lock.
#pragma once

#include <setjmp.h>

#include <memory>
#include <vector>

#include "../include/vqcc_emulator/interface.h"
#include "../include/vqcc_emulator/kernel.h"
#include "fiber.h"
#include "result.h"

namespace vqcc_emulator {

constexpr unsigned warp_size = 32;
constexpr unsigned maximum_threads = 1024;
constexpr unsigned maximum_warps = maximum_threads / warp_size;
constexpr unsigned maximum_cluster = 8;  // blocks

using Site = uint32_t;  // code address as an offset into the kernel's module; 0 where there is none

enum class Wait : uint8_t { none, warp, barrier, exited, cluster, stage, group, others };

// Of each thread of a block, the clock up to which what it did is known (see order.h). Never changed, as many share one.
using Clocks = std::shared_ptr<const std::vector<uint32_t>>;

// An asynchronous copy not yet waited for.
struct PendingCopy {
  void* destination;
  const void* source;
  uint32_t bytes, source_bytes, group;
  Site site;
};

struct Thread {
  Context context;
  unsigned char* stack = nullptr;
  uint16_t index = 0;  // linear, in the block
  uint8_t lane = 0;
  uint8_t warp = 0;
  Wait wait = Wait::none;
  Index3 position = {};

  // What it waits for: the arguments of the warp operation or barrier, and what it will return.
  WarpOperation operation = WarpOperation::sync;
  BarrierOperation barrier = BarrierOperation::sync;
  uint8_t width = warp_size;
  Site site = 0;
  uint32_t mask = 0;
  uint32_t argument = 0;
  uint64_t value = 0;
  uint64_t result = 0;

  uint32_t copy_group = 0;  // number of the group that is being filled

  // Numbers of the cluster barriers that it will arrive at and wait for next (see cluster.h).
  uint32_t arrival = 0, awaited = 0;

  // What was ordered before its last thread fence (see fences.cc); epoch 0: it had none.
  uint32_t fence_epoch = 0;
  uint32_t fence_clocks[warp_size] = {};

  // In kernels whose warps meet other than at block barriers: what it knows of other threads of the block, what it knew
  // at its last thread fence, and the barrier and phase that it waits for, with what the phase's end has told it.
  Clocks seen, fence_seen, fence_all, told;
  uint32_t stage = 0, phase = 0;
};

// A warp's lanes, and who has synchronized with whom since when (see race.h).
struct Warp {
  uint32_t present = 0;  // lanes that exist
  uint32_t runnable = 0;
  uint32_t exited = 0;
  uint32_t waiting = 0;  // at a warp operation
  uint32_t next_clock = 1;
  uint32_t full_clock = 1;         // everything before it is ordered between all lanes
  uint32_t clock[warp_size] = {};  // stamps the accesses of a lane
  uint8_t row[warp_size] = {};     // which row of `known` a lane uses
  uint32_t known[warp_size][warp_size] = {};
};

// All that belongs to one block: the blocks of a cluster are run in turns.
struct Block {
  Index3 index = {};
  uint32_t number = 0;
  uint32_t rank = 0;  // in its cluster
  unsigned thread_count = 0;
  unsigned warp_count = 0;
  unsigned exited = 0;
  unsigned at_barrier = 0;
  unsigned multiplying = 0;  // multiplies of warpgroups that are on their way
  uint32_t first_epoch = 0;  // of the accesses of this block
  uint32_t epoch = 0;        // of the accesses since its last barrier
  Warp warps[maximum_warps];
  Thread threads[maximum_threads];
};

// The blocks that run together, each with shared memory of its own: one, unless the kernel names a cluster size.
struct Cluster {
  unsigned size = 1;
  unsigned arrived = 0;        // threads, at the barrier to come
  uint32_t barrier = 0;        // its number; never reused in a process
  uint32_t first_barrier = 0;  // of this cluster
  Block blocks[maximum_cluster];
};

struct Launch {
  const Kernel* kernel = nullptr;
  void** arguments = nullptr;
  Index3 grid = {}, block = {};
  uint32_t shared_bytes = 0;
  bool counting = false;
  bool clustered = false;     // the kernel names a cluster size
  bool staged = false;        // the kernel's module has barriers of stages or of groups of warps (see order.h)
  bool multiplies = false;    // and multiplies of warpgroups
  uint32_t epoch_ranks = 0;  // bits of an epoch that are its block's rank: so those of blocks that run together differ
  int64_t steps_left = 0;
  uintptr_t image_low = 0, image_high = 0;  // the kernel's module, code and constants
  uint32_t first_epoch = 0;
  uint32_t last_epoch = 0;  // given out; never reused in a process, so that what earlier launches left is void
};

extern Launch launch;
extern Cluster cluster;
extern Block* block;     // that runs
extern Thread* current;  // that runs; null in the scheduler
extern Context scheduler;
extern sigjmp_buf fault_exit;

inline Thread& lane_of(unsigned warp, unsigned lane) { return block->threads[warp * warp_size + lane]; }

inline bool counts() { return __builtin_expect(launch.counting, false); }

// A new epoch for the block that runs.
inline uint32_t next_epoch() {
  return launch.last_epoch = (launch.last_epoch | launch.epoch_ranks) + 1 + block->rank;
}

// Whether an access of this launch was another block's.
inline bool of_another_block(uint32_t epoch) {
  return epoch < block->first_epoch || (epoch & launch.epoch_ranks) != block->rank;
}

inline Site site_of(const void* return_address) {
  // The call ends where it returns to; one byte before lies within it.
  return static_cast<Site>(reinterpret_cast<uintptr_t>(return_address) - 1 - launch.image_low);
}

}  // namespace vqcc_emulator

#define VQCC_HERE (vqcc_emulator::site_of(__builtin_return_address(0)))
