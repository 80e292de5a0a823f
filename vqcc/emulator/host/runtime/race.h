// Who accessed each byte last, and whether that is ordered before the access at hand.
//
// Two accesses of different threads, one of them a write, are ordered if a block-wide barrier lies between them, or,
// within a warp, a warp operation that both lanes took part in (directly or through other lanes). An access carries the
// epoch of its block (a new one after each barrier) and the clock of its lane (a new one after each warp operation).
#pragma once

#include "fail.h"

namespace vqcc_emulator {

constexpr uint8_t listed = 0x20;          // readers are in a list, whose number `read_lanes` is (see order.h)
constexpr uint8_t several_warps = 0x40;   // readers of one epoch that no warp operation can order with a writer
constexpr uint8_t several_blocks = 0x80;  // readers in different blocks of this launch

// For 4 bytes, or for a single byte once threads have accessed parts of the 4 bytes separately (`split`).
// `plain_in_block`: the block of the last write has also written other than by atomics, which other blocks' atomics
// race with. `write_bulk`: the last write is a bulk copy's, `write_thread` its barrier's number, `write_clock` the phase
// after which it is there.
struct Cell {
  uint32_t write_epoch, write_clock;
  Site write_site;
  uint32_t read_epoch, read_clock;
  Site read_site;
  uint32_t read_lanes;
  uint16_t write_thread : 10, write_atomic : 1, plain_in_block : 1, split : 1, write_bulk : 1;
  uint8_t read_warp;
  uint8_t read_state;
};
static_assert(sizeof(Cell) == 32, "two cells a cache line");

// What an access is checked and recorded with.
struct Stamp {
  uint32_t epoch, clock;
  uint32_t window;  // epochs before it do not matter: an earlier launch, or for shared memory an earlier block
  Site site;
  const Thread* thread;
  bool fresh;  // a load past the caches that another block's writes do not reach
};

inline bool ordered(uint32_t clock, unsigned lane, const Warp& warp, unsigned observer) {
  return clock < warp.full_clock || warp.known[warp.row[observer]][lane] >= clock;
}

// A warp operation orders what its lanes did before it: they all know now what each of them knew.
inline void synchronize(Warp& warp, uint32_t mask) {
  const uint32_t clock = ++warp.next_clock;
  if (mask == warp.present) {
    warp.full_clock = clock;
  } else {
    uint32_t joined[warp_size] = {};
    for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
      const unsigned lane = static_cast<unsigned>(__builtin_ctz(lanes));
      const uint32_t* known = warp.known[warp.row[lane]];
      for (unsigned i = 0; i < warp_size; ++i) {
        joined[i] = joined[i] > known[i] ? joined[i] : known[i];
      }
      joined[lane] = joined[lane] > warp.clock[lane] ? joined[lane] : warp.clock[lane];
    }
    // A row no lane outside of the mask uses: there are as many rows as lanes, so one is free.
    uint32_t taken = 0;
    for (uint32_t lanes = warp.present & ~mask; lanes != 0; lanes &= lanes - 1) {
      taken |= 1u << warp.row[__builtin_ctz(lanes)];
    }
    const uint8_t row = static_cast<uint8_t>(__builtin_ctz(~taken));
    __builtin_memcpy(warp.known[row], joined, sizeof(joined));
    for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
      warp.row[__builtin_ctz(lanes)] = row;
    }
  }
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    warp.clock[__builtin_ctz(lanes)] = clock;
  }
}

// Order by barriers of stages and of groups of warps, where the kernel has such (see order.h).
bool write_is_known(const Cell& cell, const Thread& observer);
bool reads_are_known(const Cell& cell, const Thread& observer);
void record_read_exactly(Cell& cell, const Stamp& stamp);
// A list of readers for a copy of a cell.
void copy_readers(Cell& cell);

// Reports and does not return. Defined in memory.h, which knows the regions.
[[noreturn]] void report_race(const Cell& cell, const Stamp& stamp, Access access, Access other, uint64_t offset);
// Whether a barrier of clusters orders an earlier access of this block to a word of shared memory before the observer.
bool ordered_by_cluster(const Thread& observer, Access earlier, uint64_t offset);
// For accesses of another block of this launch: returns if fences and atomics order the two, and a load is fresh.
void check_other_block(const Cell& cell, const Stamp& stamp, Access access, Access other, uint64_t offset);

inline void check_against_write(const Cell& cell, const Stamp& stamp, Access access, uint64_t offset) {
  if (cell.write_epoch < stamp.window) {
    return;
  }
  if (cell.write_epoch == stamp.epoch) {
    const Thread& me = *stamp.thread;
    if ((cell.write_thread != me.index || cell.write_bulk) && !(access == Access::atomic && cell.write_atomic) &&
        (cell.write_thread / warp_size != me.warp || cell.write_bulk ||
         !ordered(cell.write_clock, cell.write_thread % warp_size, block->warps[me.warp], me.lane)) &&
        !(launch.staged && write_is_known(cell, me)) && !ordered_by_cluster(me, Access::write, offset)) {
      report_race(cell, stamp, access, cell.write_atomic ? Access::atomic : Access::write, offset);
    }
  } else if (__builtin_expect(of_another_block(cell.write_epoch), false) &&
             (cell.plain_in_block || (access == Access::read && !stamp.fresh))) {
    // Of bytes that others changed by atomics alone, the result may be read, or reset by a block that knows it is last.
    check_other_block(cell, stamp, access, Access::write, offset);
  }
}

