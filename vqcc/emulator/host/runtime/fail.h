// Ending a launch: the first error is kept, the fiber that made it is never resumed.
#pragma once

#include "state.h"

namespace vqcc_emulator {

extern Result result;

inline Failure& new_failure(ErrorKind kind, Site site) {
  Failure& failure = result.failure;
  failure = Failure();
  failure.kind = kind;
  failure.region = -1;
  failure.owner = -1;
  failure.thread = current != nullptr ? current->index : 0xffff;
  failure.block = block->index;
  failure.site = site;
  return failure;
}

// Leaves the fiber for good. Device code holds nothing that a destructor would have to give back.
[[noreturn]] inline void abandon() {
  Thread* self = current;
  current = nullptr;
  switch_context(self->context, scheduler);
  __builtin_unreachable();
}

[[noreturn]] inline void fail(ErrorKind kind, Site site) {
  new_failure(kind, site);
  abandon();
}

// Adds where every thread of the block stands.
inline void describe_threads(Failure& failure) {
  failure.thread_count = block->thread_count;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    const Thread& thread = block->threads[i];
    failure.threads[i] = {static_cast<uint8_t>(thread.wait), static_cast<uint8_t>(thread.operation), 0,
                          thread.wait == Wait::exited ? 0 : thread.site, thread.mask};
  }
}

inline void take_step(Site site) {
  if (__builtin_expect(--launch.steps_left < 0, false)) {
    fail(ErrorKind::step_limit, site);
  }
}

}  // namespace vqcc_emulator
