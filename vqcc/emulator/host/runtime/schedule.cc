// Runs blocks: one cluster after another, its blocks in turns, warp after warp, each lane until it has to wait.
#include "schedule.h"

#include "cluster.h"
#include "counters.h"
#include "copy_async.h"
#include "fail.h"
#include "fences.h"
#include "groups.h"
#include "memory.h"
#include "multiplies.h"
#include "order.h"
#include "stages.h"

namespace vqcc_emulator {

Launch launch;
Cluster cluster;
Block* block;
Thread* current;
Context scheduler;
sigjmp_buf fault_exit;
Result result;

namespace {

void run_thread() {
  launch.kernel->invoke(launch.kernel->function, launch.arguments);
  Thread& self = *current;
  check_no_pending_copies(self);
  if (launch.multiplies) {
    check_no_multiplies(self);
  }
  Warp& warp = block->warps[self.warp];
  self.wait = Wait::exited;
  warp.exited |= 1u << self.lane;
  warp.runnable &= ~(1u << self.lane);
  if (++block->exited == block->thread_count) {
    check_no_flying_copies();
    check_exit(self);
  }
  switch_away();
  __builtin_unreachable();
}

void begin_block() {
  block->exited = 0;
  block->at_barrier = 0;
  block->first_epoch = block->epoch = next_epoch();
  const Region& shared = arena.shared[block->rank];
  memset(reinterpret_cast<void*>(arena.base + shared.offset), 0xff, shared.bytes);
  memset(arena.flags + shared.offset, mapped | writable, shared.bytes);
  for (unsigned i = 0; i < block->warp_count; ++i) {
    Warp& warp = block->warps[i];
    const unsigned lanes = block->thread_count - i * warp_size;
    warp = Warp();
    warp.present = lanes >= warp_size ? ~0u : (1u << lanes) - 1;
    warp.runnable = warp.present;
    for (unsigned lane = 0; lane < warp_size; ++lane) {
      warp.clock[lane] = 1;
    }
  }
  for (unsigned i = 0; i < block->thread_count; ++i) {
    Thread& thread = block->threads[i];
    thread.wait = Wait::none;
    thread.fence_epoch = 0;
    thread.fence_seen.reset();
    thread.arrival = thread.awaited = cluster.barrier;
    prepare(thread.context, thread.stack, run_thread);
  }
  clear_pending_copies();
  begin_block_stages();
  if (launch.staged) {
    begin_block_groups();
  }
  if (launch.staged || launch.multiplies) {
    forget_clocks();
    begin_block_multiplies();
    begin_block_showing();
  }
}

// No thread of the block can run and some have not ended: tells who does not meet whom.
void fail_stalled() {
  ErrorKind kind = ErrorKind::divergent_barrier;
  const Thread* first = nullptr;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    const Thread& thread = block->threads[i];
    // A lane that waits for its warp is the more specific cause.
    if (thread.wait == Wait::warp && kind != ErrorKind::divergent_warp_operation) {
      kind = ErrorKind::divergent_warp_operation;
      first = &thread;
    } else if (thread.wait == Wait::barrier && first == nullptr) {
      first = &thread;
    }
  }
  for (unsigned i = 0; i < block->thread_count && kind != ErrorKind::stalled; ++i) {
    const Thread& thread = block->threads[i];
    // Whatever others wait for, they may wait for what these would do then.
    if (thread.wait == Wait::stage || thread.wait == Wait::group) {
      kind = ErrorKind::stalled;
      first = &thread;
    }
  }
  Failure& failure = new_failure(kind, first->site);
  failure.thread = first->index;
  failure.mask = kind == ErrorKind::divergent_warp_operation ? first->mask : 0;
  describe_threads(failure);
  if (kind == ErrorKind::stalled) {
    describe_groups(failure);
    describe_stages(failure, *first);
  }
}

// No other thread can run: those that let others run go on. Returns whether there are any.
bool resume_patient() {
  bool found = false;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    Thread& thread = block->threads[i];
    if (thread.wait == Wait::others) {
      thread.wait = Wait::none;
      block->warps[thread.warp].runnable |= 1u << thread.lane;
      found = true;
    }
  }
  return found;
}

// Runs the block until each of its threads has exited or waits for other blocks. Returns whether any has run.
bool run_block() {
  bool has_run = false;
  for (bool again = true; again;) {
    again = false;
    for (unsigned i = 0; i < block->warp_count; ++i) {
      while (block->warps[i].runnable != 0) {
        current = &block->threads[i * warp_size + static_cast<unsigned>(__builtin_ctz(block->warps[i].runnable))];
        again = true;  // the last to arrive at a cluster's barrier lets warps before it go on
        switch_context(scheduler, current->context);
        if (result.failure.kind != ErrorKind::none) {
          return true;
        }
      }
    }
    has_run |= again;
    again |= block->at_barrier == block->thread_count && release_barrier();
    again = again || (launch.staged && land_copies());
    again = again || (result.failure.kind == ErrorKind::none && resume_patient());
    if (result.failure.kind != ErrorKind::none) {
      return true;
    }
  }
  if (block->exited != block->thread_count && !waits_for_cluster(*block)) {
    fail_stalled();
  }
  return has_run;
}

}  // namespace

void run_cluster() {
  begin_cluster();
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    block = &cluster.blocks[rank];
    begin_block();
  }
  begin_cluster_order();
  for (bool has_run = true; has_run;) {
    has_run = false;
    for (unsigned rank = 0; rank < cluster.size; ++rank) {
      block = &cluster.blocks[rank];
      has_run |= run_block();
      if (result.failure.kind != ErrorKind::none) {
        return;
      }
    }
  }
  fail_stalled_cluster();
  if (counts() && result.failure.kind == ErrorKind::none) {
    for (unsigned rank = 0; rank < cluster.size; ++rank) {
      block = &cluster.blocks[rank];
      for (unsigned i = 0; i < block->warp_count; ++i) {
        flush_lanes(i, block->warps[i].present);
      }
    }
  }
}

Index3 thread_index() { return current->position; }
Index3 block_index() { return block->index; }
Index3 block_dimensions() { return launch.block; }
Index3 grid_dimensions() { return launch.grid; }
unsigned char* dynamic_shared() {
  return reinterpret_cast<unsigned char*>(arena.base + arena.shared[block->rank].offset);
}
unsigned dynamic_shared_bytes() { return launch.shared_bytes; }
void let_others_run() {
  const Site site = VQCC_HERE;
  take_step(site);
  Thread& self = *current;
  self.site = site;
  self.wait = Wait::others;
  block->warps[self.warp].runnable &= ~(1u << self.lane);
  switch_away();
}
void trap() { fail(ErrorKind::trap, VQCC_HERE); }

}  // namespace vqcc_emulator
