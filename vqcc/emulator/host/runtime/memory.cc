#include "memory.h"

#include "order.h"

namespace vqcc_emulator {

Arena arena;

void report_race(const Cell& cell, const Stamp& stamp, Access access, Access other, uint64_t offset) {
  Failure& failure = new_failure(ErrorKind::race, stamp.site);
  locate(failure, offset);
  failure.bytes = 1;
  failure.access = access;
  failure.other_access = other;
  if (other == Access::read) {
    const Reader reader = unknown_reader(cell, *stamp.thread);
    const uint32_t lanes = reader.lanes & ~(reader.warp == stamp.thread->warp ? 1u << stamp.thread->lane : 0u);
    failure.other_site = reader.site;
    // Of several readers one is kept; 0xffffffff where that one is this thread.
    failure.other_thread = reader.lanes == 0 ? reader.warp * warp_size
                           : lanes == 0 ? ~0u : reader.warp * warp_size + static_cast<unsigned>(__builtin_ctz(lanes));
  } else {
    failure.other_site = cell.write_site;
    failure.other_thread = cell.write_bulk ? ~0u : cell.write_thread;  // of a bulk copy that knows its barrier alone
  }
  abandon();
}

void check_elsewhere(const void* address, uint64_t bytes, Access access, Site site) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(address);
  const uintptr_t stack = reinterpret_cast<uintptr_t>(current->stack);
  if (first - stack < stack_bytes && bytes <= stack_bytes - (first - stack)) {
    if (block->multiplying != 0) {
      check_sums(address, bytes, access, site);
    }
    return;
  }
  const bool in_image = first >= launch.image_low && first + bytes <= launch.image_high;
  if (in_image && access == Access::read) {
    return;
  }
  ErrorKind kind = first < 65536 ? ErrorKind::null_pointer
                   : in_image    ? ErrorKind::image_write
                                 : ErrorKind::wild_pointer;
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    for (unsigned i = 0; i < block->thread_count; ++i) {
      if (first - reinterpret_cast<uintptr_t>(cluster.blocks[rank].threads[i].stack) < stack_bytes) {
        kind = ErrorKind::foreign_stack;
      }
    }
  }
  Failure& failure = new_failure(kind, site);
  failure.address = first;
  failure.bytes = static_cast<uint32_t>(bytes);
  failure.access = access;
  abandon();
}

}  // namespace vqcc_emulator
