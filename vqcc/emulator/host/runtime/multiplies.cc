// Multiplies of a warpgroup (wgmma) take their time: from its start on a multiply may read its operands and write its sums,
// until a wait for its group returns.
//
// The products are made at the start, but kept here: the sums in the lanes' registers are NaN until the wait that ends the
// last multiply that adds to them. No store may reach operand B in the meantime, so it does not matter when it is read. Of
// operand A the values are taken at the start: what a compiler makes of registers that code writes then is not known here.
#include "multiplies.h"

#include "schedule.h"
#include "tensor_state.h"

namespace vqcc_emulator {

namespace {

constexpr uint64_t rows_alignment = 1024;
constexpr uint32_t poison = 0x7fc0ffeeu;  // a NaN that no arithmetic makes

TensorBlock tensor_blocks[maximum_cluster];

}  // namespace

TensorBlock& own_block() { return tensor_blocks[block->rank]; }

namespace {

const StartedMultiply& started_by(unsigned warp, unsigned lane) {
  return *reinterpret_cast<const StartedMultiply*>(lane_of(warp, lane).value);
}

template <class A, class B>
bool is_alike(const A& a, const B& b) {
  return a.shape.format == b.shape.format && a.shape.slice == b.shape.slice && a.shape.columns == b.shape.columns &&
         a.a_rows == b.a_rows && a.rows == b.rows;
}

// All four warps of a warpgroup issue the same multiplies.
void check_alike(unsigned warp, const StartedMultiply& started, Site site) {
  TensorBlock& own = own_block();
  std::vector<Issued>& issued = own.issued[warp / warps_of_group];
  const size_t number = own.warps[warp].issued++;
  if (number == issued.size()) {
    issued.push_back({site, started.shape, started.a_rows, started.rows});
    return;
  }
  const Issued& first = issued[number];
  if (first.site != site || !is_alike(first, started)) {
    Failure& failure = new_failure(ErrorKind::warpgroup_mismatch, site);
    failure.other_site = first.site;
    abandon();
  }
}

// Where rows of an operand lie in the arena.
uint64_t offset_of(const unsigned char* rows, unsigned count, Site site) {
  const uint64_t offset = reinterpret_cast<uintptr_t>(rows) - arena.base;
  if (offset >= arena.shared_end || !is_own_shared(offset)) {
    fail_at(ErrorKind::out_of_bounds, offset, count * row_bytes, Access::read, site);
  }
  if (offset % rows_alignment != 0) {
    fail_at(ErrorKind::misaligned, offset, rows_alignment, Access::read, site);
  }
  return offset;
}

// Where the row's turn changes places of neighbours, the upper half of the slice lies first.
void unpack_segment(TensorFormat format, unsigned row, uint64_t segment, float (&elements)[tile_depth]) {
  const unsigned char* memory = reinterpret_cast<const unsigned char*>(arena.base) + segment;
  unpack_row(format, memory + row % 2 * 16, elements);
  unpack_row(format, memory + (1 - row % 2) * 16, elements + 8);
}

bool is_on_stack(const Thread& thread, const float* registers) {
  return reinterpret_cast<uintptr_t>(registers) - reinterpret_cast<uintptr_t>(thread.stack) < stack_bytes;
}

// The sums in registers of the lanes: those on their way, or what the registers hold now.
Sums* sums_of(unsigned warp, unsigned columns, Site site) {
  TensorWarp& own = own_block().warps[warp];
  for (const auto& sums : own.sums) {
    if (sums->lanes[0] == started_by(warp, 0).sums && sums->columns == columns) {
      return sums.get();
    }
  }
  own.sums.push_back(std::make_unique<Sums>());
  Sums& sums = *own.sums.back();
  sums.columns = columns;
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    float* registers = sums.lanes[lane] = started_by(warp, lane).sums;
    current = &lane_of(warp, lane);
    if (!is_on_stack(*current, registers)) {
      fail(ErrorKind::lost_sums, site);
    }
    check_sums(registers, columns / 2 * sizeof(float), Access::read, site);
    for (unsigned i = 0; i < columns / 2; ++i) {
      sums.values[lane / 4 + i % 4 / 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2] = registers[i];
      memcpy(&registers[i], &poison, sizeof(poison));
    }
  }
  return &sums;
}

// The frame that the sums lie in may have ended since, and its memory be another's.
bool are_there(const Thread& thread, const float* registers, unsigned columns) {
#ifndef VQCC_UCONTEXT
  const void* top = &thread == current ? __builtin_frame_address(0) : thread.context.stack_pointer;
  if (static_cast<const void*>(registers) < top) {
    return false;
  }
#endif
  for (unsigned i = 0; i < columns / 2; ++i) {
    if (memcmp(&registers[i], &poison, sizeof(poison)) != 0) {
      return false;
    }
  }
  return true;
}

void write_back(const Sums& sums, unsigned warp, Site site) {
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    float* registers = sums.lanes[lane];
    if (!are_there(lane_of(warp, lane), registers, sums.columns)) {
      current = &lane_of(warp, lane);
      fail(ErrorKind::lost_sums, site);
    }
    for (unsigned i = 0; i < sums.columns / 2; ++i) {
      registers[i] = sums.values[lane / 4 + i % 4 / 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
    }
  }
}

}  // namespace

