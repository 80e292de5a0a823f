// Micro-benchmarks: what `vqcc calibrate` runs to measure constants of the cost model, each kernel one of them.
//
// A kernel does one thing `steps` times and notes how long its first block took. What it computes depends on every step
// and is stored, so that no compiler leaves work out; tests hold it against a model.
#include "../device/arch.cuh"

using namespace vqcc;

/// How long a block took, by the clock of its SM and by the device's.
struct Elapsed {
  int64 cycles, nanoseconds;
};

/// Chains that a thread works on at a time, so that none waits for its own last result; steps that a loop unrolls.
constexpr int kChains = 8, kMultiplyChains = 4, kUnroll = 8;
/// Words of 16 bytes that a thread asks for at a time.
constexpr int kWords = 8;
/// Nodes of `chase` are lines of the caches, in 32-bit words. Each leads to kLinkFactor times itself, kLinkStep added:
/// modulo a power of two that visits all nodes before the first again, in an order that nothing fetches ahead.
constexpr uint32 kNodeWords = 32, kLinkFactor = 1664525, kLinkStep = 1013904223;

/// Times a block from all of its threads' start to all of their ends.
struct Stopwatch {
  int64 cycles, nanoseconds;

  VQCC_DEVICE void start() {
    block_barrier();
    nanoseconds = clock_nanoseconds();
    cycles = clock_cycles();
  }
  VQCC_DEVICE void stop(Elapsed* elapsed) {
    block_barrier();
    const int64 end = clock_cycles();
    const int64 end_nanoseconds = clock_nanoseconds();
    if (blockIdx.x == 0 && threadIdx.x == 0) *elapsed = {end - cycles, end_nanoseconds - nanoseconds};
  }
};

VQCC_DEVICE int global_thread() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

VQCC_DEVICE uint32 folded(uint4 word) { return word.x ^ word.y ^ word.z ^ word.w; }

// ---- Memory ------------------------------------------------------------------------------------------------

/// Word i of 16 bytes becomes (i, ~i, kLinkFactor i, kLinkStep i): memory that holds something.
extern "C" __global__ void fill(uint4* words, int64 count) {
  const int64 threads = static_cast<int64>(gridDim.x) * blockDim.x;
  for (int64 i = global_thread(); i < count; i += threads) {
    const uint32 n = static_cast<uint32>(i);
    store(words + i, make_uint4(n, ~n, kLinkFactor * n, kLinkStep * n));
  }
}

/// Makes a ring of `count` nodes, a power of two.
extern "C" __global__ void link_nodes(uint32* nodes, uint32 count) {
  const uint32 threads = gridDim.x * blockDim.x;
  for (uint32 i = global_thread(); i < count; i += threads) {
    nodes[static_cast<int64>(i) * kNodeWords] = (i * kLinkFactor + kLinkStep) & (count - 1);
  }
}

/// The whole GPU reads `count` words, a multiple of kWords times its threads, once.
extern "C" __global__ void stream(const uint4* words, int64 count, uint32* out) {
  const int64 threads = static_cast<int64>(gridDim.x) * blockDim.x;
  uint32 sum = 0;
#pragma unroll 1
  for (int64 i = global_thread(); i < count; i += kWords * threads) {
    uint4 read[kWords];
#pragma unroll
    for (int j = 0; j < kWords; ++j) read[j] = load_streaming(words + i + j * threads);
#pragma unroll
    for (int j = 0; j < kWords; ++j) sum ^= folded(read[j]);
  }
  out[global_thread()] = sum;
}

/// One block reads `count` words, a multiple of kWords times its threads, past its first-level cache `steps` times; a first
/// time, which brings them into the second level, is not timed.
extern "C" __global__ void read_cached(const uint4* words, int count, int steps, uint32* out, Elapsed* elapsed) {
  const int threads = static_cast<int>(blockDim.x);
  uint32 sum = 0;
  Stopwatch watch;
#pragma unroll 1
  for (int step = -1; step < steps; ++step) {
    if (step <= 0) watch.start();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kWords * threads) {
      uint4 read[kWords];
#pragma unroll
      for (int j = 0; j < kWords; ++j) read[j] = load_fresh(words + i + j * threads);
#pragma unroll
      for (int j = 0; j < kWords; ++j) sum = 3 * sum + folded(read[j]);
    }
  }
  watch.stop(elapsed);
  out[threadIdx.x] = sum;
}

/// One thread goes from node `first` along `steps` links, each load waiting for the one before; *out is where it ends.
extern "C" __global__ void chase(const uint32* nodes, uint32 first, int steps, uint32* out, Elapsed* elapsed) {
  uint32 node = first;
  Stopwatch watch;
  watch.start();
#pragma unroll 1
  for (int step = 0; step < steps; ++step) node = load_fresh(nodes + static_cast<int64>(node) * kNodeWords);
  if (node == ~0u) *out = 0;  // no node: so that the last load is waited for before the clock is read
  watch.stop(elapsed);
  *out = node;
}

// ---- Instructions ------------------------------------------------------------------------------------------

