// What has been shown to the ways that tensor cores and bulk copies have to shared memory (fence.proxy.async).
//
// A fence shows all that its thread has done or knows of; who knows of the fence knows that this is shown. So it may be made
// by who stored before that is handed over, or by who multiplies after it was. Clocks of a thread go on through all epochs of
// a block, so one tells when a store was.
#include <algorithm>

#include "fail.h"
#include "multiplies.h"
#include "order.h"

namespace vqcc_emulator {

namespace {

struct Shown {
  std::vector<uint32_t> by_all;      // of each thread: what was shown before the last block barrier
  std::vector<uint32_t> at_barrier;  // its clock there, which all know of
};
Shown shown_in[maximum_cluster];

bool is_needed() { return launch.staged || launch.multiplies; }

}  // namespace

void begin_block_showing() {
  shown_in[block->rank].by_all.assign(block->warp_count * warp_size, 0);
  shown_in[block->rank].at_barrier.assign(block->warp_count * warp_size, 0);
}

void meet_all() {
  Shown& own = shown_in[block->rank];
  const unsigned first = shown_index(0);
  for (unsigned i = 0; i < block->thread_count; ++i) {
    const Thread& thread = block->threads[i];
    Warp& warp = block->warps[thread.warp];
    own.at_barrier[i] = warp.clock[thread.lane]++;
    warp.next_clock = std::max(warp.next_clock, warp.clock[thread.lane]);
    if (thread.seen == nullptr || thread.seen->size() <= first) {
      continue;
    }
    const std::vector<uint32_t>& seen = *thread.seen;
    const size_t count = std::min(own.by_all.size(), seen.size() - first);
    for (size_t j = 0; j < count; ++j) {
      own.by_all[j] = own.by_all[j] > seen[first + j] ? own.by_all[j] : seen[first + j];
    }
  }
}

void show_stores() {
  take_step(VQCC_HERE);
  if (!is_needed()) {
    return;  // nothing in the module reads in such a way
  }
  Thread& me = *current;
  const Shown& own = shown_in[block->rank];
  const unsigned threads = block->warp_count * warp_size;
  const auto all = publish_into(me, shown_index(threads));
  const uint32_t *known = all->data(), *before = own.at_barrier.data();
  uint32_t* shown = all->data() + shown_index(0);
  for (unsigned i = 0; i < threads; ++i) {
    const uint32_t newer = known[i] > before[i] ? known[i] : before[i];
    shown[i] = shown[i] > newer ? shown[i] : newer;
  }
  me.seen = all;
}

bool is_shown(unsigned thread, uint32_t clock, const Thread& observer) {
  const unsigned index = shown_index(thread);
  return shown_in[block->rank].by_all[thread] >= clock ||
         (observer.seen != nullptr && index < observer.seen->size() && (*observer.seen)[index] >= clock);
}

}  // namespace vqcc_emulator