void begin_block_multiplies() {
  TensorBlock& own = own_block();
  for (TensorWarp& warp : own.warps) {
    warp = TensorWarp();
  }
  for (auto& issued : own.issued) {
    issued.clear();
  }
  own.readers.assign(arena.shared[block->rank].bytes / segment_bytes + 1, 0);
  block->multiplying = 0;
}

void fence_registers(unsigned warp) { own_block().warps[warp].fenced = true; }

void issue_multiply(unsigned warp) {
  TensorWarp& own = own_block().warps[warp];
  Thread* self = current;
  const Site site = self->site;
  const StartedMultiply& first = started_by(warp, 0);
  const MultiplyShape shape = first.shape;
  if (block->warp_count < (warp / warps_of_group + 1) * warps_of_group) {
    fail(ErrorKind::warpgroup_mismatch, site);
  }
  for (unsigned lane = 1; lane < warp_size; ++lane) {
    if (!is_alike(started_by(warp, lane), first)) {
      fail(ErrorKind::warpgroup_mismatch, site);
    }
  }
  check_alike(warp, first, site);
  if (!own.fenced) {
    fail(ErrorKind::unfenced_multiply, site);
  }
  const uint64_t a_offset = first.a_rows != nullptr ? offset_of(first.a_rows, warps_of_group * tile_rows, site) : 0;
  const uint64_t offset = offset_of(first.rows, shape.columns, site);
  Multiply multiply = {++own.serial, own.group, block->epoch, a_offset, offset, shape, site, nullptr};
  read_operands(warp, multiply);
  multiply.sums = sums_of(warp, shape.columns, site);
  current = self;
  ++multiply.sums->users;
  own.flying.push_back(multiply);
  ++block->multiplying;
  result.counters.tensor_multiplies += counts() ? shape.columns / 8 : 0;
  float a[tile_rows][tile_depth], b[maximum_columns][tile_depth];
  if (a_offset != 0) {
    const unsigned first_row = warp % warps_of_group * tile_rows;
    for_segments(a_offset, first_row, tile_rows, shape.slice, [&](unsigned row, uint64_t segment) {
      unpack_segment(shape.format, row, segment, a[row - first_row]);
    });
  } else {
    for (unsigned lane = 0; lane < warp_size; ++lane) {
      place_rows(shape.format, lane, started_by(warp, lane).a.words, a);
    }
  }
  for_segments(offset, 0, shape.columns, shape.slice,
               [&](unsigned row, uint64_t segment) { unpack_segment(shape.format, row, segment, b[row]); });
  multiply_rows(shape.columns, a, b, multiply.sums->values);
}

