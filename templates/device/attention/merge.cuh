// Softmax over parts: what blocks have of a row set and a sequence is merged by the one that arrives last.
#pragma once

#include "../reduce.cuh"
#include "work.cuh"

namespace vqcc {

/// A score that counts for nothing, less than any that there is.
constexpr float kMasked = -3.0e38f;

/// Scores are in powers of two: a softmax of s is one of s * log2(e) over 2^s.
constexpr float kLog2OfE = 1.44269504088896340736f;
constexpr float kLogOfTwo = 0.69314718055994530942f;

/// A warp's largest score may be passed by so many powers of two before earlier weights are scaled anew.
constexpr float kHeadroom = 8.0f;

/// 2^(score - largest), and nothing for a masked score.
VQCC_DEVICE float weight_of(float score, float largest) {
  return score == kMasked ? 0.0f : power_of_two(score - largest);
}

/// What products of queries and keys are multiplied with: scores are in powers of two, but a cap comes before that.
template <class Shape, class Arguments>
VQCC_DEVICE float score_scale(const Arguments& arguments) {
  return arguments.softmax_scale * (Shape::kSoftcap ? 1.0f : kLog2OfE);
}

/// A score with that scale in powers of two, capped if the shape says so.
template <class Shape, class Arguments>
VQCC_DEVICE float capped_score(const Arguments& arguments, float score) {
  if constexpr (!Shape::kSoftcap) return score;
  else return kLog2OfE * arguments.softcap * hyperbolic_tangent(score / arguments.softcap);
}

/// What a part of a softmax leaves for each of kRows rows: a largest score, the sum of weights relative to it, and
/// weighted sums of values. In the workspace, kRows largest, kRows sums, then [kRows][kHeadDim].
template <class Shape, class Tile>
struct Parts {
  static constexpr int kRows = Tile::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kPartFloats = kRows * (kHeadDim + 2);
  static constexpr int kSets = Shape::kHeads * Tile::kRowSets;
  /// The same for every kernel of a library: parts of one must not lie where another counts.
  static constexpr int64 kArrivalBytes = Tile::kArrivalBytes;
  static_assert(static_cast<int64>(kSets) * Tile::kBatch * 4 <= kArrivalBytes, "each set and sequence has a counter");

