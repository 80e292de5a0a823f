// Barriers, fences, shuffles and votes.
#pragma once

#define VQCC_FULL_WIDTH 32

__forceinline__ void __syncthreads() { vqcc_emulator::block_barrier(vqcc_emulator::BarrierOperation::sync, 0); }
__forceinline__ int __syncthreads_count(int predicate) {
  return static_cast<int>(vqcc_emulator::block_barrier(vqcc_emulator::BarrierOperation::count, predicate != 0));
}
__forceinline__ int __syncthreads_and(int predicate) {
  return static_cast<int>(vqcc_emulator::block_barrier(vqcc_emulator::BarrierOperation::all, predicate != 0));
}
__forceinline__ int __syncthreads_or(int predicate) {
  return static_cast<int>(vqcc_emulator::block_barrier(vqcc_emulator::BarrierOperation::any, predicate != 0));
}
__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu) {
  vqcc_emulator::warp_operation(vqcc_emulator::WarpOperation::sync, mask, 0, 0, VQCC_FULL_WIDTH);
}
__forceinline__ void __threadfence() { vqcc_emulator::thread_fence(); }
__forceinline__ void __threadfence_system() { vqcc_emulator::thread_fence(); }
// A fence within the block orders, but makes no thread wait: it removes no race here.
__forceinline__ void __threadfence_block() {}

__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(
      vqcc_emulator::warp_operation(vqcc_emulator::WarpOperation::ballot, mask, predicate != 0, 0, VQCC_FULL_WIDTH));
}
__forceinline__ int __any_sync(unsigned mask, int predicate) {
  return static_cast<int>(
      vqcc_emulator::warp_operation(vqcc_emulator::WarpOperation::any, mask, predicate != 0, 0, VQCC_FULL_WIDTH));
}
__forceinline__ int __all_sync(unsigned mask, int predicate) {
  return static_cast<int>(
      vqcc_emulator::warp_operation(vqcc_emulator::WarpOperation::all, mask, predicate != 0, 0, VQCC_FULL_WIDTH));
}
// The lanes that have not exited. A GPU may return any subset of them that holds the caller; code must not depend on
// it.
__forceinline__ unsigned __activemask() { return vqcc_emulator::active_mask(); }

namespace vqcc_emulator {
template <class T>
__forceinline__ T shuffle(WarpOperation operation, unsigned mask, T value, unsigned argument, int width) {
  return from_bits<T>(warp_operation(operation, mask, to_bits(value), argument, static_cast<unsigned>(width)));
}
}  // namespace vqcc_emulator

// Templates, where CUDA has overloads: they take the half types too, without this header knowing those.
template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = VQCC_FULL_WIDTH) {
  return vqcc_emulator::shuffle(vqcc_emulator::WarpOperation::shuffle_index, mask, value, static_cast<unsigned>(source),
                                width);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = VQCC_FULL_WIDTH) {
  return vqcc_emulator::shuffle(vqcc_emulator::WarpOperation::shuffle_up, mask, value, delta, width);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = VQCC_FULL_WIDTH) {
  return vqcc_emulator::shuffle(vqcc_emulator::WarpOperation::shuffle_down, mask, value, delta, width);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = VQCC_FULL_WIDTH) {
  return vqcc_emulator::shuffle(vqcc_emulator::WarpOperation::shuffle_xor, mask, value,
                                static_cast<unsigned>(lane_mask), width);
}
template <class T>
__forceinline__ unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(vqcc_emulator::warp_operation(vqcc_emulator::WarpOperation::match_any, mask,
                                                             vqcc_emulator::to_bits(value), 0, VQCC_FULL_WIDTH));
}

#define VQCC_REDUCE(name, operation, type)                                                                        \
  __forceinline__ type name(unsigned mask, type value) {                                                          \
    /* Sign-extended, so that one 64-bit comparison serves int and unsigned. */                                   \
    return static_cast<type>(vqcc_emulator::warp_operation(vqcc_emulator::WarpOperation::operation, mask,         \
                                                           static_cast<uint64_t>(static_cast<int64_t>(value)), 0, \
                                                           VQCC_FULL_WIDTH));                                     \
  }
VQCC_REDUCE(__reduce_add_sync, reduce_add, unsigned)
VQCC_REDUCE(__reduce_add_sync, reduce_add, int)
VQCC_REDUCE(__reduce_min_sync, reduce_min, unsigned)
VQCC_REDUCE(__reduce_min_sync, reduce_min, int)
VQCC_REDUCE(__reduce_max_sync, reduce_max, unsigned)
VQCC_REDUCE(__reduce_max_sync, reduce_max, int)
VQCC_REDUCE(__reduce_and_sync, reduce_and, unsigned)
VQCC_REDUCE(__reduce_or_sync, reduce_or, unsigned)
VQCC_REDUCE(__reduce_xor_sync, reduce_xor, unsigned)
#undef VQCC_REDUCE

namespace vqcc_emulator {
template <class T>
__forceinline__ void store_whole(T* address, T value) {
  Word16 word = {0, 0};
  __builtin_memcpy(&word, &value, sizeof(T));
  store_word(address, word, sizeof(T));
}
}  // namespace vqcc_emulator

namespace vqcc_emulator {
// One load of what lies at `address`, of the type that `as` points to.
template <class T>
__forceinline__ T load_whole(const void* address, const T*) {
  const Word16 word = load_word(address, sizeof(T));
  T value;
  __builtin_memcpy(&value, &word, sizeof(T));
  return value;
}
}  // namespace vqcc_emulator

// The read-only cache has no meaning here: a plain load, checked like every other. Past L1 goes __ldcg alone.
template <class T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcs(const T* address) {
  return *address;
}
template <class T>
__forceinline__ T __ldcg(const T* address) {
  const vqcc_emulator::Word16 word = vqcc_emulator::load_fresh(address, sizeof(T));
  T value;
  __builtin_memcpy(&value, &word, sizeof(T));
  return value;
}
template <class T>
__forceinline__ T __ldca(const T* address) {
  return *address;
}
template <class T>
__forceinline__ void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
__forceinline__ void __stcg(T* address, T value) {
  *address = value;
}

__forceinline__ void __trap() { vqcc_emulator::trap(); }
