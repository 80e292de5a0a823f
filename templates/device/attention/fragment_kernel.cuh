// Attention on tensor cores: entries of keys and of values go into operands as they are looked up.
#pragma once

#include "fragment_keys.cuh"
#include "fragment_softmax.cuh"

namespace vqcc {

/// o[b, t, h] = softmax over the tokens that query (b, t, h) sees of (q . k * softmax_scale), times v, for four rows of
/// queries that share a cache, and keys that are not rotated after decoding.
///
/// Work is dealt out as in ScoreAttention: a block has segments, and warps take their token blocks in turn, codes of kStages
/// of them on their way. Both products are m16n8k16 (FragmentKeys, FragmentSoftmax).
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class Tile>
class FragmentAttention {
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AttentionArguments<Element>;
  using Keys = KeyBlock<KeyAlgorithm, kHeadDim, Cache::kKeyOrder>;
  using Values = ValueBlock<ValueAlgorithm, kHeadDim>;
  using Pages = PackedCache<Keys, Values, Cache>;
  using Rows = RowSet<Shape, kRows>;
  using KeyRows = EntryRows<KeyAlgorithm, kHeadDim>;
  using ValueRows = EntryRows<ValueAlgorithm, kHeadDim>;
  using Products = FragmentKeys<KeyAlgorithm, Shape>;
  using Softmax = FragmentSoftmax<ValueAlgorithm, Shape, Tile>;
  static_assert(Cache::kKeyOrder == KeyOrder::kFragment, "lanes have operands");
  static_assert(Shape::kRope == Rope::kNone, "entries are multiplied as they are looked up");
  static_assert(kRows == Quarters::kRows, "four rows of queries");

  /// Shared memory: rows of keys and of values, codes on their way (sums of warps in their place at the end), weights of
  /// warps and zeros, queries, rows' state, starts of sequences.
  static constexpr int kStageBytes = Tile::kStages * Pages::kBytes;
  static constexpr int kStagesOffset = KeyRows::kBytes + ValueRows::kBytes;
  static constexpr int kWeightsOffset = kStagesOffset + kWarps * kStageBytes;
  static constexpr int kZerosOffset = kWeightsOffset + kWarps * Softmax::kWeightBytes;
  static constexpr int kQueriesOffset = kZerosOffset + Softmax::kZeroBytes;
  static constexpr int kStateOffset = kQueriesOffset + kRows * kHeadDim * 4;
  static constexpr int kStateFloats = 2 * kRows + 4;  // and a flag
  static constexpr int kStartsOffset = kStateOffset + (kStateFloats + Softmax::kScratchFloats) * 4;
  static_assert(kRows * kHeadDim * 4 <= kStageBytes, "a warp's sums fit where its codes were");

 public:
  /// Shared memory of a block, books included.
  static constexpr int kSharedBytes = kStartsOffset + (Tile::kBatch + 1) * 4;
  static_assert(kSharedBytes <= Tile::kOwnSharedBytes, "the plan has room");

  VQCC_DEVICE static void run(const Arguments& arguments) {
    FragmentAttention kernel(arguments, dynamic_shared());
    kernel.work();
  }

 private:
  VQCC_DEVICE FragmentAttention(const Arguments& arguments, uint8* shared)
      : arguments_(arguments),
        pages_{arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks},
        key_rows_(shared),
        value_rows_(shared + KeyRows::kBytes),
        stages_(shared + kStagesOffset),
        weights_(shared + kWeightsOffset + warp_index() * Softmax::kWeightBytes),
        zeros_(shared + kZerosOffset),
        queries_(reinterpret_cast<float*>(shared + kQueriesOffset)),
        state_(reinterpret_cast<float*>(shared + kStateOffset)),
        starts_(reinterpret_cast<int*>(shared + kStartsOffset)) {}

  VQCC_DEVICE void work() {
    allow_next_kernel();
    if (threadIdx.x < Softmax::kZeroBytes / 4) reinterpret_cast<uint32*>(zeros_)[threadIdx.x] = 0u;
    wait_for_previous_kernels();
    int resident_book = -1;
    for_each_segment<Shape, Tile, kThreads>(
        arguments_, starts_, state_, sums_of_warps(), reinterpret_cast<uint32*>(state_ + 2 * kRows),
        [&](const Rows& rows, int sequence, int first, int end) {
          const int book = Cache::kBooksByHead ? rows.head : 0;
          if (book != resident_book) start_books(book);
          resident_book = book;
          work_on(rows, sequence, first, end);
        });
  }

  VQCC_DEVICE float* sums_of_warps() const { return reinterpret_cast<float*>(stages_); }
  VQCC_DEVICE uint8* stage_of(int stage) const {
    return stages_ + warp_index() * kStageBytes + stage * Pages::kBytes;
  }

  VQCC_DEVICE void start_books(int book) {
    copy_rows<KeyRows::kBytes, kThreads>(key_rows_, arguments_.key_books + static_cast<int64>(book) * KeyRows::kBytes);
    copy_rows<ValueRows::kBytes, kThreads>(value_rows_,
                                           arguments_.value_books + static_cast<int64>(book) * ValueRows::kBytes);
  }