  /// Parts of a block of the grid: of the segment that it begins with, and of that which it ends with.
  VQCC_DEVICE static float* part_of(uint8* workspace, int block, int number) {
    return reinterpret_cast<float*>(workspace + kArrivalBytes) +
           (static_cast<int64>(block) * 2 + number) * kPartFloats;
  }
  VQCC_DEVICE static uint32* arrivals_of(uint8* workspace, int set, int sequence) {
    return reinterpret_cast<uint32*>(workspace) + set * Tile::kBatch + sequence;
  }
};

/// Stores row `row`'s output at `channel` from its finished sums.
template <class Shape, class Rows, class Arguments>
VQCC_DEVICE void store_output(const Arguments& arguments, const Rows& rows, int row, int sequence, int channel,
                              float weighted, float sum) {
  if (!rows.has(row, arguments.query_tokens)) return;
  const RowStrides& strides = arguments.output_strides;
  store_rounded(arguments.outputs + sequence * strides.sequence + rows.token_of(row) * strides.token +
                    rows.query_head_of(row) * strides.head + channel,
                sum > 0.0f || sum != sum ? weighted / sum : 0.0f);
}

/// Stores the logarithm of row `row`'s sum of exponentials, where it is wanted: minus infinity if it has seen no token.
template <class Shape, class Rows, class Arguments>
VQCC_DEVICE void store_log_sum(const Arguments& arguments, const Rows& rows, int row, int sequence, float largest,
                               float sum) {
  if (arguments.log_sums == nullptr || !rows.has(row, arguments.query_tokens)) return;
  const int64 token = static_cast<int64>(sequence) * arguments.query_tokens + rows.token_of(row);
  const float logarithm = sum > 0.0f || sum != sum ? (largest + base_two_logarithm(sum)) * kLogOfTwo : -infinity();
  arguments.log_sums[token * Shape::kQueryHeads + rows.query_head_of(row)] = logarithm;
}

/// Ends the segment that `progress` is at. If this block of the grid has all of its sequence the outputs are stored; else it
/// leaves a part, and the block that arrives last merges all parts in their order.
///
/// `state[r]` and `state[kRows + r]` are a row's largest score and sum, `sums[r * kHeadDim + c]` its weighted values, in
/// shared memory; `flag` a word of it. Every thread of the block calls it, after a barrier.
template <class Shape, class Tile, int kThreads, class Arguments>
VQCC_DEVICE void end_segment(const Arguments& arguments, const Progress<Tile::kBatch>& progress, const float* state,
                             const float* sums, uint32* flag) {
  using Own = Parts<Shape, Tile>;
  constexpr int kRows = Own::kRows;
  constexpr int kHeadDim = Own::kHeadDim;
  const Segment segment = progress.segment;
  const int sequence = segment.sequence;
  const auto rows = RowSet<Shape, kRows>::of(segment.set, Tile::kRowSets);
  const int thread = computed_anew(static_cast<int>(threadIdx.x));
  const int own = static_cast<int>(blockIdx.x);
  const int first = segment.first_block;
  const int last = segment.last_block;
  if (first == last) {
    for (int i = thread; i < kRows * kHeadDim; i += kThreads) {
      const int row = i / kHeadDim;
      store_output<Shape>(arguments, rows, row, sequence, i % kHeadDim, sums[i], state[kRows + row]);
    }
    if (thread < kRows) store_log_sum<Shape>(arguments, rows, thread, sequence, state[thread], state[kRows + thread]);
    return;
  }
  // The first block of a segment ends with it, unless it begins with it too; all others begin with it.
  const auto part_of = [&](int block) {
    return Own::part_of(arguments.workspace, block, block == first ? segment.first_part : 0);
  };
  float* part = part_of(own);
  for (int i = thread; i < 2 * kRows; i += kThreads) part[i] = state[i];
  for (int i = thread; i < kRows * kHeadDim; i += kThreads) part[2 * kRows + i] = sums[i];
  uint32* arrivals = Own::arrivals_of(arguments.workspace, segment.set, sequence);
  block_barrier();  // every thread's share of the part is written
  if (thread == 0) *flag = count_arrival(arrivals);
  block_barrier();
  if (*flag != static_cast<uint32>(last - first)) return;
  for (int i = thread; i < kRows * kHeadDim; i += kThreads) {
    const int row = i / kHeadDim;
    float largest = kMasked;
#pragma unroll 8
    for (int block = first; block <= last; ++block) largest = larger(largest, load_fresh(part_of(block) + row));
    float sum = 0.0f;
    float weighted = 0.0f;
#pragma unroll 4
    for (int block = first; block <= last; ++block) {
      const float* other = part_of(block);
      const float scale = weight_of(load_fresh(other + row), largest);
      sum = fused_multiply_add(load_fresh(other + kRows + row), scale, sum);
      weighted = fused_multiply_add(load_fresh(other + 2 * kRows + i), scale, weighted);
    }
    store_output<Shape>(arguments, rows, row, sequence, i % kHeadDim, weighted, sum);
    if (i % kHeadDim == 0) store_log_sum<Shape>(arguments, rows, row, sequence, largest, sum);
  }
  if (thread == 0) *arrivals = 0u;  // as the next launch expects it
}

/// Merges softmaxes of a block's warps: `largest` and each lane's share of `sum` become the block's, state[r] and
/// state[kRows + r] of each row, and scales[r] what a warp's sums are multiplied with. `scratch` has room for 2 * kRows *
/// kWarps floats. Every thread of the block calls it; it may read the state after a barrier.
template <int kRows, int kWarps>
VQCC_DEVICE void merge_warps(const float (&largest)[kRows], const float (&sum)[kRows], float* state, float* scratch,
                             float (&scales)[kRows]) {
  float* largest_of = scratch;  // [row][warp]
  float* sum_of = scratch + kRows * kWarps;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float own = sum_of_warp(sum[r]);
    if (lane_index() != 0) continue;
    largest_of[r * kWarps + warp_index()] = largest[r];
    sum_of[r * kWarps + warp_index()] = own;
  }
  block_barrier();
  const bool has_warp = lane_index() < kWarps;  // lanes stand for warps
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float other = has_warp ? largest_of[r * kWarps + lane_index()] : kMasked;
    const float whole = largest_of_warp(other);
    scales[r] = weight_of(largest[r], whole);
    if (warp_index() != r % kWarps) continue;
    const float all = sum_of_warp(has_warp ? sum_of[r * kWarps + lane_index()] * weight_of(other, whole) : 0.0f);
    if (lane_index() != 0) continue;
    state[r] = whole;
    state[kRows + r] = all;
  }
}

