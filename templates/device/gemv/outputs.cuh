// From sums to y: what every gemv kernel does last.
#pragma once

#include "work.cuh"

namespace vqcc {

/// y[b][row] = `sum`, scaled and biased. Rows of x past m are not stored.
template <class Tile, class Matrix, class Arguments>
VQCC_DEVICE void store_output(const Arguments& arguments, int row, int b, float sum) {
  if (b >= arguments.m) return;
  sum *= row_scale<Matrix>(arguments.scales, row);
  if (arguments.bias != nullptr) sum += load_element<Tile::kElement>(arguments.bias, row);
  store_rounded(arguments.y + b * arguments.y_stride + row, sum);
}

/// Where a workspace has its counters of arrivals, and behind kArrivals of them the sums of parts.
VQCC_DEVICE uint32* arrival_of(uint8* workspace, int outputs) { return reinterpret_cast<uint32*>(workspace) + outputs; }
template <int kArrivals>
VQCC_DEVICE float* part_sums(uint8* workspace) {
  constexpr int64 kArrivalBytes = (static_cast<int64>(kArrivals) * 4 + 255) / 256 * 256;
  return reinterpret_cast<float*>(workspace + kArrivalBytes);
}

/// The global reduction (Algorithm 2, line 21) of the `parts` blocks that share kOutputs outputs. Each leaves its sums in
/// the workspace, and the one that arrives last adds them in the order of the parts, whichever block that is.
///
/// `arrivals` and `sums` are those of the outputs in the workspace, `flag` a word of shared memory that nothing else
/// uses. `own_sum(i)` is this block's sum i, `finish(i, sum)` takes the whole one. Every thread of the block calls it.
template <int kOutputs, int kThreads, class OwnSum, class Finish>
VQCC_DEVICE void reduce_parts(uint32* arrivals, float* sums, uint32* flag, int part, int parts, const OwnSum& own_sum,
                              const Finish& finish) {
  // Sums are far away: a thread asks for many before it needs one.
  constexpr int kWidth = kOutputs % 4 == 0 ? 4 : 1;  // sums of one load
  constexpr int kWords = kOutputs / kWidth;
  constexpr int kBatch = smaller(4, ceil_divide(kWords, kThreads));  // loads of a part that go together
  constexpr int kUnrolled = 8 / kBatch;                               // parts that go together
  using Word = typename WordOf<4 * kWidth>::Type;
  const int first = static_cast<int>(threadIdx.x);
  for (int i = first; i < kOutputs; i += kThreads) sums[part * kOutputs + i] = own_sum(i);
  block_barrier();  // every thread's sums are written, and `flag` may be what was read for them
  if (threadIdx.x == 0) *flag = count_arrival(arrivals);
  block_barrier();
  if (*flag != static_cast<uint32>(parts - 1)) return;
  for (int base = first; base < kWords; base += kBatch * kThreads) {
    float whole[kBatch][kWidth] = {};
#pragma unroll kUnrolled
    for (int p = 0; p < parts; ++p) {
      const Word* source = reinterpret_cast<const Word*>(sums + p * kOutputs);
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        uint32 bits[kWidth] = {};
        if (base + b * kThreads < kWords) to_registers(load_fresh(source + base + b * kThreads), bits);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) whole[b][i] += float_of_bits(bits[i]);
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (base + b * kThreads >= kWords) break;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) finish((base + b * kThreads) * kWidth + i, whole[b][i]);
    }
  }
  if (threadIdx.x == 0) *arrivals = 0u;  // as the next launch expects it
}

}  // namespace vqcc
