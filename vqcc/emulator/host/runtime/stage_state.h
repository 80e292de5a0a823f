// Barriers of stages and the copies that report to them, as stages.cc and bulk.cc keep them.
#pragma once

#include <unordered_map>

#include "memory.h"
#include "order.h"

namespace vqcc_emulator {

// Clocks of an epoch: void in another one.
struct Told {
  Clocks clocks;
  uint32_t epoch = 0;

  Clocks now() const { return epoch == block->epoch ? clocks : nullptr; }
  void add(const Clocks& more) {
    clocks = join(now(), more);
    epoch = block->epoch;
  }
};

struct Stage {
  uint64_t offset;    // in the arena
  uint32_t arrivals;  // a phase
  uint32_t pending;   // of them, in this phase
  int64_t bytes;      // that were announced in this phase
  uint32_t phase;     // its number
  uint16_t maker;
  uint32_t maker_epoch, maker_clock;
  Told arriving;  // what arrivals of this phase publish
  Told passed;    // of the last one
};

struct BulkCopy {
  unsigned char* destination;
  const void* source;
  uint32_t bytes;
  uint32_t stage, phase;  // that it reports to
  uint16_t thread;
  uint32_t clock;  // of the thread, when it began to read
  Site site;
};

struct Stages {
  std::vector<Stage> stages;
  std::unordered_map<uint64_t, uint32_t> numbers;  // by arena offset
  std::vector<BulkCopy> flying;                    // in the order of their start
};
// Of the block that runs.
Stages& own_stages();

// The barrier at an address, that this thread may use.
uint32_t stage_at(const void* barrier, Site site);

[[noreturn]] void fail_stage(ErrorKind kind, uint64_t offset, uint32_t amount, Site site);

// Ends the phase: those that wait for it may go on, and know what its arrivals published.
void complete_phase(Stages& own, uint32_t number);

// Bytes on their way to the phase of a barrier.
int64_t flying_bytes(const Stages& of, uint32_t stage);

}  // namespace vqcc_emulator