/// Values that differ, so that no two chains are one to a compiler.
VQCC_DEVICE void start_chains(float (&sums)[kMultiplyChains][4]) {
#pragma unroll
  for (int i = 0; i < kMultiplyChains; ++i) sums[i][0] = i, sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
}
VQCC_DEVICE void start_chains(uint32 (&values)[kChains]) {
#pragma unroll
  for (int i = 0; i < kChains; ++i) values[i] = threadIdx.x * kChains + i;
}

/// Adds A B, 16 in each element, to kMultiplyChains fragments of sums.
VQCC_DEVICE void multiply_step(float (&sums)[kMultiplyChains][4], uint32 ones) {
  const uint32 a[4] = {ones, ones, ones, ones}, b[2] = {ones, ones};
#pragma unroll
  for (int i = 0; i < kMultiplyChains; ++i) multiply_fragments<ElementType::kFloat16>(sums[i], a, b);
}

/// Three integer instructions for each of kChains values: prmt, shf and lop3, by arguments that no compiler knows.
VQCC_DEVICE void bits_step(uint32 (&values)[kChains], uint32 other, uint32 selector, int shift) {
#pragma unroll
  for (int i = 0; i < kChains; ++i) {
    values[i] = permute_bytes(values[i], other, selector);
    values[i] = funnel_right(values[i], other, shift);
    values[i] = (values[i] & selector) ^ other;
  }
}

VQCC_DEVICE float sum_of(const float (&sums)[kMultiplyChains][4]) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kMultiplyChains; ++i) sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
  return sum;
}

VQCC_DEVICE uint32 sum_of(const uint32 (&values)[kChains]) {
  uint32 sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum = 3 * sum + values[i];
  return sum;
}

/// kMultiplyChains * steps multiplies of each warp; `ones` are two float16 ones. `steps` is a multiple of kUnroll.
extern "C" __global__ void multiply(uint32 ones, int steps, float* out, Elapsed* elapsed) {
  float sums[kMultiplyChains][4];
  start_chains(sums);
  Stopwatch watch;
  watch.start();
#pragma unroll 1
  for (int step = 0; step < steps; step += kUnroll) {
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) multiply_step(sums, ones);
  }
  watch.stop(elapsed);
  out[global_thread()] = sum_of(sums);
}

/// 3 * kChains * steps integer instructions of each warp. `steps` is a multiple of kUnroll.
extern "C" __global__ void combine_bits(uint32 other, uint32 selector, int shift, int steps, uint32* out,
                                        Elapsed* elapsed) {
  uint32 values[kChains];
  start_chains(values);
  Stopwatch watch;
  watch.start();
#pragma unroll 1
  for (int step = 0; step < steps; step += kUnroll) {
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) bits_step(values, other, selector, shift);
  }
  watch.stop(elapsed);
  out[global_thread()] = sum_of(values);
}

/// One warp exchanges its values by shuffles, `steps` of them, a multiple of kUnroll, each waiting for the one before; and
/// by one more, so that lane t ends with the value of lane t ^ mask.
extern "C" __global__ void shuffle(int mask, int steps, uint32* out, Elapsed* elapsed) {
  uint32 value = threadIdx.x;
  Stopwatch watch;
  watch.start();
#pragma unroll 1
  for (int step = 0; step < steps; step += kUnroll) {
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) value = exchange_xor(value, mask);
  }
  watch.stop(elapsed);
  out[threadIdx.x] = exchange_xor(value, mask);
}

/// The same through shared memory: a store, and a load of what another lane has stored.
extern "C" __global__ void round_trip(int mask, int steps, uint32* out, Elapsed* elapsed) {
  // Two places take turns, so that a lane's next store meets nobody's load.
  uint32* places = reinterpret_cast<uint32*>(dynamic_shared());
  uint32 value = threadIdx.x;
  const int lane = lane_index();
  Stopwatch watch;
  watch.start();
#pragma unroll 1
  for (int step = 0; step < steps; step += kUnroll) {
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      uint32* place = places + i % 2 * kWarpSize;
      place[lane] = value;
      warp_barrier();
      value = place[lane ^ mask];
    }
  }
  watch.stop(elapsed);
  out[threadIdx.x] = exchange_xor(value, mask);
}

// ---- Launches and clocks -----------------------------------------------------------------------------------

/// Nothing, for what a launch costs.
extern "C" __global__ void empty() {}

/// Everything at once on the whole GPU, for the clock under load: multiplies, integer instructions and a stream of
/// `count` words, a multiple of the grid's threads, again and again. `steps` are words of each thread.
extern "C" __global__ void load_up(const uint4* words, int64 count, uint32 ones, int steps, uint32* out,
                                   Elapsed* elapsed) {
  const int64 threads = static_cast<int64>(gridDim.x) * blockDim.x;
  float sums[kMultiplyChains][4];
  uint32 values[kChains];
  start_chains(sums);
  start_chains(values);
  int64 at = global_thread();
  Stopwatch watch;
  watch.start();
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const uint4 word = load_streaming(words + at);
    at += threads;
    if (at >= count) at -= count;
    multiply_step(sums, ones);
    bits_step(values, folded(word), ones, step % kWarpSize);
  }
  watch.stop(elapsed);
  out[global_thread()] = sum_of(values) + static_cast<uint32>(sum_of(sums));
}
