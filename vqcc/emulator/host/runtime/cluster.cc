#include "cluster.h"

#include "memory.h"
#include "schedule.h"

namespace vqcc_emulator {

namespace {

uint32_t last_barrier;  // number given out

// The last remote access to a block's memory by each block: its barrier's number, and who made it.
struct RemoteAccess {
  uint32_t barrier;
  uint32_t bytes;
  Access access;
  Site site;
  uint16_t thread;
  uint64_t offset;
};
RemoteAccess last_remote[maximum_cluster][maximum_cluster];  // by owner and accessing block

unsigned owner_of(uint64_t offset) { return static_cast<unsigned>((offset - shared_offset) / arena.shared_stride); }

// Every thread has arrived: those that wait may go on.
void complete_barrier() {
  cluster.barrier = ++last_barrier;
  cluster.arrived = 0;
  result.counters.cluster_barriers += counts();
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    Block& other = cluster.blocks[rank];
    for (unsigned i = 0; i < other.thread_count; ++i) {
      Thread& thread = other.threads[i];
      if (thread.wait == Wait::cluster) {
        thread.wait = Wait::none;
        other.warps[thread.warp].runnable |= 1u << thread.lane;
      }
    }
  }
}

[[noreturn]] void report_visit(uint64_t offset, uint64_t bytes, Access access, Access other, unsigned rank, Site site) {
  const Shadow shadow = shadow_of(rank);
  const Cell& word = shadow.words[offset / 4];
  const Cell& cell = word.split ? shadow.bytes[offset] : word;
  Failure& failure = new_failure(ErrorKind::cluster_race, site);
  locate(failure, offset);
  failure.bytes = static_cast<uint32_t>(bytes);
  failure.access = access;
  failure.other_access = other != Access::read && cell.write_atomic ? Access::atomic : other;
  failure.other_block = cluster.blocks[rank].number;
  failure.other_site = other == Access::read ? cell.read_site : cell.write_site;
  failure.other_thread = other == Access::read
                             ? cell.read_warp * warp_size + static_cast<unsigned>(__builtin_ctz(cell.read_lanes | 1u << 31))
                             : cell.write_thread;
  abandon();
}

void check_presence(uint64_t offset, uint64_t bytes, Access access, Site site) {
  const unsigned owner = owner_of(offset);
  const Block& other = cluster.blocks[owner];
  if (current->awaited == cluster.first_barrier || other.exited == other.thread_count) {
    fail_at(ErrorKind::absent_block, offset, bytes, access, site);
  }
  RemoteAccess& last = last_remote[owner][block->rank];
  if (current->arrival >= last.barrier) {
    last = {current->arrival, static_cast<uint32_t>(bytes), access, site, current->index, offset};
  }
}

}  // namespace

void begin_cluster() {
  cluster.arrived = 0;
  cluster.barrier = cluster.first_barrier = ++last_barrier;
  for (auto& of_owner : last_remote) {
    for (RemoteAccess& access : of_owner) {
      access.barrier = 0;
    }
  }
}

bool waits_for_cluster(const Block& of) {
  for (unsigned i = 0; i < of.thread_count; ++i) {
    if (of.threads[i].wait == Wait::cluster) {
      return true;
    }
  }
  return false;
}

void fail_stalled_cluster() {
  const Thread* waiting = nullptr;
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    const Block& each = cluster.blocks[rank];
    for (unsigned i = 0; i < each.thread_count && waiting == nullptr; ++i) {
      waiting = each.threads[i].wait == Wait::cluster ? &each.threads[i] : nullptr;
    }
  }
  if (waiting == nullptr) {
    return;
  }
  // Of the block whose threads have not all arrived.
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    block = &cluster.blocks[rank];
    for (unsigned i = 0; i < block->thread_count; ++i) {
      if (block->threads[i].arrival == cluster.barrier) {
        current = nullptr;
        describe_threads(new_failure(ErrorKind::divergent_cluster_barrier, waiting->site));
        return;
      }
    }
  }
}

void check_exit(const Thread& last) {
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    const RemoteAccess& access = last_remote[block->rank][rank];
    if (access.barrier < last.awaited) {
      continue;
    }
    block = &cluster.blocks[rank];  // whose access is at fault
    Thread* self = current;
    current = &block->threads[access.thread];
    Failure& failure = new_failure(ErrorKind::absent_block, access.site);
    locate(failure, access.offset);
    failure.bytes = access.bytes;
    failure.access = access.access;
    current = self;
    abandon();
  }
}

