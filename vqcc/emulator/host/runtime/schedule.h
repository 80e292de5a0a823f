// Which fiber runs next.
#pragma once

#include "state.h"

namespace vqcc_emulator {

// Resumes another runnable lane of the warp, or the scheduler if there is none; returns when this fiber is resumed.
inline void switch_away() {
  Thread* self = current;
  const uint32_t runnable = block->warps[self->warp].runnable;
  const uint32_t later = runnable & ~((2u << self->lane) - 1);
  const uint32_t choice = later != 0 ? later : runnable;
  if (choice == 0) {
    current = nullptr;
    switch_context(self->context, scheduler);
    return;
  }
  current = &block->threads[self->warp * warp_size + static_cast<unsigned>(__builtin_ctz(choice))];
  switch_context(self->context, current->context);
}

// Lets the threads of the block go on after a barrier all of them reached; false if they stand at different ones.
bool release_barrier();

// Waits for the lanes of the mask at the same operation and place; what the operation returns.
uint64_t meet(WarpOperation operation, unsigned mask, uint64_t value, unsigned argument, unsigned width, Site site);

// Runs the blocks of a cluster, whose indices are set, to their end. On an error the result holds the failure.
void run_cluster();

}  // namespace vqcc_emulator
