// Attention over score tables: keys are never decoded, values are looked up without bank conflicts.
#pragma once

#include "head_scores.cuh"
#include "warp_softmax.cuh"

namespace vqcc {

/// o[b, t, h] = softmax over the tokens that query (b, t, h) sees of (q . k * softmax_scale), times v, for keys that are
/// not rotated after decoding.
///
/// Blocks of the grid share all token blocks equally. For a segment, what a block has of a row set and a sequence, it
/// tabulates the products of every key entry with its channel group of the queries: a token's score is then the sum of one
/// look-up for each group, a lane for each token. Warps take token blocks in turn, each with a softmax of its own, and
/// merge at the segment's end. Values are looked up by rows (EntryRows), a lane for each channel group.
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class Tile>
class ScoreAttention {
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
  static_assert(Cache::kKeyOrder == KeyOrder::kRotated, "lanes look different tables up");
  static_assert(Shape::kRope == Rope::kNone, "scores of a table are of all positions");

  using Scores = HeadScores<KeyAlgorithm, Shape, Cache, Tile>;
  using Softmax = WarpSoftmax<ValueAlgorithm, Shape, Tile>;

  static constexpr int kTeams = ValueRows::kTeams;
  static constexpr int kSlots = ValueRows::kSlots;

  /// A warp's codes on their way: of one iteration's token blocks, 16 bytes of a lane at a time.
  static constexpr int kBlockBytes = Pages::kBytes;
  static constexpr int kStageBytes = kTeams * kBlockBytes;

  /// Shared memory: score tables (sums of warps in their place at the end), rows of keys and of values, codes on their way,
  /// weights, queries, rows' state, starts of sequences.
  static constexpr int kKeyBytes = Tile::kKeysResident ? KeyRows::kBytes : 0;
  static constexpr int kStagesOffset = Scores::kBytes + kKeyBytes + ValueRows::kBytes;
  static constexpr int kWeightsOffset = kStagesOffset + kWarps * kStageBytes;
  static constexpr int kQueriesOffset = kWeightsOffset + kWarps * Softmax::kWeightBytes;
  static constexpr int kStateOffset = kQueriesOffset + kRows * kHeadDim * 4;
  static constexpr int kStateFloats = 2 * kRows + 1;
  static constexpr int kStartsOffset = kStateOffset + (kStateFloats + 3) / 4 * 16 + Softmax::kScratchFloats * 4;
  static_assert(kWarps * kRows * kHeadDim * 4 <= Scores::kBytes, "sums fit where score tables were");

 public:
  /// Shared memory of a block, books included.
  static constexpr int kSharedBytes = kStartsOffset + (Tile::kBatch + 1) * 4;
  static_assert(kSharedBytes <= Tile::kOwnSharedBytes, "the plan has room");

  VQCC_DEVICE static void run(const Arguments& arguments) {
    ScoreAttention kernel(arguments, dynamic_shared());
    kernel.work();
  }

 private:
  VQCC_DEVICE ScoreAttention(const Arguments& arguments, uint8* shared)
      : arguments_(arguments),
        pages_{arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks},
        scores_(shared),
        key_rows_(shared + Scores::kBytes),
        value_rows_(key_rows_ + kKeyBytes),
        stage_(shared + kStagesOffset + warp_index() * kStageBytes),
        weights_(shared + kWeightsOffset + warp_index() * Softmax::kWeightBytes),
        queries_(reinterpret_cast<float*>(shared + kQueriesOffset)),
        state_(reinterpret_cast<float*>(shared + kStateOffset)),
        starts_(reinterpret_cast<int*>(shared + kStartsOffset)) {}

  VQCC_DEVICE void work() {
    allow_next_kernel();
    wait_for_previous_kernels();
    int resident_head = -1;
    for_each_segment<Shape, Tile, kThreads>(
        arguments_, starts_, state_, sums_of_warps(), reinterpret_cast<uint32*>(state_ + 2 * kRows),
        [&](const Rows& rows, int sequence, int first, int end) {
          start_rows(rows.head, resident_head);
          resident_head = rows.head;
          work_on(rows, sequence, first, end);
        });
  }

