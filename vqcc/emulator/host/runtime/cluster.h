// Blocks of a cluster and their barrier, and the order it makes between accesses to each other's shared memory.
//
// Barriers of clusters have numbers. A thread arrives at one and waits for it later; what it does in between is told apart
// from what it did before: an access carries the number of the barrier that its thread arrives at next. It is ordered
// before what a thread does that waits next for a later one.
#pragma once

#include "race.h"

namespace vqcc_emulator {

void begin_cluster();
// Whether a thread of the block waits for other blocks, or the block is done before them.
bool waits_for_cluster(const Block& of);
// No block has run: reports those whose threads have not come to the barrier that others wait for, if there are any.
void fail_stalled_cluster();
// The last thread of a block ends, and with it its shared memory.
void check_exit(const Thread& last);

// Accesses to a word of shared memory by each block of a cluster: the number of the barrier that the thread of the last
// write, and that of a read since, arrives at next.
struct Visits {
  uint32_t write[maximum_cluster], read[maximum_cluster];
};

// Reports an access that nothing orders with another block's, or to the memory of a block that may not be there.
void check_visit(uint64_t offset, uint64_t bytes, Access access, bool remote, Site site);
void record_visit(uint64_t offset, uint64_t bytes, Access access);

// Each block of a cluster has cells of its own for what it accesses, so that no cell mixes threads of several.
Shadow shadow_of(unsigned rank);

}  // namespace vqcc_emulator
