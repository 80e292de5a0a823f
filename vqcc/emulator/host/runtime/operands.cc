// Operands of multiplies of a warpgroup: shared memory that tensor cores read from the start of a multiply to its wait.
#include <algorithm>

#include "multiplies.h"
#include "tensor_state.h"

namespace vqcc_emulator {

namespace {

uint16_t& readers_of(uint64_t offset) {
  return own_block().readers[(offset - arena.shared[block->rank].offset) / segment_bytes];
}

// Each cell of a segment, by word or by byte.
template <class Action>
void for_cells(uint64_t segment, Action action) {
  const Shadow shadow = launch.clustered ? shadow_of(block->rank) : arena.shadow;
  for (uint64_t word = segment; word < segment + segment_bytes; word += 4) {
    if (!shadow.words[word / 4].split) {
      action(shadow.words[word / 4], word);
      continue;
    }
    for (uint64_t at = word; at < word + 4; ++at) {
      action(shadow.bytes[at], at);
    }
  }
}

[[noreturn]] void report_unshown(const Cell& cell, uint64_t offset, Site site) {
  Failure& failure = new_failure(ErrorKind::unshown_operand, site);
  locate(failure, offset);
  failure.bytes = 4;
  failure.access = Access::read;
  failure.other_access = cell.write_atomic ? Access::atomic : Access::write;
  failure.other_site = cell.write_site;
  failure.other_thread = cell.write_thread;
  abandon();
}

// A lane looks at one segment for the tensor cores, which read it from now on.
void read_segment(uint64_t offset, unsigned warp, uint32_t serial, const Thread& observer, Site site) {
  if (!have_flags(offset, segment_bytes, mapped | written)) {
    fail_flags(offset, segment_bytes, 1, Access::read, site);
  }
  if (launch.clustered) {
    check_visit(offset, segment_bytes, Access::read, false, site);
  }
  const Stamp stamp = {block->epoch, serial, block->first_epoch, site, &observer, false};
  for_cells(offset, [&](Cell& cell, uint64_t at) {
    check_against_write(cell, stamp, Access::read, at);
    if (cell.write_epoch >= stamp.window && !cell.write_bulk &&
        !is_shown(cell.write_thread, cell.write_clock, observer)) {
      report_unshown(cell, at, site);
    }
    record_tensor_read(cell, stamp, warp);
  });
  if (launch.clustered) {
    record_visit(offset, segment_bytes, Access::read);
  }
}

}  // namespace

void read_operands(unsigned warp, const Multiply& multiply) {
  Thread* self = current;
  for_operands(warp, multiply, [&](unsigned row, uint64_t segment) {
    current = &lane_of(warp, row % warp_size);  // each must know that what it reads is there
    read_segment(segment, warp, multiply.serial, *current, multiply.site);
    ++readers_of(segment);
  });
  current = self;
}

void release_operands(unsigned warp, const Multiply& multiply) {
  const Stamp stamp = {block->epoch, multiply.serial, block->first_epoch, multiply.site, current, false};
  for_operands(warp, multiply, [&](unsigned, uint64_t segment) {
    --readers_of(segment);
    if (multiply.epoch != block->epoch) {  // a block barrier since the start orders none of its reads
      for_cells(segment, [&](Cell& cell, uint64_t) { record_tensor_read(cell, stamp, warp); });
    }
  });
}

void check_operands(uint64_t offset, uint64_t bytes, Access access, Site site) {
  for (uint64_t at = offset / segment_bytes * segment_bytes; at < offset + bytes; at += segment_bytes) {
    if (!is_own_shared(at) || readers_of(at) == 0) {
      continue;
    }
    for (unsigned warp = 0; warp < block->warp_count; ++warp) {
      for (const Multiply& multiply : own_block().warps[warp].flying) {
        for_operands(warp, multiply, [&](unsigned, uint64_t segment) {
          if (segment == at) {
            Failure& failure = new_failure(ErrorKind::operand_overwritten, site);
            locate(failure, std::max(at, offset));
            failure.bytes = static_cast<uint32_t>(bytes);
            failure.access = access;
            failure.other_site = multiply.site;
            failure.other_thread = warp * warp_size;
            abandon();
          }
        });
      }
    }
  }
}

}  // namespace vqcc_emulator
