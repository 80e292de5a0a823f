// Warp operations and block barriers: where fibers wait for each other.
#include "counters.h"
#include "fail.h"
#include "multiplies.h"
#include "order.h"
#include "schedule.h"
#include "tensor.h"

namespace vqcc_emulator {

namespace {

bool is_shuffle(WarpOperation operation) {
  return operation >= WarpOperation::shuffle_index && operation <= WarpOperation::shuffle_xor;
}

// The lane a shuffle reads, by PTX's rules: a source outside of the lane's segment gives the lane's own value.
unsigned source_lane(const Thread& thread) {
  const unsigned lane = thread.lane, width = thread.width;
  const unsigned first = lane & ~(width - 1), last = first + width - 1;
  const unsigned argument = thread.argument & (warp_size - 1);
  switch (thread.operation) {
    case WarpOperation::shuffle_index:
      return first | (argument & (width - 1));
    case WarpOperation::shuffle_up:
      return lane < first + argument ? lane : lane - argument;
    case WarpOperation::shuffle_down:
      return lane + argument > last ? lane : lane + argument;
    default:
      return (lane ^ argument) > last ? lane : lane ^ argument;
  }
}

void shuffle(unsigned warp, uint32_t mask) {
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    Thread& thread = lane_of(warp, static_cast<unsigned>(__builtin_ctz(lanes)));
    const unsigned source = source_lane(thread);
    if (!(mask >> source & 1)) {
      current = &thread;
      Failure& failure = new_failure(ErrorKind::inactive_source_lane, thread.site);
      failure.mask = mask;
      failure.other_thread = warp * warp_size + source;
      abandon();
    }
    thread.result = lane_of(warp, source).value;
  }
}

void multiply(unsigned warp) {
  TensorOperands* lanes[warp_size];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    lanes[lane] = reinterpret_cast<TensorOperands*>(lane_of(warp, lane).value);
  }
  multiply_tiles(lanes);
}

// Lane 4 g + t gets elements 2 t and 2 t + 1 of row g of each matrix.
void deal(unsigned warp) {
  MatrixWords rows[warp_size];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    rows[lane] = *reinterpret_cast<MatrixWords*>(lane_of(warp, lane).value);
  }
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    MatrixWords& dealt = *reinterpret_cast<MatrixWords*>(lane_of(warp, lane).value);
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
      dealt.words[matrix] = rows[matrix * 8 + lane / 4].words[lane % 4];
    }
  }
}

// Whether an operation orders the memory accesses of its lanes; those of tensor cores and of clusters only meet.
bool orders_memory(WarpOperation operation) { return operation < WarpOperation::tensor_multiply; }

uint64_t reduce(WarpOperation operation, uint64_t a, uint64_t b) {
  const int64_t x = static_cast<int64_t>(a), y = static_cast<int64_t>(b);
  switch (operation) {
    case WarpOperation::reduce_add:
      return a + b;
    case WarpOperation::reduce_min:
      return x < y ? a : b;
    case WarpOperation::reduce_max:
      return x > y ? a : b;
    case WarpOperation::reduce_and:
      return a & b;
    case WarpOperation::reduce_or:
      return a | b;
    default:
      return a ^ b;
  }
}

void vote(unsigned warp, uint32_t mask, WarpOperation operation) {
  uint32_t ballot = 0;
  uint64_t reduced = lane_of(warp, static_cast<unsigned>(__builtin_ctz(mask))).value;
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    const unsigned lane = static_cast<unsigned>(__builtin_ctz(lanes));
    const uint64_t value = lane_of(warp, lane).value;
    ballot |= static_cast<uint32_t>(value & 1) << lane;
    reduced = lanes == mask ? reduced : reduce(operation, reduced, value);
  }
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    Thread& thread = lane_of(warp, static_cast<unsigned>(__builtin_ctz(lanes)));
    switch (operation) {
      case WarpOperation::sync:
        thread.result = 0;
        break;
      case WarpOperation::ballot:
        thread.result = ballot;
        break;
      case WarpOperation::any:
        thread.result = ballot != 0;
        break;
      case WarpOperation::all:
        thread.result = ballot == mask;
        break;
      case WarpOperation::match_any: {
        uint32_t equal = 0;
        for (uint32_t others = mask; others != 0; others &= others - 1) {
          const unsigned other = static_cast<unsigned>(__builtin_ctz(others));
          equal |= static_cast<uint32_t>(lane_of(warp, other).value == thread.value) << other;
        }
        thread.result = equal;
        break;
      }
      default:
        thread.result = reduced;
        break;
    }
  }
}

// True once every lane of the mask waits at this operation, at this place, with this mask.
bool all_arrived(const Thread& self) {
  const Warp& warp = block->warps[self.warp];
  if ((warp.waiting & self.mask) != self.mask) {
    return false;
  }
  for (uint32_t lanes = self.mask; lanes != 0; lanes &= lanes - 1) {
    const Thread& other = lane_of(self.warp, static_cast<unsigned>(__builtin_ctz(lanes)));
    if (other.mask != self.mask || other.site != self.site || other.operation != self.operation) {
      return false;
    }
  }
  return true;
}