inline bool readers_ordered(const Cell& cell, const Thread& me) {
  for (uint32_t lanes = cell.read_lanes & ~(1u << me.lane); lanes != 0; lanes &= lanes - 1) {
    if (!ordered(cell.read_clock, static_cast<unsigned>(__builtin_ctz(lanes)), block->warps[me.warp], me.lane)) {
      return false;
    }
  }
  return true;
}

inline void check_against_reads(const Cell& cell, const Stamp& stamp, Access access, uint64_t offset) {
  if (cell.read_epoch < stamp.window) {
    return;
  }
  if (__builtin_expect(of_another_block(cell.read_epoch) || (cell.read_state & several_blocks), false)) {
    check_other_block(cell, stamp, access, Access::read, offset);
  }
  if (cell.read_epoch == stamp.epoch && ((cell.read_state & several_warps) || cell.read_warp != stamp.thread->warp ||
                                         !readers_ordered(cell, *stamp.thread)) &&
      !(launch.staged && reads_are_known(cell, *stamp.thread)) && !ordered_by_cluster(*stamp.thread, Access::read, offset)) {
    report_race(cell, stamp, access, Access::read, offset);
  }
}

inline void record_read(Cell& cell, const Stamp& stamp) {
  const Thread& me = *stamp.thread;
  if (cell.read_epoch == stamp.epoch) {
    if (__builtin_expect(launch.staged, false)) {
      record_read_exactly(cell, stamp);
      return;
    }
    if (cell.read_state & several_warps) {
      return;
    }
    if (cell.read_warp != me.warp) {
      cell.read_state |= several_warps;
      return;
    }
    if (cell.read_clock != stamp.clock && readers_ordered(cell, me)) {
      cell.read_lanes = 0;
    }
    cell.read_lanes |= 1u << me.lane;
    cell.read_clock = cell.read_clock > stamp.clock ? cell.read_clock : stamp.clock;
    cell.read_site = stamp.site;
    return;
  }
  const bool other_block = cell.read_epoch >= stamp.window && of_another_block(cell.read_epoch);
  const uint8_t sticky = cell.read_epoch >= stamp.window ? cell.read_state & several_blocks : 0;
  cell.read_epoch = stamp.epoch;
  cell.read_clock = stamp.clock;
  cell.read_site = stamp.site;
  cell.read_lanes = 1u << me.lane;
  cell.read_warp = me.warp;
  cell.read_state = other_block ? several_blocks : sticky;
}

template <Access access>
inline void touch(Cell& cell, const Stamp& stamp, uint64_t offset) {
  check_against_write(cell, stamp, access, offset);
  if (access == Access::read) {
    record_read(cell, stamp);
    return;
  }
  check_against_reads(cell, stamp, access, offset);
  // From here on this write stands for everything that is ordered before it.
  cell.plain_in_block = access == Access::write || (cell.plain_in_block && !of_another_block(cell.write_epoch));
  cell.write_epoch = stamp.epoch;
  cell.write_clock = stamp.clock;
  cell.write_site = stamp.site;
  cell.write_thread = stamp.thread->index & 0x3ff;
  cell.write_atomic = access == Access::atomic;
  cell.write_bulk = 0;
  cell.read_epoch = 0;
}

// Cells by word and by byte. A split word keeps in `write_epoch` when its bytes were last touched.
struct Shadow {
  Cell* words = nullptr;
  Cell* bytes = nullptr;
};

template <Access access>
inline void touch_bytes(Shadow& shadow, const Stamp& stamp, uint64_t offset, uint64_t count) {
  for (uint64_t i = offset; i < offset + count; ++i) {
    Cell& word = shadow.words[i / 4];
    if (!word.split || word.write_epoch < stamp.window) {
      Cell copy = word.split ? Cell() : word;
      for (unsigned j = 0; j < 4; ++j) {
        shadow.bytes[i / 4 * 4 + j] = copy;
        if (copy.read_epoch == stamp.epoch && (copy.read_state & listed)) {
          copy_readers(shadow.bytes[i / 4 * 4 + j]);
        }
      }
      word.split = 1;
    }
    word.write_epoch = stamp.epoch;
    touch<access>(shadow.bytes[i], stamp, i);
  }
}

template <Access access>
inline void touch_words(Shadow& shadow, const Stamp& stamp, uint64_t offset, uint64_t count) {
  for (uint64_t i = offset / 4; i < (offset + count) / 4; ++i) {
    Cell& word = shadow.words[i];
    if (__builtin_expect(word.split, false)) {
      if (word.write_epoch >= stamp.window) {
        touch_bytes<access>(shadow, stamp, 4 * i, 4);
        if (access != Access::read) {
          word = shadow.bytes[4 * i];  // one write of the whole word: its bytes are alike again
        }
        continue;
      }
      word = Cell();
    }
    touch<access>(word, stamp, 4 * i);
  }
}

}  // namespace vqcc_emulator
