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

/// The global reduction (Algorithm 2, line 21) of the kParts blocks that share kOutputs outputs. Each leaves its sums in
/// the workspace, and the one that arrives last adds them in the order of the parts, whichever block that is.
///
/// `arrivals` and `sums` are those of the outputs in the workspace, `flag` a word of shared memory that nothing else
/// uses. `own_sum(i)` is this block's sum i, `finish(i, sum)` takes the whole one. Every thread of the block calls it.
template <int kParts, int kOutputs, int kThreads, class OwnSum, class Finish>
VQCC_DEVICE void reduce_parts(uint32* arrivals, float* sums, uint32* flag, int part, const OwnSum& own_sum,
                              const Finish& finish) {
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs; i += kThreads) sums[part * kOutputs + i] = own_sum(i);
  block_barrier();  // every thread's sums are written, and `flag` may be what was read for them
  if (threadIdx.x == 0) *flag = count_arrival(arrivals);
  block_barrier();
  if (*flag != kParts - 1) return;
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs; i += kThreads) {
    float sum = 0.0f;
#pragma unroll 8
    for (int p = 0; p < kParts; ++p) sum += load_fresh(sums + p * kOutputs + i);
    finish(i, sum);
  }
  if (threadIdx.x == 0) *arrivals = 0u;  // as the next launch expects it
}

}  // namespace vqcc