// Words are what blocks are told apart by: bytes of one word count as one place.
void check_visit(uint64_t offset, uint64_t bytes, Access access, bool remote, Site site) {
  if (remote) {
    check_presence(offset, bytes, access, site);
  }
  for (uint64_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) {
    const Visits& visits = arena.visits[word];
    for (unsigned rank = 0; rank < cluster.size; ++rank) {
      if (rank == block->rank) {
        continue;
      }
      if (visits.write[rank] >= current->awaited) {
        report_visit(word * 4, bytes, access, Access::write, rank, site);
      }
      if (access != Access::read && visits.read[rank] >= current->awaited) {
        report_visit(word * 4, bytes, access, Access::read, rank, site);
      }
    }
  }
}

void record_visit(uint64_t offset, uint64_t bytes, Access access) {
  const uint32_t barrier = current->arrival;
  for (uint64_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) {
    Visits& visits = arena.visits[word];
    if (access == Access::read) {
      uint32_t& read = visits.read[block->rank];
      read = read > barrier ? read : barrier;
      continue;
    }
    // A write of the whole word stands for everything that is ordered before it.
    const bool whole = offset <= word * 4 && offset + bytes >= word * 4 + 4;
    uint32_t& write = visits.write[block->rank];
    write = whole || barrier > write ? barrier : write;
    if (whole) {
      memset(visits.read, 0, sizeof(visits.read));
    }
  }
}

bool ordered_by_cluster(const Thread& observer, Access earlier, uint64_t offset) {
  if (!launch.clustered || offset >= arena.shared_end) {
    return false;
  }
  const Visits& visits = arena.visits[offset / 4];
  return (earlier == Access::read ? visits.read : visits.write)[block->rank] < observer.awaited;
}

Shadow shadow_of(unsigned rank) {
  const uint64_t shift = rank == 0 ? 0 : arena.tracked_end + (rank - 1) * arena.shared_end;
  return {arena.shadow.words + shift / 4, arena.shadow.bytes + shift};
}

unsigned cluster_rank() { return block->rank; }

unsigned char* shared_of(const void* own, unsigned rank) {
  const Site site = VQCC_HERE;
  const uint64_t offset = reinterpret_cast<uintptr_t>(own) - arena.base - arena.shared[block->rank].offset;
  if (rank >= cluster.size || offset > arena.shared[block->rank].bytes) {
    Failure& failure = new_failure(ErrorKind::absent_block, site);
    failure.owner = static_cast<int32_t>(rank);
    failure.address = reinterpret_cast<uintptr_t>(own);
    abandon();
  }
  return reinterpret_cast<unsigned char*>(arena.base + arena.shared[rank].offset + offset);
}

Word16 load_word(const void* address, size_t bytes) {
  check<Access::read>(address, bytes, bytes, VQCC_HERE);
  Word16 word = {0, 0};
  memcpy(&word, address, bytes);
  return word;
}

void cluster_arrive() {
  const Site site = VQCC_HERE;
  meet(WarpOperation::cluster_arrive, block->warps[current->warp].present, 0, 0, warp_size, site);
  Thread& self = *current;
  if (self.arrival != self.awaited) {
    fail(ErrorKind::cluster_barrier_order, site);
  }
  ++self.arrival;
  unsigned threads = 0;
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    threads += cluster.blocks[rank].thread_count;
  }
  if (++cluster.arrived == threads) {
    complete_barrier();
  }
}

void cluster_wait() {
  const Site site = VQCC_HERE;
  meet(WarpOperation::cluster_wait, block->warps[current->warp].present, 0, 0, warp_size, site);
  Thread& self = *current;
  if (self.arrival == self.awaited) {
    fail(ErrorKind::cluster_barrier_order, site);
  }
  if (cluster.barrier == self.awaited) {
    self.site = site;
    self.wait = Wait::cluster;
    block->warps[self.warp].runnable &= ~(1u << self.lane);
    switch_away();
  }
  ++self.awaited;
}

}  // namespace vqcc_emulator
