// The compiler puts a call to one of these before every memory access of a kernel (-fsanitize=thread); libtsan itself
// is not linked. The thread's own variables that never leave the function are not instrumented.
#include "memory.h"

using vqcc_emulator::Access;
using vqcc_emulator::check;

#define VQCC_EXPORT extern "C" __attribute__((visibility("default")))

#define VQCC_SIZED(bytes)                                                                                    \
  VQCC_EXPORT void __tsan_read##bytes(void* p) { check<Access::read>(p, bytes, bytes, VQCC_HERE); }          \
  VQCC_EXPORT void __tsan_write##bytes(void* p) { check<Access::write>(p, bytes, bytes, VQCC_HERE); }        \
  VQCC_EXPORT void __tsan_unaligned_read##bytes(void* p) { check<Access::read>(p, bytes, 1, VQCC_HERE); }    \
  VQCC_EXPORT void __tsan_unaligned_write##bytes(void* p) { check<Access::write>(p, bytes, 1, VQCC_HERE); }  \
  VQCC_EXPORT void __tsan_volatile_read##bytes(void* p) { check<Access::read>(p, bytes, bytes, VQCC_HERE); } \
  VQCC_EXPORT void __tsan_volatile_write##bytes(void* p) { check<Access::write>(p, bytes, bytes, VQCC_HERE); }
VQCC_SIZED(1)
VQCC_SIZED(2)
VQCC_SIZED(4)
VQCC_SIZED(8)
VQCC_SIZED(16)
#undef VQCC_SIZED

VQCC_EXPORT void __tsan_read_range(void* p, size_t bytes) { check<Access::read>(p, bytes, 1, VQCC_HERE); }
VQCC_EXPORT void __tsan_write_range(void* p, size_t bytes) { check<Access::write>(p, bytes, 1, VQCC_HERE); }

namespace {
void check_copy(void* to, const void* from, size_t bytes, vqcc_emulator::Site site) {
  if (bytes == 0) {
    return;
  }
  if (from != nullptr) {
    check<Access::read>(from, bytes, 1, site);
  }
  check<Access::write>(to, bytes, 1, site);
}
}  // namespace

// Copies of a size the compiler does not know are calls: the linker sends those here (--wrap). Clang calls __tsan_*.
#define VQCC_BLOCK_OPERATIONS(prefix)                                           \
  VQCC_EXPORT void* prefix##memcpy(void* to, const void* from, size_t bytes) {  \
    check_copy(to, from, bytes, VQCC_HERE);                                     \
    return memcpy(to, from, bytes);                                             \
  }                                                                             \
  VQCC_EXPORT void* prefix##memmove(void* to, const void* from, size_t bytes) { \
    check_copy(to, from, bytes, VQCC_HERE);                                     \
    return memmove(to, from, bytes);                                            \
  }                                                                             \
  VQCC_EXPORT void* prefix##memset(void* to, int value, size_t bytes) {         \
    check_copy(to, nullptr, bytes, VQCC_HERE);                                  \
    return memset(to, value, bytes);                                            \
  }
VQCC_BLOCK_OPERATIONS(__wrap_)
VQCC_BLOCK_OPERATIONS(__tsan_)
#undef VQCC_BLOCK_OPERATIONS

VQCC_EXPORT void __tsan_init() {}
VQCC_EXPORT void __tsan_func_entry(void*) {}
VQCC_EXPORT void __tsan_func_exit() {}
VQCC_EXPORT void __tsan_vptr_read(void** p) { check<Access::read>(p, sizeof(*p), 1, VQCC_HERE); }
VQCC_EXPORT void __tsan_vptr_update(void** p, void*) { check<Access::write>(p, sizeof(*p), 1, VQCC_HERE); }
