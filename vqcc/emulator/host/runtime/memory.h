// The arena that holds the shared memory of the blocks that run together and every buffer of a launch, with the state of
// each byte.
//
//   gap | shared | gap ... | written buffers ... | gap | inputs ... | gap
//
// One subtraction tells whether an address lies in it; a byte of `flags` tells the rest. Gaps are never backed by
// memory.
#pragma once

#include <string.h>

#include "cluster.h"
#include "counters.h"
#include "multiplies.h"
#include "race.h"

namespace vqcc_emulator {

// The bytes of a barrier of stages are `mapped` and neither of the others: no access to them is right.
enum Flag : uint8_t { mapped = 1, written = 2, writable = 4, barrier_word = 8 };

struct Region {
  uint64_t offset, bytes;
  bool is_writable;
};

struct Arena {
  uintptr_t base = 0;
  uint64_t bytes = 0;        // of the arena; flags has a few more
  uint64_t shared_end = 0;   // offsets below are shared memory
  uint64_t shared_stride = 1;
  uint64_t tracked_end = 0;  // offsets below can be written, so races are looked for
  uint8_t* flags = nullptr;
  Shadow shadow;
  Visits* visits = nullptr;     // of words of shared memory
  std::vector<Region> shared;   // by rank
  std::vector<Region> regions;  // buffers, from 1 on
};
extern Arena arena;

constexpr uint64_t gap_bytes = 1 << 20;
constexpr uint64_t shared_offset = gap_bytes + 128;  // 128-byte aligned, and no more than that
constexpr uint64_t shared_gap_bytes = 1 << 18;  // between the shared memories of a cluster

inline bool is_own_shared(uint64_t offset) { return (offset - shared_offset) / arena.shared_stride == block->rank; }

// The region an offset lies in or is nearest to.
inline void locate(Failure& failure, uint64_t offset) {
  uint64_t nearest = ~0ull;
  const auto consider = [&](const Region& region, size_t number, int32_t owner) {
    const uint64_t end = region.offset + region.bytes;
    const uint64_t distance = offset < region.offset ? region.offset - offset : offset < end ? 0 : offset - end + 1;
    if (distance < nearest) {
      nearest = distance;
      failure.region = static_cast<int32_t>(number);
      failure.owner = owner;
      failure.offset = static_cast<int64_t>(offset - region.offset);
    }
  };
  for (unsigned rank = 0; rank < arena.shared.size(); ++rank) {
    consider(arena.shared[rank], 0, rank == block->rank ? -1 : static_cast<int32_t>(rank));
  }
  for (size_t i = 1; i < arena.regions.size(); ++i) {
    consider(arena.regions[i], i, -1);
  }
  failure.address = arena.base + offset;
}

[[noreturn]] inline void fail_at(ErrorKind kind, uint64_t offset, uint64_t bytes, Access access, Site site) {
  Failure& failure = new_failure(kind, site);
  locate(failure, offset);
  failure.bytes = static_cast<uint32_t>(bytes);
  failure.access = access;
  abandon();
}

// What is wrong with an access whose bytes are not all as it needs them: the first of several in order of gravity.
[[noreturn]] __attribute__((noinline, cold)) inline void fail_flags(uint64_t offset, uint64_t bytes, uint64_t alignment,
                                                                    Access access, Site site) {
  for (uint64_t i = offset; i < offset + bytes; ++i) {
    if (!(arena.flags[i] & mapped)) {
      fail_at(ErrorKind::out_of_bounds, i, bytes, access, site);
    }
  }
  if ((offset & (alignment - 1)) != 0) {
    fail_at(ErrorKind::misaligned, offset, bytes, access, site);
  }
  for (uint64_t i = offset; i < offset + bytes; ++i) {
    if (arena.flags[i] & barrier_word) {
      fail_at(ErrorKind::barrier_bytes, i, bytes, access, site);
    }
    if (access != Access::read && !(arena.flags[i] & writable)) {
      fail_at(ErrorKind::read_only_write, i, bytes, access, site);
    }
    if (access != Access::write && !(arena.flags[i] & written)) {
      fail_at(ErrorKind::unwritten_read, i, bytes, access, site);
    }
  }
  __builtin_unreachable();
}

// True if each of the bytes has all of the wanted flags.
inline bool have_flags(uint64_t offset, uint64_t bytes, uint8_t wanted) {
  const uint8_t* flags = arena.flags + offset;
  uint64_t i = 0;
  const uint64_t wide = 0x0101010101010101ull * wanted;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t eight;
    memcpy(&eight, flags + i, 8);
    if ((eight & wide) != wide) {
      return false;
    }
  }
  if (bytes - i >= 4) {
    uint32_t four;
    memcpy(&four, flags + i, 4);
    if ((four & static_cast<uint32_t>(wide)) != static_cast<uint32_t>(wide)) {
      return false;
    }
    i += 4;
  }
  for (; i < bytes; ++i) {
    if ((flags[i] & wanted) != wanted) {
      return false;
    }
  }
  return true;
}

// Memory that is neither shared nor a buffer: the thread's own stack and the module's constants are fine, the rest is
// an error.
__attribute__((noinline)) void check_elsewhere(const void* address, uint64_t bytes, Access access, Site site);

template <Access access, bool fresh = false>
inline void check(const void* address, uint64_t bytes, uint64_t alignment, Site site) {
  take_step(site);
  const uint64_t offset = reinterpret_cast<uintptr_t>(address) - arena.base;
  if (__builtin_expect(offset >= arena.bytes, false)) {
    check_elsewhere(address, bytes, access, site);
    return;
  }
  constexpr uint8_t wanted = access == Access::read    ? mapped | written
                             : access == Access::write ? mapped | writable
                                                       : mapped | writable | written;
  if (__builtin_expect(!have_flags(offset, bytes, wanted), false)) {
    fail_flags(offset, bytes, alignment, access, site);
  }
  if (__builtin_expect((offset & (alignment - 1)) != 0, false)) {  // the arena's base is a page's
    fail_at(ErrorKind::misaligned, offset, bytes, access, site);
  }
  const bool shared = offset < arena.shared_end;
  const bool remote = shared && launch.clustered && !is_own_shared(offset);
  if (counts()) {
    count_access(*current, offset, bytes, access, remote ? Place::remote : shared ? Place::shared : Place::global, site);
  }
  if (offset >= arena.tracked_end) {
    return;
  }
  if (access != Access::read && shared && __builtin_expect(block->multiplying != 0, false)) {
    check_operands(offset, bytes, access, site);
  }
  const Warp& warp = block->warps[current->warp];
  const Stamp stamp = {block->epoch, warp.clock[current->lane], shared ? block->first_epoch : launch.first_epoch, site,
                       current, fresh};
  Shadow shadow = arena.shadow;
  if (shared && launch.clustered) {
    check_visit(offset, bytes, access, remote, site);
    shadow = shadow_of(block->rank);
  }
  if (((offset | bytes) & 3) == 0) {
    touch_words<access>(shadow, stamp, offset, bytes);
  } else {
    touch_bytes<access>(shadow, stamp, offset, bytes);
  }
  if (shared && launch.clustered) {
    record_visit(offset, bytes, access);
  }
  if (access == Access::write) {
    memset(arena.flags + offset, mapped | written | writable, bytes);
  }
}

}  // namespace vqcc_emulator
