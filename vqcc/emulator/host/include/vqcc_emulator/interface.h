// What the runtime gives to compiled kernels. Everything here is called, never inlined: kernels are instrumented, and
// what would be inlined into them would be checked as if the kernel had done it.
#pragma once

#include <stddef.h>
#include <stdint.h>

// A call that waits must stay one place in the code: a compiler may not give each branch its own copy. GCC is told so
// by flags (see compiler.py).
#ifdef __clang__
#define VQCC_WAITS __attribute__((convergent, noduplicate))
#else
#define VQCC_WAITS
#endif

#pragma GCC visibility push(default)
namespace vqcc_emulator {

struct Index3 {
  unsigned x, y, z;
};

enum class WarpOperation : uint8_t {
  sync,
  shuffle_index,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  match_any,
  reduce_add,
  reduce_min,
  reduce_max,
  reduce_and,
  reduce_or,
  reduce_xor,
  tensor_multiply,
  matrix_load,
  cluster_arrive,
  cluster_wait,
  multiply_begin,
  multiply_start,
  multiply_commit,
  multiply_wait,
};
enum class BarrierOperation : uint8_t { sync, count, all, any };
enum class AtomicOperation : uint8_t {
  add,
  minimum,
  maximum,
  bit_and,
  bit_or,
  bit_xor,
  exchange,
  compare_exchange,
  increment,
  decrement
};
enum class AtomicType : uint8_t { u32, s32, u64, s64, f32, f64, f16x2, bf16x2 };
enum class TensorFormat : uint8_t { f16, bf16 };

// A lane's registers of mma.m16n8k16 (PTX ISA), by value: an array whose address is taken would be checked.
struct Fragments {
  uint32_t a[4], b[2];
  float sums[4];
};
struct FragmentSums {
  float sums[4];
};

// A row of eight 16-bit elements of each of up to four matrices, and what a lane gets of those matrices (PTX ISA,
// ldmatrix).
struct MatrixWords {
  uint32_t words[4];
};

// A multiply of a warpgroup (wgmma.m64nNk16): sixteen elements, from 16 `slice` on, of rows of 64 in shared memory.
struct MultiplyShape {
  TensorFormat format;
  uint8_t slice;
  uint16_t columns;
};

// Up to 16 bytes on their way from or to memory.
struct Word16 {
  uint64_t low, high;
};

// Constant for the life of a thread, so the compiler may call them once: a thread never moves to another index or
// block.
__attribute__((const)) Index3 thread_index();
__attribute__((const)) Index3 block_index();
__attribute__((const)) Index3 block_dimensions();
__attribute__((const)) Index3 grid_dimensions();

// The block's dynamic shared memory, aligned to 128 bytes. Its size is the launch's.
__attribute__((const)) unsigned char* dynamic_shared();
__attribute__((const)) unsigned dynamic_shared_bytes();

// __syncthreads() and its voting variants; a wait for all threads of the block.
VQCC_WAITS unsigned block_barrier(BarrierOperation operation, unsigned predicate);

// A wait for all lanes named in `mask`, with an exchange. Shuffles take `argument` (source, delta or lane mask) and
// `width`.
VQCC_WAITS uint64_t warp_operation(WarpOperation operation, unsigned mask, uint64_t value, unsigned argument,
                                   unsigned width);
unsigned active_mask();

// sums + A B of the warp's tiles; all 32 lanes must come.
VQCC_WAITS FragmentSums multiply_fragments(TensorFormat format, Fragments operands);

// The rows of four 8 x 8 matrices, lane l's being row l % 8 of matrix l / 8, dealt to the lanes; all 32 lanes must come.
// Each has read its row before.
VQCC_WAITS MatrixWords deal_matrices(MatrixWords row);

// The same for a warpgroup, whose multiplies take their time. `sums` are registers of the lane: an array on its stack, which
// holds NaN until a wait for the group of the last multiply that adds to it. `a` are registers too, taken at the start.
// `rows` are columns of operand B. Every lane of the four warps comes to each.
VQCC_WAITS void begin_multiplies();
VQCC_WAITS void start_multiply(MultiplyShape shape, float* sums, MatrixWords a, const void* rows);
// Operand A in shared memory too: 64 rows, of which each warp takes its sixteen.
VQCC_WAITS void start_shared_multiply(MultiplyShape shape, float* sums, const void* a_rows, const void* rows);
VQCC_WAITS void commit_multiplies();
VQCC_WAITS void wait_for_multiplies(unsigned groups_left);

// Shows what this thread has stored to tensor cores' and bulk copies' own ways to shared memory (fence.proxy.async).
void show_stores();

// The block's number in its cluster, which the kernel's __cluster_dims__ makes; the barrier of the cluster's threads, in
// two halves, at each of which the lanes of a warp must be together.
__attribute__((const)) unsigned cluster_rank();
VQCC_WAITS void cluster_arrive();
VQCC_WAITS void cluster_wait();

// Where in the shared memory of block `rank` of the cluster lies what `own` is in this block's.
unsigned char* shared_of(const void* own, unsigned rank);

// One load of 1, 2, 4, 8 or 16 bytes, whatever the compiler would make of it.
Word16 load_word(const void* address, size_t bytes);

// Atomics return the old value. The 64 bits of `value` and `comparand` hold the operand in their low bytes.
uint64_t atomic(AtomicOperation operation, AtomicType type, void* address, uint64_t value, uint64_t comparand);
void thread_fence();

// For vector accesses the compiler cannot see as one: reports an address that is not a multiple of `bytes`.
void check_aligned(const void* address, size_t bytes);

// One store of 1, 2, 4, 8 or 16 bytes, whatever the compiler would make of it.
void store_word(void* address, Word16 word, size_t bytes);

// One load of 1, 2, 4, 8 or 16 bytes that goes past the read-only path and L1: the only one that may read what another
// block of the launch has written.
Word16 load_fresh(const void* address, size_t bytes);

// Asynchronous copies (cp.async): the bytes arrive at the wait, so a kernel that forgets the wait reads what was there
// before. `bytes` is 4, 8 or 16; from `source_bytes` on the destination is filled with zeros.
void copy_async(void* shared, const void* global, size_t bytes, size_t source_bytes);
void copy_async_commit();
void copy_async_wait(unsigned groups_left);
void copy_async_wait_all();

// Barriers of stages (mbarrier): 8 bytes of shared memory, which only these may touch. A phase ends with its last arrival
// once all bytes that arrivals announced are there; a wait is for the end of the last phase of its parity, and returns at
// once for parity 1 of a new barrier. An arrival publishes what its thread did before, a wait makes it known.
void barrier_init(void* barrier, unsigned arrivals);
void barrier_arrive(void* barrier);
void barrier_arrive_expecting(void* barrier, unsigned bytes);
VQCC_WAITS void barrier_wait(void* barrier, unsigned parity);

// A copy of whole 16 bytes by one thread (cp.async.bulk), which land as late as they can: when no thread can go on without.
void bulk_copy(void* shared, const void* global, size_t bytes, void* barrier);

// A wait for exactly `threads` threads, whole warps, that name the same barrier, 1 to 15 (barrier.sync).
VQCC_WAITS void group_barrier(unsigned name, unsigned threads);

// Lets all other threads of the block go on that can, copies land included, before this one: for a thread that looks again
// and again at what another changes by an atomic operation.
VQCC_WAITS void let_others_run();

// Ends the launch with an error, as a trap on a GPU does.
[[noreturn]] void trap();

}  // namespace vqcc_emulator
#pragma GCC visibility pop