  /// Token blocks `first` to `end` of a sequence, counted from the first that a query sees.
  VQCC_DEVICE void work_on(const Rows& rows, int number, int first, int end) {
    const int length = load<Space::kGlobal>(arguments_.lengths + number);
    const auto sequence = Sequence<Shape>::of(length, arguments_.query_tokens);
    load_queries<Shape, Tile, kThreads>(arguments_, rows, number, 1.0f, queries_);
    wait_for_copies();
    block_barrier();  // queries and books are there
    Products products;
    products.start(queries_);
    Softmax softmax;
    softmax.start();
    const int first_block = sequence.first_block + first + warp_index();
    const int end_block = sequence.first_block + end;
#pragma unroll
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      start_codes(rows.head, number, sequence, first_block + stage * kWarps, end_block, stage);
    }
    int stage = 0;
#pragma unroll 1
    for (int block = first_block; block < end_block; block += kWarps) {
      const bool coded = sequence.is_coded(block);
      wait_for_copies_but<Tile::kStages - 1>();
      warp_barrier();
      float scores[4][2] = {};
      if (coded) {
        products.multiply(stage_of(stage), key_rows_, scores);
      } else {
        add_window(rows, number, sequence, block, scores);
      }
      mask(rows, sequence, block, scores);
      softmax.weigh(scores, weights_);
      uint32 values[Softmax::kSlots][Softmax::kCodeWords] = {};
      if (coded) take_values(stage, values);
      warp_barrier();  // weights are there, and the stage has been read
      start_codes(rows.head, number, sequence, block + Tile::kStages * kWarps, end_block, stage);
      stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
      if (coded) {
        softmax.add_codes(value_rows_, values, weights_, zeros_);
      } else {
        const float scale = 1.0f / value_unscale(rows.head);  // values of codes are scaled, so these are too
        const int token = sequence.first_token(block);
        for (int t = 0; token + t < sequence.end_token(block); ++t) {
          softmax.add_row(window_row<Shape>(arguments_.value_window, number, rows.head, token + t), scale, weights_, t);
        }
      }
      warp_barrier();  // weights have been read
    }
    wait_for_copies();
    softmax.merge(state_, sums_of_warps(), state_ + kStateFloats, value_unscale(rows.head));
  }

  /// Starts to copy a token block's codes, if it has any, and ends a group of copies.
  VQCC_DEVICE void start_codes(int head, int number, const Sequence<Shape>& sequence, int block, int end, int stage) {
    if (block < end && sequence.is_coded(block)) {
      copy_codes<Pages::kBytes>(stage_of(stage), pages_.block_of(number, head, block));
    }
    commit_copies();
  }

  VQCC_DEVICE void take_values(int stage, uint32 (&values)[Softmax::kSlots][Softmax::kCodeWords]) const {
#pragma unroll
    for (int s = 0; s < Softmax::kSlots; ++s) {
      Values::Streams::take(stage_of(stage) + Keys::kBytes, s * kWarpSize + lane_index(), values[s]);
    }
  }

  /// Products of the queries with a token block of the window, as FragmentKeys gives them.
  VQCC_DEVICE void add_window(const Rows& rows, int number, const Sequence<Shape>& sequence, int block,
                              float (&scores)[4][2]) const {
    if (!Quarters::has_token()) return;
    const Rotations<Shape> none = {};
#pragma unroll 1
    for (int octet = 0; octet < 4; ++octet) {
      const int position = sequence.first_token(block) + Quarters::token_of(octet);
      if (position >= sequence.end_token(block)) continue;
      float all[kRows] = {};
      add_window_key<Shape, Tile::kElement>(none, queries_, arguments_.key_window, number, rows.head, position, all);
#pragma unroll
      for (int o = 0; o < 4; ++o) {  // selects: registers have no run-time index
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if (o == octet) scores[o][j] = Quarters::row() == 0 ? all[2 * j] : all[2 * j + 1];
        }
      }
    }
  }

  /// Makes scores of products, in powers of two, masked where there is no token that the query sees.
  VQCC_DEVICE void mask(const Rows& rows, const Sequence<Shape>& sequence, int block, float (&scores)[4][2]) const {
    const float scale = score_scale<Shape>(arguments_);
#pragma unroll
    for (int octet = 0; octet < 4; ++octet) {
      const int position = sequence.first_token(block) + Quarters::token_of(octet);
      const bool present = Quarters::has_token() && position < sequence.end_token(block);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float score = capped_score<Shape>(arguments_, scale * scores[octet][j]);
        const bool seen =
            present && rows.sees(Quarters::row() + 2 * j, position, sequence.length, arguments_.query_tokens);
        scores[octet][j] = seen ? score : kMasked;
      }
    }
  }

  /// What values are multiplied with to undo their scale: a fact of a head's books that the packer knows.
  VQCC_DEVICE float value_unscale(int head) const {
    return load<Space::kGlobal>(arguments_.book_facts + 2 * (Cache::kBooksByHead ? head : 0) + 1);
  }

  const Arguments& arguments_;
  Pages pages_;
  uint8* key_rows_;
  uint8* value_rows_;
  uint8* stages_;
  uint8* weights_;
  uint8* zeros_;
  float* queries_;
  float* state_;  // of rows: largest, sum; a flag; then those of warps
  int* starts_;
};

}  // namespace vqcc
