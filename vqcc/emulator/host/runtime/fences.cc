// Order between blocks: the pattern of a last block that reads what the others wrote. A block publishes what it wrote
// when, after a thread fence, one of its threads does an atomic operation; a block that later does one on the same
// address may read it. Coarser than the memory model (whole blocks, no chains through a third), which accepts no
// unfenced pattern.
#include <algorithm>
#include <unordered_map>

#include "fences.h"
#include "memory.h"

namespace vqcc_emulator {

namespace {
std::vector<uint32_t> first_epochs;                             // by block number
std::unordered_map<uint64_t, std::vector<uint32_t>> published;  // arena offset -> numbers of blocks, ascending
std::vector<uint64_t> observed;                                 // offsets this block has done atomics on

bool ordered_after(uint32_t other) {
  for (const uint64_t offset : observed) {
    const std::vector<uint32_t>& blocks = published[offset];
    if (std::binary_search(blocks.begin(), blocks.end(), other)) {
      return true;
    }
  }
  return false;
}

bool ordered_after_all() {
  for (const uint64_t offset : observed) {
    const std::vector<uint32_t>& blocks = published[offset];
    if (blocks.size() >= block->number) {  // the blocks before this one, and perhaps itself
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

void begin_block_order() {
  first_epochs.push_back(block->first_epoch);
  observed.clear();
  block->fenced = false;
}

void note_global_atomic(uint64_t offset) {
  if (std::find(observed.begin(), observed.end(), offset) == observed.end()) {
    observed.push_back(offset);
  }
  std::vector<uint32_t>& blocks = published[offset];
  if (block->fenced && (blocks.empty() || blocks.back() != block->number)) {
    blocks.push_back(block->number);
  }
}

void check_other_block(const Cell& cell, const Stamp& stamp, Access access, Access other, uint64_t offset) {
  const bool was_read = other == Access::read;
  const uint32_t epoch = was_read ? cell.read_epoch : cell.write_epoch;
  const auto after = std::upper_bound(first_epochs.begin(), first_epochs.end(), epoch);
  const uint32_t number = static_cast<uint32_t>(after - first_epochs.begin()) - 1;
  const bool several = was_read && (cell.read_state & several_blocks);
  if (several ? ordered_after_all() : ordered_after(number)) {
    return;
  }
  Failure& failure = new_failure(ErrorKind::cross_block_race, stamp.site);
  locate(failure, offset);
  failure.bytes = 1;
  failure.access = access;
  failure.other_access = other;
  failure.other_site = was_read ? cell.read_site : cell.write_site;
  failure.other_block = number;
  failure.other_thread =
      was_read ? cell.read_warp * warp_size + static_cast<unsigned>(__builtin_ctz(cell.read_lanes | 1u << 31))
               : cell.write_thread;
  abandon();
}

void thread_fence() {
  take_step(VQCC_HERE);
  block->fenced = true;
}

}  // namespace vqcc_emulator