void release(unsigned warp_index, uint32_t mask, WarpOperation operation) {
  Warp& warp = block->warps[warp_index];
  if (is_shuffle(operation)) {
    shuffle(warp_index, mask);
  } else if (operation == WarpOperation::tensor_multiply) {
    multiply(warp_index);
  } else if (operation == WarpOperation::matrix_load) {
    deal(warp_index);
  } else if (operation == WarpOperation::multiply_begin) {
    fence_registers(warp_index);
  } else if (operation == WarpOperation::multiply_start) {
    issue_multiply(warp_index);
  } else if (operation == WarpOperation::multiply_commit) {
    end_group(warp_index);
  } else if (operation == WarpOperation::multiply_wait) {
    finish_multiplies(warp_index);
  } else {
    vote(warp_index, mask, operation);
  }
  if (counts()) {
    count_operation(operation);
    flush_lanes(warp_index, mask);
  }
  if (orders_memory(operation)) {
    synchronize(warp, mask);
    if (launch.staged || launch.multiplies) {
      share_clocks(warp_index, mask);
    }
  }
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    lane_of(warp_index, static_cast<unsigned>(__builtin_ctz(lanes))).wait = Wait::none;
  }
  warp.waiting &= ~mask;
  warp.runnable |= mask;
}

}  // namespace

uint64_t meet(WarpOperation operation, unsigned mask, uint64_t value, unsigned argument, unsigned width, Site site) {
  take_step(site);
  Thread& self = *current;
  Warp& warp = block->warps[self.warp];
  const uint32_t bit = 1u << self.lane;
  self.site = site;
  self.operation = operation;
  self.mask = mask;
  self.value = value;
  self.argument = argument;
  self.width = static_cast<uint8_t>(width);
  if (width == 0 || width > warp_size || (width & (width - 1)) != 0) {
    fail(ErrorKind::invalid_width, site);
  }
  if (!(mask & bit)) {
    new_failure(ErrorKind::lane_not_in_mask, site).mask = mask;
    abandon();
  }
  self.wait = Wait::warp;
  warp.waiting |= bit;
  warp.runnable &= ~bit;
  if ((mask & (warp.exited | ~warp.present)) != 0) {
    Failure& failure = new_failure(ErrorKind::divergent_warp_operation, site);
    failure.mask = mask;
    describe_threads(failure);
    abandon();
  }
  if (all_arrived(self)) {
    release(self.warp, mask, operation);
  } else {
    switch_away();
  }
  return self.result;
}

uint64_t warp_operation(WarpOperation operation, unsigned mask, uint64_t value, unsigned argument, unsigned width) {
  return meet(operation, mask, value, argument, width, VQCC_HERE);
}

FragmentSums multiply_fragments(TensorFormat format, Fragments operands) {
  TensorOperands mine = {format, operands};
  meet(WarpOperation::tensor_multiply, ~0u, reinterpret_cast<uint64_t>(&mine), 0, warp_size, VQCC_HERE);
  const float* sums = mine.fragments.sums;
  return {{sums[0], sums[1], sums[2], sums[3]}};
}

MatrixWords deal_matrices(MatrixWords row) {
  meet(WarpOperation::matrix_load, ~0u, reinterpret_cast<uint64_t>(&row), 0, warp_size, VQCC_HERE);
  return row;
}

unsigned active_mask() {
  const Warp& warp = block->warps[current->warp];
  return warp.present & ~warp.exited;
}

unsigned block_barrier(BarrierOperation operation, unsigned predicate) {
  const Site site = VQCC_HERE;
  take_step(site);
  Thread& self = *current;
  self.site = site;
  self.barrier = operation;
  self.value = predicate;
  self.wait = Wait::barrier;
  block->warps[self.warp].runnable &= ~(1u << self.lane);
  ++block->at_barrier;
  switch_away();
  return static_cast<unsigned>(self.result);
}

bool release_barrier() {
  uint64_t count = 0;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    if (block->threads[i].site != block->threads[0].site) {
      return false;
    }
    count += block->threads[i].value;
  }
  block->epoch = next_epoch();
  if (launch.staged || launch.multiplies) {
    meet_all();
    forget_clocks();
  }
  block->at_barrier = 0;
  result.counters.block_barriers += counts();
  for (unsigned i = 0; i < block->thread_count; ++i) {
    Thread& thread = block->threads[i];
    thread.wait = Wait::none;
    thread.result = thread.barrier == BarrierOperation::count ? count
                    : thread.barrier == BarrierOperation::all ? count == block->thread_count
                                                              : count != 0;
  }
  for (unsigned i = 0; i < block->warp_count; ++i) {
    block->warps[i].runnable = block->warps[i].present;
    if (counts()) {
      flush_lanes(i, block->warps[i].present);
    }
  }
  return true;
}

}  // namespace vqcc_emulator