/// Adds up what each warp has left of kFloats floats at `sums`, and calls `store_sum(i, sum)`.
template <int kFloats, int kWarps, class Store>
VQCC_DEVICE void add_warps(const float* sums, const Store& store_sum) {
  for (int i = computed_anew(static_cast<int>(threadIdx.x)); i < kFloats; i += kWarps * kWarpSize) {
    float sum = sums[i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum += sums[w * kFloats + i];
    store_sum(i, sum);
  }
}

/// Goes through this block's segments: `work(rows, same_head, sequence, first, end)` makes what end_segment takes of token
/// blocks `first` to `end` of a sequence, counted from the first that a query sees. `same_head` says that the segment before
/// was of the same kv-head. Every thread of the block calls it.
template <class Shape, class Tile, int kThreads, class Arguments, class Work>
VQCC_DEVICE void for_each_segment(const Arguments& arguments, Progress<Tile::kBatch>& progress, const float* state,
                                  const float* sums, uint32* flag, const Work& work) {
  if (warp_index() == 0) {
    find_starts<Shape>(arguments.lengths, arguments.batch, arguments.query_tokens, progress.starts);
    warp_barrier();
    if (lane_index() == 0) progress.start(arguments.batch, Shape::kHeads * Tile::kRowSets);
  }
  block_barrier();
  while (progress.segment.own > 0) {
    const Segment& segment = progress.segment;
    if (static_cast<int>(threadIdx.x) == kThreads - 1) progress.find_parts();
    const bool same_head = segment.last_set >= 0 && segment.last_set / Tile::kRowSets == segment.set / Tile::kRowSets;
    work(RowSet<Shape, Tile::kRows>::of(segment.set, Tile::kRowSets), same_head, segment.sequence, segment.first,
         segment.first + segment.own);
    end_segment<Shape, Tile, kThreads>(arguments, progress, state, sums, flag);
    block_barrier();  // sums and state have been read
    if (threadIdx.x == 0) progress.advance(arguments.batch);
    block_barrier();
  }
}

/// A query's element in fp32, times `scale`; a row that there is not is zero.
template <class Tile, class Arguments, class Rows>
VQCC_DEVICE float query_element(const Arguments& arguments, const Rows& rows, int sequence, int row, int channel,
                                float scale) {
  if (!rows.has(row, arguments.query_tokens)) return 0.0f;
  const RowStrides& strides = arguments.query_strides;
  const auto* query = arguments.queries + sequence * strides.sequence + rows.token_of(row) * strides.token +
                      rows.query_head_of(row) * strides.head;
  return scale * load_element<Tile::kElement>(query, channel);
}

/// Queries at queries[r * kHeadDim + c].
template <class Shape, class Tile, int kThreads, class Arguments, class Rows>
VQCC_DEVICE void load_queries(const Arguments& arguments, const Rows& rows, int sequence, float scale, float* queries) {
  for (int i = computed_anew(static_cast<int>(threadIdx.x)); i < Tile::kRows * Shape::kHeadDim; i += kThreads) {
    queries[i] = query_element<Tile>(arguments, rows, sequence, i / Shape::kHeadDim, i % Shape::kHeadDim, scale);
  }
}

}  // namespace vqcc
