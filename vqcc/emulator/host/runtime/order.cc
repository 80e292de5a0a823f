#include "order.h"

#include <algorithm>

namespace vqcc_emulator {

namespace {

// Lists of the readers of cells, by block that runs; those of an epoch are void in the next one.
struct ReaderLists {
  std::vector<std::vector<Reader>> lists;
  uint32_t used = 0;
};
ReaderLists readers[maximum_cluster];

// The last join, kept with what it joined, so that the addresses of those stay theirs.
struct {
  Clocks a, b, joined;
} last_join;

uint32_t new_list() {
  ReaderLists& own = readers[block->rank];
  if (own.used == own.lists.size()) {
    own.lists.emplace_back();
  }
  own.lists[own.used].clear();
  return own.used++;
}

uint32_t clock_in(const Clocks& clocks, unsigned index) {
  return clocks != nullptr && index < clocks->size() ? (*clocks)[index] : 0;
}

bool all_known(const Reader& reader, const Thread& observer) {
  if (reader.clock == 0) {  // none
    return true;
  }
  if (reader.lanes == 0) {
    return clock_in(observer.seen, tensor_index(reader.warp)) >= reader.clock;
  }
  uint32_t lanes = reader.lanes;
  if (reader.warp == observer.warp) {
    lanes &= ~(1u << observer.lane);
  }
  for (; lanes != 0; lanes &= lanes - 1) {
    if (!is_known(reader.warp * warp_size + static_cast<unsigned>(__builtin_ctz(lanes)), reader.clock, observer)) {
      return false;
    }
  }
  return true;
}

Reader only_reader(const Cell& cell) { return {cell.read_clock, cell.read_lanes, cell.read_site, cell.read_warp}; }

}  // namespace

Clocks join(const Clocks& a, const Clocks& b) {
  if (b == nullptr || a == b) {
    return a;
  }
  if (a == nullptr) {
    return b;
  }
  if (last_join.a == a && last_join.b == b) {
    return last_join.joined;
  }
  std::vector<uint32_t> joined = a->size() >= b->size() ? *a : *b;
  const std::vector<uint32_t>& other = a->size() >= b->size() ? *b : *a;
  for (size_t i = 0; i < other.size(); ++i) {
    joined[i] = joined[i] > other[i] ? joined[i] : other[i];
  }
  Clocks result = joined == *a ? a : joined == *b ? b : std::make_shared<const std::vector<uint32_t>>(std::move(joined));
  last_join = {a, b, result};
  return result;
}

Clocks with_clock(const Clocks& clocks, unsigned index, uint32_t clock) {
  std::vector<uint32_t> more = clocks != nullptr ? *clocks : std::vector<uint32_t>();
  more.resize(std::max<size_t>(more.size(), index + 1));
  more[index] = std::max(more[index], clock);
  return std::make_shared<const std::vector<uint32_t>>(std::move(more));
}

std::shared_ptr<std::vector<uint32_t>> publish_into(const Thread& thread, unsigned size) {
  Warp& warp = block->warps[thread.warp];
  const size_t seen = thread.seen != nullptr ? thread.seen->size() : 0;
  const auto made = std::make_shared<std::vector<uint32_t>>(std::max<size_t>(seen, size));
  std::vector<uint32_t>& all = *made;
  if (seen != 0) {
    std::copy(thread.seen->begin(), thread.seen->end(), all.begin());
  }
  uint32_t* own = &all[thread.warp * warp_size];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    own[lane] = std::max({own[lane], warp.known[warp.row[thread.lane]][lane], warp.full_clock - 1});
  }
  uint32_t& clock = warp.clock[thread.lane];
  own[thread.lane] = clock;
  // Of this lane alone: lanes that do the same keep the same clocks, and cells need not tell them apart.
  ++clock;
  warp.next_clock = std::max(warp.next_clock, clock);
  return made;
}

Clocks publish_all(const Thread& thread) { return publish_into(thread, block->warp_count * warp_size); }

void learn(Thread& thread, const Clocks& told) { thread.seen = join(thread.seen, told); }

void share_clocks(unsigned warp, uint32_t mask) {
  Thread* lanes_of_warp = &block->threads[warp * warp_size];
  Clocks shared;
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    shared = join(shared, lanes_of_warp[__builtin_ctz(lanes)].seen);
  }
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    lanes_of_warp[__builtin_ctz(lanes)].seen = shared;
  }
}

bool is_known(unsigned thread, uint32_t clock, const Thread& observer) {
  return thread == observer.index ||
         (thread / warp_size == observer.warp &&
          ordered(clock, thread % warp_size, block->warps[observer.warp], observer.lane)) ||
         clock_in(observer.seen, thread) >= clock;
}

