// What a launch of attention works on, and how blocks share it: token blocks of all sequences and heads, in one row.
#pragma once

#include "cache.cuh"

namespace vqcc {

/// How keys are rotated by their position after decoding: not at all, channels i and i + head_dim / 2 together, or
/// channels 2 i and 2 i + 1 together.
enum class Rope { kNone, kHalf, kInterleaved };

/// Of products of keys that are multiplied as they lie in the cache: positions matter to none.
struct FixedKeys {
  static constexpr int kRotationBytes = 0;
  template <int kThreads>
  VQCC_DEVICE static void make_rotations(uint8* /*table*/, const uint8* /*steps*/) {}
  VQCC_DEVICE void move_to(const uint8* /*table*/, const uint8* /*steps*/, int /*position*/, const float* /*queries*/,
                           uint8* /*scratch*/) {}
};

/// Strides of queries or outputs [batch, query tokens, query heads, head_dim], in elements.
struct RowStrides {
  int64 sequence;
  int64 token;
  int64 head;
};

/// Parameters of one launch. Lengths count the query tokens, whose keys and values have been appended; a length of 0 is
/// an empty sequence. The newest tokens, up to the window, lie in [batch, kv heads, window, head_dim] in full precision,
/// position p at slot p % window.
template <class Element>
struct AttentionArguments {
  const Element* queries;
  const uint8* pages;
  const uint8* key_books;
  const uint8* value_books;
  const float* book_facts;  // of each head's books, for kernels that look rows up (EntryRows)
  const uint8* rotations;   // of pairs of channels: TurnStep
  const int* lengths;
  const int* page_table;
  const Element* key_window;
  const Element* value_window;
  Element* outputs;
  float* log_sums;  // [batch, query tokens, query heads], or null
  uint8* workspace;
  int batch;
  int query_tokens;
  int page_table_stride;
  int page_blocks;
  float softmax_scale;
  float softcap;
  RowStrides query_strides;
  RowStrides output_strides;
};

/// `Shape` names kQueryHeads, kHeads, kHeadDim, kWindow, kSlidingWindow (0: none), kSoftcap, kRope.
/// A sequence: its tokens in codes come first, in token blocks, then those of the window, in blocks too.
template <class Shape>
struct Sequence {
  int length;
  int coded;         // tokens that are in codes
  int coded_blocks;  // blocks that have them
  int first_block;   // blocks before it no query sees
  int blocks;        // from there on: at least one, for a sequence without tokens has an output too

  VQCC_DEVICE static Sequence of(int length, int query_tokens) {
    Sequence sequence;
    sequence.length = length;
    sequence.coded = Shape::kWindow == 0 ? length : length > Shape::kWindow ? length - Shape::kWindow : 0;
    sequence.coded_blocks = ceil_divide(sequence.coded, kBlockTokens);
    sequence.first_block = 0;
    if constexpr (Shape::kSlidingWindow > 0) {
      const int first = length - query_tokens - Shape::kSlidingWindow + 1;
      if (first >= sequence.coded) {
        sequence.first_block = sequence.coded_blocks + (first - sequence.coded) / kBlockTokens;
      } else if (first > 0) {
        sequence.first_block = first / kBlockTokens;
      }
    }
    const int last = sequence.coded_blocks + ceil_divide(length - sequence.coded, kBlockTokens);
    sequence.blocks = last > sequence.first_block ? last - sequence.first_block : 1;
    return sequence;
  }

  VQCC_DEVICE bool is_coded(int block) const { return block < coded_blocks; }
  /// Position of the first token of block `block`, and of that past its last.
  VQCC_DEVICE int first_token(int block) const {
    const bool in_order = Shape::kWindow == 0 || is_coded(block);
    return in_order ? block * kBlockTokens : coded + (block - coded_blocks) * kBlockTokens;
  }
  VQCC_DEVICE int end_token(int block) const {
    const bool before_window = Shape::kWindow == 0 || is_coded(block);
    return smaller(first_token(block) + kBlockTokens, before_window ? coded : length);
  }
};

/// Some rows of queries of one kv-head: kRows of the query tokens times the query heads that share it, heads first.
template <class Shape, int kRows>
struct RowSet {
  static constexpr int kGroupHeads = Shape::kQueryHeads / Shape::kHeads;

  int head;
  int first_row;

  VQCC_DEVICE static RowSet of(int set, int sets_of_head) { return {set / sets_of_head, set % sets_of_head * kRows}; }

  VQCC_DEVICE bool has(int row, int query_tokens) const { return first_row + row < query_tokens * kGroupHeads; }
  VQCC_DEVICE int token_of(int row) const { return (first_row + row) / kGroupHeads; }
  VQCC_DEVICE int query_head_of(int row) const { return head * kGroupHeads + (first_row + row) % kGroupHeads; }

  /// Whether row `row`, of a sequence of `length` tokens, sees the token at `position`.
  VQCC_DEVICE bool sees(int row, int position, int length, int query_tokens) const {
    const int own = length - query_tokens + token_of(row);
    const bool recent = Shape::kSlidingWindow == 0 || position > own - Shape::kSlidingWindow;
    return position <= own && recent;
  }
};

/// Division takes a hundred instructions where numbers need 64 bits: they seldom do.
VQCC_DEVICE int64 quotient(int64 dividend, int64 divisor) {
  if (((dividend | divisor) >> 32) != 0) return dividend / divisor;
  return static_cast<uint32>(dividend) / static_cast<uint32>(divisor);
}

/// Token blocks of all row sets and sequences in one row: set after set, of each set sequence after sequence. Blocks of the
/// grid take equal shares of it, one after another. Shares are rounded, not their sum, so that where a grid has so many
/// blocks for each sequence, and these are as long as one another, shares end where sequences do.
struct Shares {
  int64 whole;  // token blocks in all
  int blocks;   // that have a share

