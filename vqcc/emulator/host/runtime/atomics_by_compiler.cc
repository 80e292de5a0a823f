// Calls the compiler makes for C++ atomic builtins under -fsanitize=thread. CUDA code has its own atomic functions;
// these are for host bodies in device headers. Fibers do not preempt each other, so plain memory operations are atomic
// here.
#include "memory.h"

namespace {

template <class T>
T* checked(const volatile T* address, vqcc_emulator::Site site) {
  T* plain = const_cast<T*>(address);
  vqcc_emulator::check<vqcc_emulator::Access::atomic>(plain, sizeof(T), sizeof(T), site);
  return plain;
}

}  // namespace

#define VQCC_FETCH(bits, name, expression)                                                       \
  extern "C" __attribute__((visibility("default"))) uint##bits##_t __tsan_atomic##bits##_##name( \
      volatile uint##bits##_t* address, uint##bits##_t value, int) {                             \
    uint##bits##_t* memory = checked(address, VQCC_HERE);                                        \
    const uint##bits##_t old = *memory;                                                          \
    *memory = static_cast<uint##bits##_t>(expression);                                           \
    return old;                                                                                  \
  }

#define VQCC_COMPARE(bits, name)                                                                       \
  extern "C" __attribute__((visibility("default"))) int __tsan_atomic##bits##_compare_exchange_##name( \
      volatile uint##bits##_t* address, uint##bits##_t* comparand, uint##bits##_t value, int, int) {   \
    uint##bits##_t* memory = checked(address, VQCC_HERE);                                              \
    const bool equal = *memory == *comparand;                                                          \
    *(equal ? memory : comparand) = equal ? value : *memory;                                           \
    return equal;                                                                                      \
  }

#define VQCC_ATOMICS(bits)                                                                                             \
  extern "C" __attribute__((visibility("default"))) uint##bits##_t __tsan_atomic##bits##_load(                         \
      const volatile uint##bits##_t* address, int) {                                                                   \
    return *checked(address, VQCC_HERE);                                                                               \
  }                                                                                                                    \
  extern "C" __attribute__((visibility("default"))) void __tsan_atomic##bits##_store(volatile uint##bits##_t* address, \
                                                                                     uint##bits##_t value, int) {      \
    *checked(address, VQCC_HERE) = value;                                                                              \
  }                                                                                                                    \
  VQCC_FETCH(bits, exchange, value)                                                                                    \
  VQCC_FETCH(bits, fetch_add, old + value)                                                                             \
  VQCC_FETCH(bits, fetch_sub, old - value)                                                                             \
  VQCC_FETCH(bits, fetch_and, old& value)                                                                              \
  VQCC_FETCH(bits, fetch_or, old | value)                                                                              \
  VQCC_FETCH(bits, fetch_xor, old ^ value)                                                                             \
  VQCC_COMPARE(bits, strong)                                                                                           \
  VQCC_COMPARE(bits, weak)

VQCC_ATOMICS(8)
VQCC_ATOMICS(16)
VQCC_ATOMICS(32)
VQCC_ATOMICS(64)

extern "C" __attribute__((visibility("default"))) void __tsan_atomic_thread_fence(int) {
  vqcc_emulator::thread_fence();
}