bool are_in(const Clocks& clocks, unsigned warp, uint32_t lanes, uint32_t clock) {
  for (; lanes != 0; lanes &= lanes - 1) {
    if (clock_in(clocks, warp * warp_size + static_cast<unsigned>(__builtin_ctz(lanes))) < clock) {
      return false;
    }
  }
  return clocks != nullptr;
}

void forget_clocks() {
  readers[block->rank].used = 0;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    block->threads[i].seen.reset();
  }
}

bool write_is_known(const Cell& cell, const Thread& observer) {
  if (cell.write_bulk) {
    return clock_in(observer.seen, bulk_index(cell.write_thread)) >= cell.write_clock;
  }
  return is_known(cell.write_thread, cell.write_clock, observer);
}

bool reads_are_known(const Cell& cell, const Thread& observer) {
  if (!(cell.read_state & listed)) {
    return all_known(only_reader(cell), observer);
  }
  for (const Reader& reader : readers[block->rank].lists[cell.read_lanes]) {
    if (!all_known(reader, observer)) {
      return false;
    }
  }
  return true;
}

Reader unknown_reader(const Cell& cell, const Thread& observer) {
  if (cell.read_state & listed) {
    for (const Reader& reader : readers[block->rank].lists[cell.read_lanes]) {
      if (!all_known(reader, observer)) {
        return reader;
      }
    }
  }
  return only_reader(cell);
}

// Takes over what still counts of the last readers of a warp: of reads that are ordered before a later one, that one
// stands for all.
void replace_reader(std::vector<Reader>& list, Reader& last, const Reader& own) {
  if (last.clock == own.clock) {
    last.lanes |= own.lanes;
    last.site = own.site;
    return;
  }
  const uint32_t others = last.lanes & ~own.lanes;
  const Reader earlier = {last.clock, others, last.site, last.warp};
  last = own;
  if (others == 0 || earlier.clock < block->warps[own.warp].full_clock) {
    return;
  }
  for (size_t i = 2 * block->warp_count; i < list.size();) {
    if (list[i].warp == own.warp && ((list[i].lanes &= ~own.lanes) == 0 ||
                                     list[i].clock < block->warps[own.warp].full_clock)) {
      list[i] = list.back();
      list.pop_back();
      continue;
    }
    ++i;
  }
  list.push_back(earlier);
}

// A list has the last readers of each warp, those of tensor cores for each, and what else there is.
Reader& last_reader(std::vector<Reader>& list, const Reader& own) {
  return list[own.lanes == 0 ? block->warp_count + own.warp : own.warp];
}

void record_reader(Cell& cell, const Reader& own, const Thread& me) {
  if (!(cell.read_state & listed)) {
    const Reader only = only_reader(cell);
    const bool alike = only.warp == own.warp && only.clock == own.clock && (only.lanes == 0) == (own.lanes == 0);
    if (alike || all_known(only, me)) {
      cell.read_warp = own.warp;
      cell.read_clock = own.clock;
      cell.read_lanes = alike ? only.lanes | own.lanes : own.lanes;
      cell.read_site = own.site;
      return;
    }
    const uint32_t number = new_list();
    std::vector<Reader>& list = readers[block->rank].lists[number];
    list.assign(2 * block->warp_count, Reader());
    last_reader(list, only) = only;
    cell.read_lanes = number;
    cell.read_state |= listed | several_warps;
  }
  std::vector<Reader>& list = readers[block->rank].lists[cell.read_lanes];
  replace_reader(list, last_reader(list, own), own);
}

void record_read_exactly(Cell& cell, const Stamp& stamp) {
  const Thread& me = *stamp.thread;
  record_reader(cell, {stamp.clock, 1u << me.lane, stamp.site, me.warp}, me);
}

void record_tensor_read(Cell& cell, const Stamp& stamp, unsigned warp) {
  const Reader own = {stamp.clock, 0, stamp.site, static_cast<uint8_t>(warp)};
  if (cell.read_epoch == stamp.epoch) {
    if (launch.staged) {
      record_reader(cell, own, *stamp.thread);
    } else if (cell.read_warp != own.warp) {
      cell.read_state |= several_warps;
    }
    return;
  }
  cell.read_epoch = stamp.epoch;
  cell.read_clock = own.clock;
  cell.read_lanes = 0;
  cell.read_site = own.site;
  cell.read_warp = own.warp;
  cell.read_state = 0;
}

void copy_readers(Cell& cell) {
  const uint32_t number = new_list();
  ReaderLists& own = readers[block->rank];
  own.lists[number] = own.lists[cell.read_lanes];
  cell.read_lanes = number;
}

}  // namespace vqcc_emulator