  /// Sums of warps lie where score tables were, one warp's after another's.
  VQCC_DEVICE float* sums_of_warps() const { return reinterpret_cast<float*>(scores_); }
  VQCC_DEVICE float* warp_state() const { return state_ + (kStateFloats + 3) / 4 * 4; }

  /// Starts to copy the rows of `head`'s books, if those of another head are there, and ends a group of copies.
  VQCC_DEVICE void start_rows(int head, int resident) {
    if (head != resident && (resident < 0 || Cache::kBooksByHead)) copy_books(head);
    commit_copies();
  }

  VQCC_DEVICE void copy_books(int head) const {
    const int book = Cache::kBooksByHead ? head : 0;
    if constexpr (Tile::kKeysResident) {
      copy_rows<KeyRows::kBytes, kThreads>(key_rows_, arguments_.key_books + static_cast<int64>(book) * KeyRows::kBytes);
    }
    copy_rows<ValueRows::kBytes, kThreads>(value_rows_,
                                           arguments_.value_books + static_cast<int64>(book) * ValueRows::kBytes);
  }

  /// Token blocks `first` to `end` of a sequence, counted from the first that a query sees.
  VQCC_DEVICE void work_on(const Rows& rows, int number, int first, int end) {
    const int length = load<Space::kGlobal>(arguments_.lengths + number);
    const auto sequence = Sequence<Shape>::of(length, arguments_.query_tokens);
    const float scale = score_scale<Shape>(arguments_);
    const float2 facts = facts_of(rows.head);
    int block = first + warp_index() * kTeams;
    start_codes(rows.head, number, sequence, block, end);  // on their way while tables are made
    commit_copies();
    load_queries<Shape, Tile, kThreads>(arguments_, rows, number, scale, queries_);
    wait_for_copies_but<1>();
    block_barrier();  // queries and books are there
    Scores tables;
    tables.make(scores_, queries_, Tile::kKeysResident ? key_rows_ : global_key_rows(rows.head), facts.x);
    Softmax softmax;
    softmax.start();
    block_barrier();  // tables are there
#pragma unroll 1
    for (; block < end; block += kWarps * kTeams) {
      wait_for_copies();
      warp_barrier();
      uint32 keys[kTeams][Scores::kSets][Scores::kSetWords] = {};
      uint32 values[kSlots][Softmax::kCodeWords] = {};
#pragma unroll
      for (int team = 0; team < kTeams; ++team) {
        if (!has_codes(sequence, block + team, end)) continue;
        take_keys(team, keys[team]);
        if (lane_index() / ValueRows::kTeamLanes == team) take_values(team, values);
      }
      warp_barrier();  // the stage has been read
      start_codes(rows.head, number, sequence, block + kWarps * kTeams, end);
      float scores[kTeams][kRows];
#pragma unroll
      for (int team = 0; team < kTeams; ++team) {
        score(rows, number, sequence, block + team, end, keys[team], tables, scores[team]);
      }
      softmax.weigh(scores, weights_);
      warp_barrier();
      add_values(rows, number, sequence, block, end, values, facts.y, softmax);
    }
    float* sums = sums_of_warps();
    softmax.merge(state_, sums, warp_state(), facts.y, [=](int i, float sum) { sums[i] = sum; });
    block_barrier();
  }

  VQCC_DEVICE const uint8* global_key_rows(int head) const {
    return arguments_.key_books + static_cast<int64>(Cache::kBooksByHead ? head : 0) * KeyRows::kBytes;
  }
  /// Facts of a head's books that the packer knows: the largest sum of magnitudes of a key entry's elements, and what values
  /// are multiplied with to undo their scale.
  VQCC_DEVICE float2 facts_of(int head) const {
    return load<Space::kGlobal>(reinterpret_cast<const float2*>(arguments_.book_facts) + (Cache::kBooksByHead ? head : 0));
  }

  // ---- Codes on their way ----------------------------------------------------------------------------------

