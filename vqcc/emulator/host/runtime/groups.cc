// Barriers of groups of warps: named ones, which wait for a count of threads.
#include "groups.h"

#include "counters.h"
#include "fail.h"
#include "order.h"
#include "schedule.h"

namespace vqcc_emulator {

namespace {

constexpr unsigned names = 16;  // of which block barriers have the first

struct Group {
  unsigned threads = 0;  // that the first to come waits for
  unsigned arrived = 0;
  Clocks told;
};
Group groups[maximum_cluster][names];

bool waits_in(const Thread& thread, unsigned name) { return thread.wait == Wait::group && thread.stage == name; }

// Whether there is a warp of which some lanes have come, and others not.
bool splits_warp(unsigned name) {
  for (unsigned i = 0; i < block->warp_count; ++i) {
    uint32_t lanes = 0;
    for (unsigned lane = 0; lane < warp_size && i * warp_size + lane < block->thread_count; ++lane) {
      lanes |= static_cast<uint32_t>(waits_in(block->threads[i * warp_size + lane], name)) << lane;
    }
    if (lanes != 0 && lanes != block->warps[i].present) {
      return true;
    }
  }
  return false;
}

void release_group(Group& group, unsigned name) {
  for (unsigned i = 0; i < block->warp_count; ++i) {
    Warp& warp = block->warps[i];
    if (!waits_in(block->threads[i * warp_size], name)) {
      continue;
    }
    for (uint32_t lanes = warp.present; lanes != 0; lanes &= lanes - 1) {
      Thread& thread = block->threads[i * warp_size + static_cast<unsigned>(__builtin_ctz(lanes))];
      thread.wait = Wait::none;
      thread.seen = group.told;
    }
    warp.runnable |= warp.present;
    if (counts()) {
      flush_lanes(i, warp.present);
    }
  }
  result.counters.group_barriers += counts();
  group = Group();
}

}  // namespace

void begin_block_groups() {
  for (Group& group : groups[block->rank]) {
    group = Group();
  }
}

void describe_groups(Failure& failure) {
  for (unsigned i = 0; i < block->thread_count; ++i) {
    const Thread& thread = block->threads[i];
    if (thread.wait == Wait::group) {
      failure.threads[i].operation = static_cast<uint8_t>(thread.stage);
      failure.threads[i].mask = groups[block->rank][thread.stage].threads;
    }
  }
}

void group_barrier(unsigned name, unsigned threads) {
  const Site site = VQCC_HERE;
  take_step(site);
  Thread& self = *current;
  if (name == 0 || name >= names || threads == 0 || threads % warp_size != 0 || threads > block->thread_count) {
    Failure& failure = new_failure(ErrorKind::group_threads, site);
    failure.mask = threads;
    failure.bytes = name;
    abandon();
  }
  Group& group = groups[block->rank][name];
  if (group.arrived != 0 && group.threads != threads) {
    Failure& failure = new_failure(ErrorKind::group_mismatch, site);
    failure.bytes = name;
    failure.mask = threads;
    describe_threads(failure);
    describe_groups(failure);
    abandon();
  }
  group.threads = threads;
  group.told = join(group.told, publish_all(self));
  self.site = site;
  self.stage = name;
  self.wait = Wait::group;
  block->warps[self.warp].runnable &= ~(1u << self.lane);
  if (++group.arrived != threads) {
    switch_away();
    return;
  }
  if (splits_warp(name)) {
    Failure& failure = new_failure(ErrorKind::group_threads, site);
    failure.mask = threads;
    failure.bytes = name;
    abandon();
  }
  release_group(group, name);
}

}  // namespace vqcc_emulator
