// Atomics, asynchronous copies and alignment checks.
#include "../include/vqcc_emulator/rounding.h"
#include "copy_async.h"
#include "fences.h"
#include "memory.h"

namespace vqcc_emulator {

namespace {

template <class T>
T integer_result(AtomicOperation operation, T old, T value, T comparand) {
  switch (operation) {
    case AtomicOperation::add:
      return static_cast<T>(to_bits(old) + to_bits(value));
    case AtomicOperation::minimum:
      return old < value ? old : value;
    case AtomicOperation::maximum:
      return old > value ? old : value;
    case AtomicOperation::bit_and:
      return old & value;
    case AtomicOperation::bit_or:
      return old | value;
    case AtomicOperation::bit_xor:
      return old ^ value;
    case AtomicOperation::exchange:
      return value;
    case AtomicOperation::compare_exchange:
      return old == comparand ? value : old;
    case AtomicOperation::increment:
      return old >= value ? T(0) : static_cast<T>(old + 1);
    default:
      return old == 0 || old > value ? value : static_cast<T>(old - 1);
  }
}

// Two 16-bit floats in 32 bits.
template <float (*widen)(unsigned short), unsigned short (*narrow)(float)>
uint64_t add_pairs(uint64_t a, uint64_t b) {
  const auto add = [&](int shift) {
    const float sum = widen(static_cast<unsigned short>(a >> shift)) + widen(static_cast<unsigned short>(b >> shift));
    return static_cast<uint64_t>(narrow(sum)) << shift;
  };
  return add(0) | add(16);
}

uint64_t new_value(AtomicOperation operation, AtomicType type, uint64_t old, uint64_t value, uint64_t comparand) {
  const bool exchange = operation == AtomicOperation::exchange;
  switch (type) {
    case AtomicType::u32:
      return integer_result(operation, from_bits<uint32_t>(old), from_bits<uint32_t>(value),
                            from_bits<uint32_t>(comparand));
    case AtomicType::s32:
      return to_bits(
          integer_result(operation, from_bits<int32_t>(old), from_bits<int32_t>(value), from_bits<int32_t>(comparand)));
    case AtomicType::u64:
      return integer_result(operation, old, value, comparand);
    case AtomicType::s64:
      return to_bits(
          integer_result(operation, from_bits<int64_t>(old), from_bits<int64_t>(value), from_bits<int64_t>(comparand)));
    case AtomicType::f32:
      return exchange ? value : to_bits(from_bits<float>(old) + from_bits<float>(value));
    case AtomicType::f64:
      return exchange ? value : to_bits(from_bits<double>(old) + from_bits<double>(value));
    case AtomicType::f16x2:
      return add_pairs<half_to_float, float_to_half>(old, value);
    default:
      return add_pairs<bfloat16_to_float, float_to_bfloat16>(old, value);
  }
}

void require_aligned(const void* address, size_t bytes, Site site) {
  if ((reinterpret_cast<uintptr_t>(address) & (bytes - 1)) == 0) {
    return;
  }
  const uint64_t offset = reinterpret_cast<uintptr_t>(address) - arena.base;
  if (offset < arena.bytes) {
    fail_at(ErrorKind::misaligned, offset, bytes, Access::none, site);
  }
  Failure& failure = new_failure(ErrorKind::misaligned, site);
  failure.address = reinterpret_cast<uintptr_t>(address);
  failure.bytes = static_cast<uint32_t>(bytes);
  abandon();
}

std::vector<PendingCopy> pending[maximum_cluster][maximum_threads];

}  // namespace

uint64_t atomic(AtomicOperation operation, AtomicType type, void* address, uint64_t value, uint64_t comparand) {
  const Site site = VQCC_HERE;
  const bool wide = type == AtomicType::u64 || type == AtomicType::s64 || type == AtomicType::f64;
  const size_t bytes = wide ? 8 : 4;
  check<Access::atomic>(address, bytes, bytes, site);
  const uint64_t offset = reinterpret_cast<uintptr_t>(address) - arena.base;
  if (offset >= arena.shared_end && offset < arena.bytes) {
    note_global_atomic(offset);
  }
  uint64_t old = 0;
  memcpy(&old, address, bytes);
  const uint64_t changed = new_value(operation, type, old, value, comparand);
  memcpy(address, &changed, bytes);
  return old;
}

void check_aligned(const void* address, size_t bytes) { require_aligned(address, bytes, VQCC_HERE); }

void store_word(void* address, Word16 word, size_t bytes) {
  check<Access::write>(address, bytes, bytes, VQCC_HERE);
  memcpy(address, &word, bytes);
}

Word16 load_fresh(const void* address, size_t bytes) {
  check<Access::read, true>(address, bytes, bytes, VQCC_HERE);
  Word16 word = {0, 0};
  memcpy(&word, address, bytes);
  return word;
}

// From the start of a copy to the wait for it the destination counts as being written by this thread and holds nothing
// that may be read, as on a GPU, where the bytes arrive at any time between the two.
void copy_async(void* shared, const void* global, size_t bytes, size_t source_bytes) {
  const Site site = VQCC_HERE;
  if (source_bytes > bytes) {
    source_bytes = bytes;
  }
  require_aligned(global, bytes, site);
  if (source_bytes != 0) {
    check<Access::read>(global, source_bytes, 1, site);
  }
  check<Access::write>(shared, bytes, bytes, site);
  const uint64_t offset = reinterpret_cast<uintptr_t>(shared) - arena.base;
  if (offset < arena.shared_end) {
    memset(arena.flags + offset, mapped | writable, bytes);
    memset(shared, 0xff, bytes);
  }
  pending[block->rank][current->index].push_back(
      {shared, global, static_cast<uint32_t>(bytes), static_cast<uint32_t>(source_bytes), current->copy_group, site});
}

void copy_async_commit() { ++current->copy_group; }

// Leaves the newest `groups_left` committed groups pending.
void copy_async_wait(unsigned groups_left) {
  std::vector<PendingCopy>& copies = pending[block->rank][current->index];
  const bool counting = launch.counting;
  launch.counting = false;  // the store was counted when it was started
  size_t done = 0;
  while (done < copies.size() && copies[done].group + groups_left < current->copy_group) {
    const PendingCopy& copy = copies[done++];
    check<Access::write>(copy.destination, copy.bytes, copy.bytes, copy.site);
    memcpy(copy.destination, copy.source, copy.source_bytes);
    memset(static_cast<unsigned char*>(copy.destination) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  }
  launch.counting = counting;
  copies.erase(copies.begin(), copies.begin() + static_cast<long>(done));
}

void copy_async_wait_all() {
  copy_async_commit();
  copy_async_wait(0);
}

void clear_pending_copies() {
  for (unsigned i = 0; i < block->thread_count; ++i) {
    pending[block->rank][i].clear();
    block->threads[i].copy_group = 0;
  }
}

void check_no_pending_copies(const Thread& thread) {
  if (!pending[block->rank][thread.index].empty()) {
    fail(ErrorKind::pending_copy, pending[block->rank][thread.index].front().site);
  }
}

}  // namespace vqcc_emulator
