// A barrier of stages is kept here, not in the 8 bytes of shared memory where a GPU has it; those may not be accessed.
#include "stages.h"

#include <algorithm>

#include "schedule.h"
#include "stage_state.h"

namespace vqcc_emulator {

namespace {

Stages of_block[maximum_cluster];

constexpr int64_t maximum_count = (1 << 20) - 1;  // of arrivals, and of announced bytes (PTX mbarrier, "Phase")
constexpr size_t barrier_bytes = 8;

[[noreturn]] void fail_unannounced(const Stages& own, uint32_t number) {
  const auto copy = std::find_if(own.flying.begin(), own.flying.end(),
                                 [number](const BulkCopy& each) { return each.stage == number; });
  fail_stage(ErrorKind::unannounced_copy, own.stages[number].offset, copy->bytes, copy->site);
}

void arrive(void* barrier, int64_t bytes, Site site) {
  Stages& own = own_stages();
  const uint32_t number = stage_at(barrier, site);
  Stage& stage = own.stages[number];
  if (stage.pending == 0) {
    fail_stage(ErrorKind::excess_arrival, stage.offset, stage.arrivals, site);
  }
  stage.bytes += bytes;
  if (stage.bytes > maximum_count) {
    fail_stage(ErrorKind::barrier_limit, stage.offset, static_cast<uint32_t>(stage.bytes), site);
  }
  result.counters.stage_arrivals += counts();
  stage.arriving.add(publish_all(*current));
  if (--stage.pending != 0) {
    return;
  }
  if (flying_bytes(own, number) > stage.bytes) {
    fail_unannounced(own, number);
  }
  if (stage.bytes == 0) {
    complete_phase(own, number);
  }
}

}  // namespace

Stages& own_stages() { return of_block[block->rank]; }

[[noreturn]] void fail_stage(ErrorKind kind, uint64_t offset, uint32_t amount, Site site) {
  Failure& failure = new_failure(kind, site);
  failure.address = arena.base + offset;
  if (offset < arena.bytes) {
    locate(failure, offset);
  }
  failure.bytes = barrier_bytes;
  failure.mask = amount;
  abandon();
}

uint32_t stage_at(const void* barrier, Site site) {
  take_step(site);
  const Stages& own = own_stages();
  const uint64_t offset = reinterpret_cast<uintptr_t>(barrier) - arena.base;
  const auto found = own.numbers.find(offset);
  if (found == own.numbers.end()) {
    fail_stage(ErrorKind::unmade_barrier, offset, 0, site);
  }
  const Stage& stage = own.stages[found->second];
  if (stage.maker_epoch == block->epoch && !is_known(stage.maker, stage.maker_clock, *current)) {
    Failure& failure = new_failure(ErrorKind::unshown_barrier, site);
    locate(failure, offset);
    failure.other_thread = stage.maker;
    abandon();
  }
  return found->second;
}

void complete_phase(Stages& own, uint32_t number) {
  Stage& stage = own.stages[number];
  stage.passed = stage.arriving;
  stage.arriving = Told();
  stage.pending = stage.arrivals;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    Thread& thread = block->threads[i];
    if (thread.wait == Wait::stage && thread.stage == number) {
      thread.told = stage.passed.now();
      thread.wait = Wait::none;
      block->warps[thread.warp].runnable |= 1u << thread.lane;
    }
  }
  ++stage.phase;
}

void begin_block_stages() {
  Stages& own = own_stages();
  own.stages.clear();
  own.numbers.clear();
  own.flying.clear();
}

void describe_stages(Failure& failure, const Thread& first) {
  const Stages& own = own_stages();
  if (first.wait == Wait::stage) {
    const Stage& stage = own.stages[first.stage];
    locate(failure, stage.offset);
    failure.mask = stage.pending;
    failure.bytes = static_cast<uint32_t>(std::max<int64_t>(0, stage.bytes - flying_bytes(own, first.stage)));
  }
  for (unsigned i = 0; i < block->thread_count; ++i) {
    const Thread& thread = block->threads[i];
    if (thread.wait == Wait::stage) {
      failure.threads[i].operation = thread.phase & 1;
      failure.threads[i].mask =
          static_cast<uint32_t>(own.stages[thread.stage].offset - arena.shared[block->rank].offset);
    }
  }
}

void barrier_init(void* barrier, unsigned arrivals) {
  const Site site = VQCC_HERE;
  Stages& own = own_stages();
  const uint64_t offset = reinterpret_cast<uintptr_t>(barrier) - arena.base;
  if (own.numbers.count(offset) != 0) {
    fail_stage(ErrorKind::remade_barrier, offset, 0, site);
  }
  check<Access::write>(barrier, barrier_bytes, barrier_bytes, site);
  if (offset >= arena.shared_end || !is_own_shared(offset)) {
    fail_stage(ErrorKind::unmade_barrier, offset, 0, site);
  }
  if (arrivals == 0 || arrivals > maximum_count || own.stages.size() == maximum_threads) {
    fail_stage(ErrorKind::barrier_limit, offset, arrivals, site);
  }
  memset(arena.flags + offset, mapped | barrier_word, barrier_bytes);
  const Thread& me = *current;
  own.numbers[offset] = static_cast<uint32_t>(own.stages.size());
  own.stages.push_back(
      {offset, arrivals, arrivals, 0, 0, me.index, block->epoch, block->warps[me.warp].clock[me.lane], {}, {}});
}

void barrier_arrive(void* barrier) { arrive(barrier, 0, VQCC_HERE); }

void barrier_arrive_expecting(void* barrier, unsigned bytes) { arrive(barrier, bytes, VQCC_HERE); }

void barrier_wait(void* barrier, unsigned parity) {
  const Site site = VQCC_HERE;
  const Stages& own = own_stages();
  const uint32_t number = stage_at(barrier, site);
  Thread& self = *current;
  if (parity > 1) {
    fail_stage(ErrorKind::barrier_limit, own.stages[number].offset, parity, site);
  }
  result.counters.stage_waits += counts();
  if ((own.stages[number].phase & 1) != parity) {
    learn(self, own.stages[number].passed.now());
    return;
  }
  self.site = site;
  self.stage = number;
  self.phase = own.stages[number].phase;
  self.wait = Wait::stage;
  block->warps[self.warp].runnable &= ~(1u << self.lane);
  switch_away();
  // Where a thread looks again and again, the barrier may have gone on before it looks.
  if (own.stages[number].phase != self.phase + 1) {
    fail_stage(ErrorKind::missed_phase, own.stages[number].offset, parity, site);
  }
  learn(self, self.told);
  self.told.reset();
}

}  // namespace vqcc_emulator