  /// Starts to copy the codes of an iteration's token blocks from `block` on to this warp's stage.
  VQCC_DEVICE void start_codes(int head, int number, const Sequence<Shape>& sequence, int block, int end) {
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
      const int own = sequence.first_block + block + team;
      if (!has_codes(sequence, block + team, end)) continue;
      const uint8* source = pages_.block_of(number, head, own);
      copy_codes<kBlockBytes>(stage_ + team * kBlockBytes, source);
    }
  }

  /// Whether a token block, counted from the first that a query sees, is this segment's and in codes.
  VQCC_DEVICE static bool has_codes(const Sequence<Shape>& sequence, int block, int end) {
    return block < end && sequence.is_coded(sequence.first_block + block);
  }

  VQCC_DEVICE void take_keys(int team, uint32 (&keys)[Scores::kSets][Scores::kSetWords]) const {
#pragma unroll
    for (int set = 0; set < Scores::kSets; ++set) {
      const uint8* streams = stage_ + team * kBlockBytes + set * Keys::Streams::kBytes;
      Keys::Streams::take(streams, lane_index(), keys[set]);
    }
  }
  VQCC_DEVICE void take_values(int team, uint32 (&values)[kSlots][Softmax::kCodeWords]) const {
    const uint8* streams = stage_ + team * kBlockBytes + Keys::kBytes;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      Values::Streams::take(streams, s * ValueRows::kTeamLanes + lane_index() % ValueRows::kTeamLanes,
                                            values[s]);
    }
  }

  // ---- Scores and softmax ----------------------------------------------------------------------------------

  /// This lane's token's scores in powers of two; masked where a row does not see it.
  VQCC_DEVICE void score(const Rows& rows, int number, const Sequence<Shape>& sequence, int block, int end,
                         const uint32 (&keys)[Scores::kSets][Scores::kSetWords], const Scores& tables,
                         float (&scores)[kRows]) const {
    const int own_block = sequence.first_block + block;
    const int position = sequence.first_token(own_block) + lane_index();
    if (has_codes(sequence, block, end)) {
      tables.add_up(scores_, keys, scores);
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) scores[r] = 0.0f;
      if (block < end && position < sequence.end_token(own_block)) {
        const Rotations<Shape> none = {};
        add_window_key<Shape, Tile::kElement>(none, queries_, arguments_.key_window, number, rows.head, position,
                                              scores);
      }
    }
    const bool present = block < end && position < sequence.end_token(own_block);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool seen = present && rows.sees(r, position, sequence.length, arguments_.query_tokens);
      scores[r] = seen ? capped_score<Shape>(arguments_, scores[r]) : kMasked;
    }
  }

  // ---- Values ----------------------------------------------------------------------------------------------

  /// Adds the values of this lane's team's token block times their weights.
  VQCC_DEVICE void add_values(const Rows& rows, int number, const Sequence<Shape>& sequence, int block, int end,
                              const uint32 (&values)[kSlots][Softmax::kCodeWords], float unscale, Softmax& softmax) const {
    const int team = lane_index() / ValueRows::kTeamLanes;
    const int own_block = sequence.first_block + block + team;
    if (block + team >= end) return;
    const uint8* weights = weights_ + team * (Softmax::kWeightBytes / kTeams);
    if (sequence.is_coded(own_block)) {
      softmax.add_codes(value_rows_, values, weights);
      return;
    }
    const float scale = 1.0f / unscale;  // values of codes are scaled, so these are too
    const int first = sequence.first_token(own_block);
    for (int t = 0; first + t < sequence.end_token(own_block); ++t) {
      softmax.add_row(window_row<Shape>(arguments_.value_window, number, rows.head, first + t), scale, weights, t);
    }
  }

  const Arguments& arguments_;
  Pages pages_;
  uint8* scores_;
  uint8* key_rows_;
  uint8* value_rows_;
  uint8* stage_;
  uint8* weights_;
  float* queries_;
  float* state_;  // of rows: largest, sum; a flag; then those of warps
  int* starts_;
};

}  // namespace vqcc