  /// No block without one lies between others that merge.
  VQCC_DEVICE static Shares of(int64 whole, int grid) { return {whole, whole < grid ? static_cast<int>(whole) : grid}; }

  VQCC_DEVICE int64 first_of(int block) const { return quotient(whole * block, blocks); }
  /// The block that has `unit`.
  VQCC_DEVICE int block_of(int64 unit) const { return static_cast<int>(quotient((unit + 1) * blocks - 1, whole)); }
};

/// Writes the sums of blocks_of(0) to blocks_of(s - 1) to starts[s], for s from 0 to `count`. One warp.
template <class BlocksOf>
VQCC_DEVICE void prefix_sums(int count, int* starts, const BlocksOf& blocks_of) {
  const int lane = lane_index();
  int before = 0;
  for (int first = 0; first < count; first += kWarpSize) {
    const int own = first + lane;
    const int blocks = own < count ? blocks_of(own) : 0;
    int sum = blocks;
#pragma unroll
    for (int distance = 1; distance < kWarpSize; distance *= 2) {
      const int other = static_cast<int>(shift_up(static_cast<uint32>(sum), distance));
      if (lane >= distance) sum += other;
    }
    if (own < count) starts[own] = before + sum - blocks;
    before += static_cast<int>(value_of_lane(static_cast<uint32>(sum), kWarpSize - 1));
  }
  if (lane == 0) starts[count] = before;
}

/// Where the token blocks of each of `batch` sequences begin, in a row. One warp.
template <class Shape>
VQCC_DEVICE void find_starts(const int* lengths, int batch, int query_tokens, int* starts) {
  prefix_sums(batch, starts, [=](int sequence) {
    return Sequence<Shape>::of(load<Space::kGlobal>(lengths + sequence), query_tokens).blocks;
  });
}

/// The last of `count` starts, which do not descend, that is at most `unit`.
VQCC_DEVICE int last_start(const int* starts, int count, int unit) {
  int low = 0;
  int high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (starts[middle] <= unit) low = middle;
    else high = middle;
  }
  return low;
}

/// What a block of the grid has of a row set and a sequence.
struct Segment {
  int set;
  int last_set;  // of the segment before; none: -1
  int sequence;
  int first;  // token block of the sequence, counted from the first that a query sees
  int own;    // how many from there on; none: the block has no further segment
  // Found while the block waits for queries:
  int first_block;  // of the grid that has a part of the sequence, and the last
  int last_block;
  int first_part;  // which of the first block's two parts this is: it may end with the sequence, having begun with another
};

/// A block's way through its segments. It lies in shared memory, for registers are for other things while the block works.
template <int kBatch>
struct Progress {
  Shares shares;
  int64 unit;  // of the row of all token blocks: the segment's first, and the end of this block's share
  int64 end;
  Segment segment;
  int starts[kBatch + 1];

  /// Goes to the first segment. One thread; starts of `batch` sequences are there, token blocks of each of `sets` row sets.
  VQCC_DEVICE void start(int batch, int sets) {
    const int block = static_cast<int>(blockIdx.x);
    const int units = starts[batch];
    shares = Shares::of(static_cast<int64>(units) * sets, static_cast<int>(gridDim.x));
    segment.own = 0;
    if (block >= shares.blocks) return;
    unit = shares.first_of(block);
    end = shares.first_of(block + 1);
    segment.last_set = -1;
    segment.set = static_cast<int>(quotient(unit, units));
    const int place = static_cast<int>(unit - static_cast<int64>(segment.set) * units);
    segment.sequence = last_start(starts, batch, place);
    segment.first = place - starts[segment.sequence];
    find_end();
  }

  /// Goes to the next segment: the next sequence, or the first of the next row set. One thread.
  VQCC_DEVICE void advance(int batch) {
    unit += segment.own;
    segment.own = 0;
    if (unit >= end) return;
    segment.first = 0;
    segment.last_set = segment.set;
    segment.sequence += 1;
    if (segment.sequence == batch) {
      segment.sequence = 0;
      segment.set += 1;
    }
    find_end();
  }

  /// Finds the blocks of the grid that have parts of the segment's sequence, which end_segment asks for. One thread.
  VQCC_DEVICE void find_parts() {
    const int64 begin = unit - segment.first;
    segment.first_block = segment.last_block = static_cast<int>(blockIdx.x);
    if (segment.first > 0) segment.first_block = shares.block_of(begin);
    if (sequence_end() > end) segment.last_block = shares.block_of(sequence_end() - 1);
    segment.first_part = shares.first_of(segment.first_block) < begin ? 1 : 0;
  }

 private:
  VQCC_DEVICE int64 sequence_end() const {
    return unit - segment.first + (starts[segment.sequence + 1] - starts[segment.sequence]);
  }
  VQCC_DEVICE void find_end() {
    segment.own = static_cast<int>((sequence_end() < end ? sequence_end() : end) - unit);
  }
};

}  // namespace vqcc
