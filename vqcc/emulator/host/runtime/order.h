// Order between warps of a block other than by block barriers: barriers of stages, and of groups of warps.
//
// Each thread knows, of every other thread of its block, a clock up to which what that did is ordered before what it does
// now itself; behind the threads, of every barrier of stages, the number of phases after which bulk copies that reported to
// it are there, and of every warp the number of multiplies whose operands tensor cores have read. Arrivals publish what a thread knows, with what it did itself; waits take it over; operations of a warp
// share it among their lanes. A block barrier begins an epoch, in which nothing need be known of what was before it.
#pragma once

#include "race.h"

namespace vqcc_emulator {

// What either knows. Most joins are those of 32 lanes, which know the same and learn the same.
Clocks join(const Clocks& a, const Clocks& b);

// The same with one more clock.
Clocks with_clock(const Clocks& clocks, unsigned index, uint32_t clock);

// What the thread knows and has done; what it does from now on is later.
Clocks publish_all(const Thread& thread);
// The same with room for `size` clocks, to be added to.
std::shared_ptr<std::vector<uint32_t>> publish_into(const Thread& thread, unsigned size);

void learn(Thread& thread, const Clocks& told);

// After a warp operation that orders memory: its lanes know what each knew.
void share_clocks(unsigned warp, uint32_t mask);

// Whether what a thread did at a clock of this epoch is ordered before what the observer does now.
bool is_known(unsigned thread, uint32_t clock, const Thread& observer);

// Whether clocks say so of lanes of a warp.
bool are_in(const Clocks& clocks, unsigned warp, uint32_t lanes, uint32_t clock);

// A block barrier or the start of a block: no clock matters any more.
void forget_clocks();

// Where clocks have, behind those of threads, what tensor cores of a warp have read, what is shown of a thread's stores
// (see showing.cc), and phases of a barrier of stages.
inline unsigned tensor_index(unsigned warp) { return block->warp_count * warp_size + warp; }
inline unsigned shown_index(unsigned thread) { return block->warp_count * (warp_size + 1) + thread; }
inline unsigned bulk_index(unsigned barrier) { return block->warp_count * (2 * warp_size + 1) + barrier; }

// Tensor cores read a cell for a multiply of the warp, whose number is the stamp's clock.
void record_tensor_read(Cell& cell, const Stamp& stamp, unsigned warp);

// The reads of one or several lanes of a warp at one clock; of no lane: of tensor cores.
struct Reader {
  uint32_t clock, lanes;
  Site site;
  uint8_t warp;
};

// One of a cell's readers that nothing orders before the observer, for a report.
Reader unknown_reader(const Cell& cell, const Thread& observer);

}  // namespace vqcc_emulator
