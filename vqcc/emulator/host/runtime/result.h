// What a launch returns. Python reads these structures through ctypes: keep both sides in step (launch.py).
#pragma once

#include <stdint.h>

#include "../include/vqcc_emulator/interface.h"

namespace vqcc_emulator {

enum class ErrorKind : int32_t {
  none,
  out_of_bounds,
  unwritten_read,
  read_only_write,
  race,
  cross_block_race,
  misaligned,
  null_pointer,
  wild_pointer,
  foreign_stack,
  image_write,
  divergent_barrier,
  divergent_warp_operation,
  lane_not_in_mask,
  inactive_source_lane,
  invalid_width,
  step_limit,
  stack_overflow,
  fault,
  division_by_zero,
  trap,
  pending_copy,
  stale_read,
  out_of_memory,
  cluster_race,
  absent_block,
  divergent_cluster_barrier,
  cluster_barrier_order,
  unmade_barrier,
  unshown_barrier,
  remade_barrier,
  barrier_bytes,
  excess_arrival,
  barrier_limit,
  unannounced_copy,
  missed_phase,
  stalled,
  group_mismatch,
  group_threads,
  unshown_operand,
  operand_overwritten,
  sums_in_flight,
  lost_sums,
  unfenced_multiply,
  pending_multiply,
  warpgroup_mismatch,
  hidden_barrier,
};

enum class Access : uint8_t { none, read, write, atomic };

// Where each thread of the block stood, for errors about threads that do not meet.
struct ThreadState {
  uint8_t wait;       // Wait
  uint8_t operation;  // WarpOperation, where it waits at one
  uint16_t unused;
  uint32_t site;
  uint32_t mask;
};

struct Failure {
  ErrorKind kind;
  int32_t region;  // 0: shared memory, i + 1: buffer i, -1: none
  int32_t owner;   // rank in the cluster of another block whose shared memory it is; -1: none
  int64_t offset;  // in the region; negative or past its end when out of bounds
  uint64_t address;
  uint32_t bytes;  // of the access
  Access access;
  Access other_access;  // of the other party of a race
  uint16_t thread;      // linear index in the block; 0xffff: no single thread
  Index3 block;
  uint32_t site;
  uint32_t other_site;
  uint32_t other_thread;
  uint32_t other_block;  // linear
  uint32_t mask;
  uint32_t thread_count;
  ThreadState threads[1024];
};

// Thread accesses, and what a GPU makes of a warp's accesses together.
struct Counters {
  uint64_t shared_loads, shared_stores;                      // thread accesses
  uint64_t shared_load_wavefronts, shared_store_wavefronts;  // bank conflicts included
  uint64_t shared_load_ideal, shared_store_ideal;            // wavefronts without conflicts
  uint64_t global_loads, global_stores;                      // thread accesses
  uint64_t global_load_bytes, global_store_bytes;
  uint64_t global_load_sectors, global_store_sectors;    // 32-byte sectors a warp touches, by access
  uint64_t global_load_requests, global_store_requests;  // warp accesses
  uint64_t shuffles, votes, warp_barriers;               // warp operations, not lanes
  uint64_t block_barriers;
  uint64_t atomics;  // thread operations
  uint64_t shared_atomics;
  uint64_t tensor_multiplies;  // warp operations
  // Accesses to shared memory of other blocks of the cluster: of threads, their bytes, and of warps.
  uint64_t remote_loads, remote_stores;
  uint64_t remote_load_bytes, remote_store_bytes;
  uint64_t remote_load_requests, remote_store_requests;
  uint64_t cluster_barriers;  // of clusters
  // Of threads: arrivals at barriers of stages and waits for their phases. Of groups of warps: their barriers.
  uint64_t stage_arrivals, stage_waits;
  uint64_t group_barriers;
  uint64_t bulk_copies, bulk_copy_bytes;  // also counted as loads of global memory
};

struct Result {
  Failure failure;
  Counters counters;
  int64_t steps;
};

}  // namespace vqcc_emulator
