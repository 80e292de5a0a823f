// Order between blocks: the pattern of a last block that reads what the others wrote. A thread that does an atomic
// operation after a thread fence publishes what it had done, and had been shown by barriers, before the fence; a block
// that later does one on the same address may access that. The memory model's chains through a third block are missing;
// no pattern is accepted that the model does not accept.
#include <algorithm>
#include <unordered_map>

#include "fences.h"
#include "memory.h"
#include "order.h"

namespace vqcc_emulator {

namespace {

// What is ordered before fences that threads of one warp made before atomic operations on one address: the block's
// accesses of earlier epochs, and of this one those that the warp's lanes, and by `others` further threads, had done by
// these clocks.
struct Published {
  uint32_t block;  // number
  uint32_t epoch;
  uint8_t warp;
  uint32_t clocks[warp_size];
  Clocks others;
};

// Publications on one address, by blocks.
struct Address {
  std::vector<Published> entries;
  uint32_t blocks = 0;  // that published
};

// The first atomic operation of this block on an address, and whether other threads did one in the same epoch.
struct Observed {
  uint32_t epoch, clock;
  uint16_t thread;
  bool several;
};

std::vector<uint32_t> first_epochs;                                 // of clusters
std::unordered_map<uint64_t, Address> published;                   // by arena offset
std::unordered_map<uint64_t, Observed> observed[maximum_cluster];  // by arena offset, of each block that runs

// What fences of threads of a block ordered before their atomic operations on an address, in one epoch.
struct Shared {
  Clocks clocks;
  uint32_t epoch = 0;
};
std::unordered_map<uint64_t, Shared> shared_in_block[maximum_cluster];  // by arena offset

// Between threads of a block: one that does an atomic operation knows what others had published by one on the same address.
void share_within_block(uint64_t offset) {
  Shared& shared = shared_in_block[block->rank][offset];
  if (shared.epoch != block->epoch) {
    shared = {nullptr, block->epoch};
  }
  learn(*current, shared.clocks);
  if (current->fence_epoch == block->epoch) {
    shared.clocks = join(shared.clocks, current->fence_all);
  }
}

bool is_before(const Published& entry, uint32_t number) { return entry.block < number; }

// Adds what is ordered before the thread's last fence.
void publish(Address& address, const Thread& me) {
  std::vector<Published>& entries = address.entries;
  auto entry = std::lower_bound(entries.begin(), entries.end(), block->number, is_before);
  const bool first = entry == entries.end() || entry->block != block->number;
  for (; entry != entries.end() && entry->block == block->number; ++entry) {
    if (entry->warp == me.warp && entry->epoch <= me.fence_epoch) {
      for (unsigned lane = 0; lane < warp_size; ++lane) {
        const uint32_t kept = entry->epoch == me.fence_epoch ? entry->clocks[lane] : 0;
        entry->clocks[lane] = std::max(kept, me.fence_clocks[lane]);
      }
      entry->others = entry->epoch == me.fence_epoch ? join(entry->others, me.fence_seen) : me.fence_seen;
      entry->epoch = me.fence_epoch;
      return;
    }
  }
  address.blocks += first;
  entry = entries.insert(entry, {block->number, me.fence_epoch, me.warp, {}, me.fence_seen});
  std::copy_n(me.fence_clocks, warp_size, entry->clocks);
}

// An access of another block: one write, or the reads of one warp or of several.
struct Earlier {
  uint32_t block, epoch, clock;
  unsigned warp;
  uint32_t lanes;
  bool several_warps;
};

bool covers(const Published& entry, const Earlier& access) {
  if (entry.epoch == access.epoch && !access.several_warps && are_in(entry.others, access.warp, access.lanes, access.clock)) {
    return true;
  }
  if (entry.epoch != access.epoch || access.several_warps || entry.warp != access.warp) {
    return access.epoch < entry.epoch;
  }
  for (uint32_t lanes = access.lanes; lanes != 0; lanes &= lanes - 1) {
    if (entry.clocks[__builtin_ctz(lanes)] < access.clock) {
      return false;
    }
  }
  return true;
}

// True if the block's atomic operation is ordered before what the thread does now.
bool has_seen(const Observed& seen, const Thread& me) {
  return seen.epoch < block->epoch || seen.several || seen.thread == me.index ||
         (seen.thread / warp_size == me.warp &&
          ordered(seen.clock, seen.thread % warp_size, block->warps[me.warp], me.lane)) ||
         (launch.staged && is_known(seen.thread, seen.clock, me));
}

bool ordered_after(const Earlier& access, const Thread& me) {
  for (const auto& [offset, seen] : observed[block->rank]) {
    if (!has_seen(seen, me)) {
      continue;
    }
    const std::vector<Published>& entries = published[offset].entries;
    for (auto entry = std::lower_bound(entries.begin(), entries.end(), access.block, is_before);
         entry != entries.end() && entry->block == access.block; ++entry) {
      if (covers(*entry, access)) {
        return true;
      }
    }
  }
  return false;
}

// For reads of several blocks, of which the last alone is known: by whole blocks, all that have run or run with this one.
bool ordered_after_all(const Thread& me) {
  const uint32_t others = cluster.blocks[0].number + cluster.size - 1;
  for (const auto& [offset, seen] : observed[block->rank]) {
    if (has_seen(seen, me) && published[offset].blocks >= others) {  // perhaps itself among them
      return true;
    }
  }
  return false;
}

}  // namespace

void begin_launch_order() {
  first_epochs.clear();
  published.clear();
}

void begin_cluster_order() {
  first_epochs.push_back(cluster.blocks[0].first_epoch);
  for (auto& of_block : observed) {
    of_block.clear();
  }
  for (auto& of_block : shared_in_block) {
    of_block.clear();
  }
}

void note_global_atomic(uint64_t offset) {
  const Thread& me = *current;
  const uint32_t clock = block->warps[me.warp].clock[me.lane];
  const auto [seen, first] = observed[block->rank].try_emplace(offset, Observed{block->epoch, clock, me.index, false});
  if (!first && seen->second.epoch == block->epoch && seen->second.thread != me.index) {
    seen->second.several = true;
  }
  if (launch.staged) {
    share_within_block(offset);
  }
  if (me.fence_epoch != 0) {
    publish(published[offset], me);
  }
}

void check_other_block(const Cell& cell, const Stamp& stamp, Access access, Access other, uint64_t offset) {
  const bool was_read = other == Access::read;
  const uint32_t epoch = was_read ? cell.read_epoch : cell.write_epoch;
  const auto after = std::upper_bound(first_epochs.begin(), first_epochs.end(), epoch);
  const uint32_t index = static_cast<uint32_t>(after - first_epochs.begin()) - 1;
  const uint32_t number = index * cluster.size + (epoch & launch.epoch_ranks);
  const bool by_atomics_alone = !was_read && !cell.plain_in_block;
  const unsigned write_lane = cell.write_thread % warp_size;
  const Earlier earlier = was_read ? Earlier{number, epoch, cell.read_clock, cell.read_warp, cell.read_lanes,
                                             (cell.read_state & several_warps) != 0}
                                   : Earlier{number, epoch, cell.write_clock, cell.write_thread / warp_size,
                                             1u << write_lane, false};
  const bool several = was_read && (cell.read_state & several_blocks);
  const bool is_ordered =
      by_atomics_alone || (several ? ordered_after_all(*stamp.thread) : ordered_after(earlier, *stamp.thread));
  if (is_ordered && (access != Access::read || stamp.fresh)) {
    return;
  }
  Failure& failure = new_failure(is_ordered ? ErrorKind::stale_read : ErrorKind::cross_block_race, stamp.site);
  locate(failure, offset);
  failure.bytes = 1;
  failure.access = access;
  failure.other_access = was_read ? other : cell.write_atomic ? Access::atomic : other;
  failure.other_site = was_read ? cell.read_site : cell.write_site;
  failure.other_block = number;
  failure.other_thread =
      was_read ? cell.read_warp * warp_size + static_cast<unsigned>(__builtin_ctz(cell.read_lanes | 1u << 31))
               : cell.write_thread;
  abandon();
}

void thread_fence() {
  take_step(VQCC_HERE);
  Thread& me = *current;
  Warp& warp = block->warps[me.warp];
  me.fence_epoch = block->epoch;
  if (launch.staged) {
    me.fence_seen = me.seen;
    me.fence_all = publish_all(me);
  }
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    me.fence_clocks[lane] = std::max(warp.known[warp.row[me.lane]][lane], warp.full_clock - 1);
  }
  me.fence_clocks[me.lane] = warp.clock[me.lane];
  // What the warp does from here on must be told from what it has done.
  ++warp.next_clock;
  std::fill(warp.clock, warp.clock + warp_size, warp.next_clock);
}

}  // namespace vqcc_emulator
