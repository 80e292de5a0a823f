// Bulk copies land as late as they can: only once no thread of the block can go on, some wait for the phase, and all that
// it lacks are the bytes on their way. So a thread that reads without a wait finds bytes that nothing has written.
#include <algorithm>

#include "counters.h"
#include "multiplies.h"
#include "stage_state.h"
#include "stages.h"

namespace vqcc_emulator {

namespace {

constexpr size_t bulk_unit = 16;

// Whether the destination is still as the start of the copy left it; reports who wrote there if not.
bool check_untouched(const BulkCopy& copy) {
  const uint64_t offset = reinterpret_cast<uintptr_t>(copy.destination) - arena.base;
  const Shadow shadow = launch.clustered ? shadow_of(block->rank) : arena.shadow;
  for (uint64_t i = offset; i < offset + copy.bytes; ++i) {
    const Cell& cell = shadow.words[i / 4].split ? shadow.bytes[i] : shadow.words[i / 4];
    if (cell.write_bulk && cell.write_thread == copy.stage && cell.write_clock == copy.phase + 1) {
      continue;
    }
    Failure& failure = new_failure(ErrorKind::race, copy.site);
    locate(failure, i);
    failure.bytes = 1;
    failure.access = Access::write;
    failure.other_access = Access::write;
    failure.other_site = cell.write_site;
    failure.other_thread = cell.write_bulk ? ~0u : cell.write_thread;
    return false;
  }
  return true;
}

void mark_bulk(const BulkCopy& copy) {
  const uint64_t offset = reinterpret_cast<uintptr_t>(copy.destination) - arena.base;
  const Shadow shadow = launch.clustered ? shadow_of(block->rank) : arena.shadow;
  for (uint64_t word = offset / 4; word < (offset + copy.bytes) / 4; ++word) {
    Cell& cell = shadow.words[word];
    cell.write_epoch = block->epoch;
    cell.write_clock = copy.phase + 1;
    cell.write_thread = copy.stage & 0x3ff;
    cell.write_bulk = 1;
  }
}

bool land(const BulkCopy& copy) {
  current = &block->threads[copy.thread];  // who is named if something is wrong
  const bool untouched = check_untouched(copy);
  current = nullptr;
  if (!untouched) {
    return false;
  }
  memcpy(copy.destination, copy.source, copy.bytes);
  memset(arena.flags + (reinterpret_cast<uintptr_t>(copy.destination) - arena.base), mapped | written | writable,
         copy.bytes);
  mark_bulk(copy);
  return true;
}

bool is_awaited(uint32_t number) {
  return std::any_of(block->threads, block->threads + block->thread_count, [number](const Thread& thread) {
    return thread.wait == Wait::stage && thread.stage == number;
  });
}

}  // namespace

int64_t flying_bytes(const Stages& of, uint32_t stage) {
  int64_t bytes = 0;
  for (const BulkCopy& copy : of.flying) {
    bytes += copy.stage == stage ? copy.bytes : 0;
  }
  return bytes;
}

bool land_copies() {
  Stages& own = own_stages();
  for (const BulkCopy& first : own.flying) {
    const uint32_t number = first.stage;
    Stage& stage = own.stages[number];
    if (stage.pending != 0 || flying_bytes(own, number) != stage.bytes || !is_awaited(number)) {
      continue;
    }
    for (const BulkCopy& copy : own.flying) {
      if (copy.stage == number && !land(copy)) {
        return false;
      }
      if (copy.stage == number) {
        stage.arriving.add(with_clock(nullptr, copy.thread, copy.clock));  // it has read
      }
    }
    own.flying.erase(std::remove_if(own.flying.begin(), own.flying.end(),
                                    [number](const BulkCopy& copy) { return copy.stage == number; }),
                     own.flying.end());
    stage.bytes = 0;
    stage.arriving.add(with_clock(nullptr, bulk_index(number), stage.phase + 1));
    complete_phase(own, number);
    return true;
  }
  return false;
}

void check_no_flying_copies() {
  const Stages& own = own_stages();
  if (!own.flying.empty()) {
    fail(ErrorKind::pending_copy, own.flying.front().site);
  }
}

void bulk_copy(void* shared, const void* global, size_t bytes, void* barrier) {
  const Site site = VQCC_HERE;
  Stages& own = own_stages();
  const uint32_t number = stage_at(barrier, site);
  const uint64_t offset = reinterpret_cast<uintptr_t>(shared) - arena.base;
  const Stage& stage = own.stages[number];
  if (!is_shown(stage.maker, stage.maker_clock, *current)) {
    fail_stage(ErrorKind::hidden_barrier, stage.offset, stage.maker, site);
  }
  if (bytes == 0 || bytes % bulk_unit != 0 || offset >= arena.shared_end || !is_own_shared(offset)) {
    fail_stage(ErrorKind::barrier_limit, stage.offset, static_cast<uint32_t>(bytes), site);
  }
  if (stage.pending == 0 && flying_bytes(own, number) + static_cast<int64_t>(bytes) > stage.bytes) {
    fail_stage(ErrorKind::unannounced_copy, stage.offset, static_cast<uint32_t>(bytes), site);
  }
  check<Access::read, true>(global, bytes, bulk_unit, site);  // past L1
  const bool counting = launch.counting;
  launch.counting = false;  // no thread stores these
  check<Access::write>(shared, bytes, bulk_unit, site);
  launch.counting = counting;
  result.counters.bulk_copies += counts();
  result.counters.bulk_copy_bytes += counts() ? bytes : 0;
  memset(arena.flags + offset, mapped | writable, bytes);
  memset(shared, 0xff, bytes);
  own.flying.push_back({static_cast<unsigned char*>(shared), global, static_cast<uint32_t>(bytes), number,
                        stage.phase, current->index, block->warps[current->warp].clock[current->lane], site});
  mark_bulk(own.flying.back());
}

}  // namespace vqcc_emulator