void end_group(unsigned warp) {
  TensorWarp& own = own_block().warps[warp];
  ++own.group;
  own.fenced = false;
}

void finish_multiplies(unsigned warp) {
  TensorWarp& own = own_block().warps[warp];
  const uint32_t left = lane_of(warp, 0).argument;
  own.fenced = false;
  uint32_t last = 0;
  size_t done = 0;
  for (; done < own.flying.size() && own.flying[done].group + left < own.group; ++done) {
    const Multiply& multiply = own.flying[done];
    release_operands(warp, multiply);
    --multiply.sums->users;
    --block->multiplying;
    last = multiply.serial;
  }
  own.flying.erase(own.flying.begin(), own.flying.begin() + static_cast<long>(done));
  for (size_t i = 0; i < own.sums.size();) {
    if (own.sums[i]->users != 0) {
      ++i;
      continue;
    }
    write_back(*own.sums[i], warp, current->site);
    own.sums.erase(own.sums.begin() + static_cast<long>(i));
  }
  if (last != 0 && launch.staged) {
    const Clocks read = with_clock(nullptr, tensor_index(warp), last);
    for (unsigned lane = 0; lane < warp_size; ++lane) {
      learn(lane_of(warp, lane), read);
    }
  }
}

void check_no_multiplies(const Thread& thread) {
  const TensorBlock& own = own_block();
  const TensorWarp& warp = own.warps[thread.warp];
  if (!warp.flying.empty()) {
    Failure& failure = new_failure(ErrorKind::pending_multiply, warp.flying.front().site);
    failure.mask = warp.flying.front().group == warp.group;
    abandon();
  }
  const bool last = block->exited + 1 == block->thread_count;
  for (unsigned i = 0; last && i < block->warp_count; ++i) {
    const std::vector<Issued>& issued = own.issued[i / warps_of_group];
    if (own.warps[i].issued != issued.size()) {
      current = &lane_of(i, 0);
      fail(ErrorKind::warpgroup_mismatch, issued[own.warps[i].issued].site);
    }
  }
}

void check_sums(const void* address, uint64_t bytes, Access access, Site site) {
  const Thread& me = *current;
  const char* first = static_cast<const char*>(address);
  for (const Multiply& multiply : own_block().warps[me.warp].flying) {
    const char* registers = reinterpret_cast<const char*>(multiply.sums->lanes[me.lane]);
    if (first < registers + multiply.shape.columns / 2 * sizeof(float) && registers < first + bytes) {
      Failure& failure = new_failure(ErrorKind::sums_in_flight, site);
      failure.bytes = static_cast<uint32_t>(bytes);
      failure.access = access;
      failure.other_site = multiply.site;
      abandon();
    }
  }
}

void begin_multiplies() { meet(WarpOperation::multiply_begin, ~0u, 0, 0, warp_size, VQCC_HERE); }

void start_multiply(MultiplyShape shape, float* sums, MatrixWords a, const void* rows) {
  StartedMultiply mine = {shape, sums, a, nullptr, static_cast<const unsigned char*>(rows)};
  meet(WarpOperation::multiply_start, ~0u, reinterpret_cast<uint64_t>(&mine), 0, warp_size, VQCC_HERE);
}

void start_shared_multiply(MultiplyShape shape, float* sums, const void* a_rows, const void* rows) {
  StartedMultiply mine = {shape, sums, {}, static_cast<const unsigned char*>(a_rows),
                          static_cast<const unsigned char*>(rows)};
  meet(WarpOperation::multiply_start, ~0u, reinterpret_cast<uint64_t>(&mine), 0, warp_size, VQCC_HERE);
}

void commit_multiplies() { meet(WarpOperation::multiply_commit, ~0u, 0, 0, warp_size, VQCC_HERE); }

void wait_for_multiplies(unsigned groups_left) {
  meet(WarpOperation::multiply_wait, ~0u, 0, groups_left, warp_size, VQCC_HERE);
}

}  // namespace vqcc_emulator
