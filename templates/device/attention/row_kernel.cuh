// Attention over entries by rows: a code is a byte of the address of what it stands for.
#pragma once

#include "row_shared.cuh"
#include "window.cuh"

namespace vqcc {

/// o[b, t, h] = softmax over the tokens that query (b, t, h) sees of (q . k * softmax_scale), times v.
///
/// Blocks of the grid share all token blocks equally. For a segment, what a block has of a row set and a sequence, `Products`
/// brings keys' entries, or their products with the queries, to shared memory; a warp then has the scores of a token block by
/// one look-up for each channel group, a lane for each token. Warps take token blocks in turn, codes of kStages of them on
/// their way, each with a softmax of its own, and merge at the segment's end. Values are looked up by rows (EntryRows), a lane
/// for each channel group: `Softmax` adds them up. Tokens of the window are few, and in full precision: all warps share them.
template <class Products, class Softmax, class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class Tile>
class RowAttention {
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

  static constexpr int kTeams = ValueRows::kTeams;
  static constexpr int kSlots = ValueRows::kSlots;
  /// Without stages, codes of the next iteration are on their way to the registers that those of this one had.
  static constexpr bool kDirect = Tile::kStages == 0;
  static constexpr Space kCodesSpace = kDirect ? Space::kGlobal : Space::kShared;
  /// A lane's codes of one iteration's token blocks.
  using KeyCodes = uint32[kTeams][Keys::kSets][Keys::Streams::kChunkWords];
  using ValueCodes = uint32[kSlots][Values::Streams::kChunkWords];

  using Shared = RowShared<Products, Softmax, ValueRows, kTeams * Pages::kBytes, Shape, Tile>;

 public:
  /// Shared memory of a block, books included.
  static constexpr int kSharedBytes = Shared::kBytes;
  static_assert(kSharedBytes <= Tile::kOwnSharedBytes, "the plan has room");

  VQCC_DEVICE static void run(const Arguments& arguments) {
    RowAttention kernel(arguments, dynamic_shared());
    kernel.work();
  }

 private:
  VQCC_DEVICE RowAttention(const Arguments& arguments, uint8* shared)
      : arguments_(arguments),
        pages_{arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks},
        shared_(shared) {}

  VQCC_DEVICE void work() {
    allow_next_kernel();
    shared_.start();
    Products::template make_rotations<kThreads>(shared_.rotations(), arguments_.rotations);
    wait_for_previous_kernels();
    for_each_segment<Shape, Tile, kThreads>(
        arguments_, shared_.progress(), shared_.state(), shared_.sums(), shared_.flag(),
        [&](const Rows& rows, bool same_head, int sequence, int first, int end) {
          const int book = book_of<Cache>(rows.head);
          Products products;
          products.load_entries(key_rows(book));  // on its way while queries are
          if (!same_head) copy_books(book);
          commit_copies();
          work_on(products, rows, sequence, first, end);
        });
  }

  /// Starts to copy the rows of a head's books that stay in shared memory while its segments last.
  VQCC_DEVICE void copy_books(int book) const {
    if constexpr (Products::kKeepsRows) copy_rows<KeyRows::kBytes, kThreads>(shared_.products(), key_rows(book));
    copy_rows<ValueRows::kBytes, kThreads>(shared_.values(),
                                           arguments_.value_books + static_cast<int64>(book) * ValueRows::kBytes);
  }
  /// Facts of a head's books that the packer knows: the largest sum of magnitudes of a key entry's elements, and what values
  /// are multiplied with to undo their scale, which is loaded when it is wanted.
  VQCC_DEVICE float key_bound(int head) const {
    return load<Space::kGlobal>(arguments_.book_facts + 2 * book_of<Cache>(head));
  }
  VQCC_DEVICE float value_unscale(int head) const {
    return load<Space::kGlobal>(arguments_.book_facts + 2 * computed_anew(book_of<Cache>(head)) + 1);
  }

  VQCC_DEVICE const uint8* key_rows(int book) const {
    return arguments_.key_books + static_cast<int64>(book) * KeyRows::kBytes;
  }

  /// Token blocks `first` to `end` of a sequence, counted from the first that a query sees.
  VQCC_DEVICE void work_on(Products& products, const Rows& rows, int number, int first, int end) {
    const int length = load<Space::kGlobal>(arguments_.lengths + number);
    const auto sequence = Sequence<Shape>::of(length, arguments_.query_tokens);
    const float scale = score_scale<Shape>(arguments_);
    prefetch_window(arguments_, sequence, number, rows.head, sequence.first_block + end, static_cast<int>(threadIdx.x),
                    kThreads);
    const int first_block = sequence.first_block + first + warp_index() * kTeams;
    // An empty sequence has a block, to have an output, but no codes: its pages are not looked at.
    const int end_block = smaller(sequence.first_block + end, sequence.coded_blocks);
#pragma unroll
    for (int stage = 0; stage < Tile::kStages; ++stage) {  // on their way while tables are made
      const int block = first_block + stage * kWarps * kTeams;
      start_codes<0, Keys::kBytes>(rows.head, number, block, end_block, stage);
      start_codes<Keys::kBytes, Pages::kBytes>(rows.head, number, block, end_block, stage);
    }
    KeyCodes keys;
    ValueCodes values;
    load_queries<Shape, Tile, kThreads>(arguments_, rows, number, Products::kScalesScores ? 1.0f : scale, shared_.queries());
    if constexpr (kDirect) {
      take_keys(rows.head, number, first_block, end_block, 0, keys);
      take_values(rows.head, number, first_block, end_block, 0, values);
      prefetch_codes(rows.head, number, first_block + kWarps * kTeams, end_block);
    }
    wait_for_copies_but<2 * Tile::kStages>();
    block_barrier();  // queries and books are there
    products.start(shared_.products(), shared_.queries(), key_rows(book_of<Cache>(rows.head)), key_bound(rows.head), scale);
    Softmax softmax;
    softmax.start();
    block_barrier();  // tables are there
    int stage = 0;
#pragma unroll 1
    for (int block = first_block; block < end_block; block += kWarps * kTeams) {
      const int later = block + (kDirect ? 1 : Tile::kStages) * kWarps * kTeams;
      if constexpr (!kDirect) {
        wait_for_copies_but<2 * Tile::kStages - 1>();
        warp_barrier();
        take_keys(rows.head, number, block, end_block, stage, keys);
        warp_barrier();  // they have been read
        start_codes<0, Keys::kBytes>(rows.head, number, later, end_block, stage);
      }
      float scores[kTeams][kRows];
#pragma unroll
      for (int team = 0; team < kTeams; ++team) {
        score(rows, sequence, block + team, end_block, keys[team], products, scores[team]);
      }
      if constexpr (kDirect) {
        take_keys(rows.head, number, later, end_block, 0, keys);
        prefetch_codes(rows.head, number, later + kWarps * kTeams, end_block);
      }
      softmax.weigh(scores, shared_.weights());
      if constexpr (!kDirect) wait_for_copies_but<2 * Tile::kStages - 1>();
      warp_barrier();  // weights are there
      if constexpr (!kDirect) {
        take_values(rows.head, number, block, end_block, stage, values);
        warp_barrier();
        start_codes<Keys::kBytes, Pages::kBytes>(rows.head, number, later, end_block, stage);
      }
      add_values(block, end_block, values, softmax);
      if constexpr (kDirect) {
        take_values(rows.head, number, later, end_block, 0, values);
        warp_barrier();  // weights have been read
      }
      if constexpr (Tile::kStages > 1) stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
    }
    if constexpr (Shape::kWindow > 0) add_window(rows, number, sequence, first, end, softmax);
    wait_for_copies();
    float* sums = shared_.sums();
    softmax.merge(shared_.state(), sums, shared_.warp_state(), value_unscale(rows.head),
                  [=](int i, float sum) { sums[i] = sum; });
    block_barrier();
  }

  // ---- Codes on their way ----------------------------------------------------------------------------------

  /// Starts to copy bytes kFirst to kEnd of an iteration's token blocks from `block` on to a stage, and ends a group of copies.
  template <int kFirst, int kEnd>
  VQCC_DEVICE void start_codes(int head, int number, int block, int end, int stage) {
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
      if (block + team >= end) continue;
      copy_codes<kEnd - kFirst>(shared_.stage(stage) + team * Pages::kBytes + kFirst,
                                pages_.block_of(number, head, block + team) + kFirst);
    }
    commit_copies();
  }

  /// Brings the codes of an iteration's token blocks to the second-level cache: they are wanted one iteration later.
  VQCC_DEVICE void prefetch_codes(int head, int number, int block, int end) const {
    constexpr int kLineBytes = 128;
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
      if (block + team >= end) continue;
      const uint8* codes = pages_.block_of(number, head, block + team);
#pragma unroll
      for (int line = 0; line < Pages::kBytes; line += kWarpSize * kLineBytes) {
        const int own = line + lane_index() * kLineBytes;
        if (own < Pages::kBytes) prefetch_line(codes + own);
      }
    }
  }

  /// Codes of an iteration's token blocks, from a stage or from where they are.
  VQCC_DEVICE const uint8* codes_of(int head, int number, int block, int team, int stage) const {
    if constexpr (kDirect) return pages_.block_of(number, head, block + team);
    else return shared_.stage(stage) + team * Pages::kBytes;
  }
  VQCC_DEVICE void take_keys(int head, int number, int block, int end, int stage, KeyCodes& keys) const {
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
      if (block + team >= end) continue;
      const uint8* codes = codes_of(head, number, block, team, stage);
#pragma unroll
      for (int set = 0; set < Keys::kSets; ++set) {
        Keys::Streams::template take<kCodesSpace>(codes + set * Keys::Streams::kBytes, lane_index(), keys[team][set]);
      }
    }
  }
  VQCC_DEVICE void take_values(int head, int number, int block, int end, int stage, ValueCodes& values) const {
    const int team = lane_index() / ValueRows::kTeamLanes;
    if (block + team >= end) return;
    const uint8* codes = codes_of(head, number, block, team, stage) + Keys::kBytes;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int group = s * ValueRows::kTeamLanes + lane_index() % ValueRows::kTeamLanes;
      Values::Streams::template take<kCodesSpace>(codes, group, values[s]);
    }
  }

  // ---- Scores and softmax ----------------------------------------------------------------------------------

  /// This lane's token's scores in powers of two; masked where a row does not see it.
  VQCC_DEVICE void score(const Rows& rows, const Sequence<Shape>& sequence, int block, int end,
                         const uint32 (&keys)[Keys::kSets][Keys::Streams::kChunkWords], Products& products,
                         float (&scores)[kRows]) const {
    const int position = sequence.first_token(block) + lane_index();
    const bool present = block < end && position < sequence.end_token(block);
    if (block < end) {
      products.move_to(shared_.rotations(), arguments_.rotations, sequence.first_token(block), shared_.queries(), shared_.scratch());
      products.add_up(keys, shared_.products(), shared_.scratch(), scores);
    }
    mask(rows, sequence, position, present, scores);
  }

  VQCC_DEVICE void mask(const Rows& rows, const Sequence<Shape>& sequence, int position, bool present,
                        float (&scores)[kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool seen = present && rows.sees(r, position, sequence.length, arguments_.query_tokens);
      scores[r] = seen ? capped_score<Shape>(arguments_, scores[r]) : kMasked;
    }
  }

  // ---- Values ----------------------------------------------------------------------------------------------

  /// Adds the values of this lane's team's token block times their weights.
  VQCC_DEVICE void add_values(int block, int end, const ValueCodes& values, Softmax& softmax) const {
    const int team = lane_index() / ValueRows::kTeamLanes;
    if (block + team < end) softmax.add_codes(shared_.values(), values, weights_of(team));
  }
  VQCC_DEVICE const uint8* weights_of(int team) const {
    return shared_.weights() + team * (Softmax::kWeightBytes / kTeams);
  }

  // ---- The window ------------------------------------------------------------------------------------------

  /// Adds the tokens of the window that are in token blocks `first` to `end`. A warp takes some for each team of lanes at a
  /// time, all lanes a key: one trip to memory for keys and one for values.
  VQCC_DEVICE void add_window(const Rows& rows, int number, const Sequence<Shape>& sequence, int first, int end,
                              Softmax& softmax) const {
    constexpr int kTeamTokens = ceil_divide(4, kTeams);  // tokens of a team
    if (sequence.first_block + end <= sequence.coded_blocks) return;
    const int begin_token = sequence.first_token(larger(sequence.first_block + first, sequence.coded_blocks));
    const int end_token = sequence.end_token(sequence.first_block + end - 1);
    const float scale = 1.0f / value_unscale(rows.head);  // values of codes are scaled, so these are too
#pragma unroll 1
    for (int token = begin_token + warp_index() * kTeams * kTeamTokens; token < end_token; token += kWarps * kTeams * kTeamTokens) {
      float scores[kTeams][kRows];
      score_window<kTeamTokens>(rows, number, sequence, token, end_token, scores);
      warp_barrier();  // the last weights have been read
      softmax.weigh(scores, shared_.weights());
      warp_barrier();  // weights are there
      const int team = lane_index() / ValueRows::kTeamLanes;
      const int own = token + team * kTeamTokens;
      add_window_rows<typename Softmax::Row>(
          smaller(kTeamTokens, end_token - own),
          [&](int t) { return Softmax::load_row(window_row<Shape>(arguments_.value_window, number, rows.head, own + t)); },
          [&](int t, const typename Softmax::Row& row) { softmax.add_row(row, scale, weights_of(team), t); });
    }
  }

  /// Scores of kTeamTokens tokens for each team of lanes, from `token` on, in the first lanes.
  template <int kTeamTokens>
  VQCC_DEVICE void score_window(const Rows& rows, int number, const Sequence<Shape>& sequence, int token, int end,
                                float (&scores)[kTeams][kRows]) const {
    using Key = Channels<Tile::kElement, kHeadDim / kWarpSize>;
    Key keys[kTeams][kTeamTokens];
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
#pragma unroll
      for (int t = 0; t < kTeamTokens; ++t) {
        const int position = smaller(token + team * kTeamTokens + t, end - 1);
        keys[team][t] = Key::template load_from<Space::kGlobal>(
            window_row<Shape>(arguments_.key_window, number, rows.head, position) + lane_index() * (kHeadDim / kWarpSize));
      }
    }
    const float scale = Products::kScalesScores ? score_scale<Shape>(arguments_) : 1.0f;  // else queries are scaled
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
#pragma unroll
      for (int t = 0; t < kTeamTokens; ++t) {
        float products[kRows];
        float key[kHeadDim / kWarpSize];
        keys[team][t].to_float(key);
        rotate_shared_key<Shape>(arguments_.rotations, token + team * kTeamTokens + t, key);
        multiply_shared_key<Shape>(key, shared_.queries(), products);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (t == 0 || lane_index() == t) scores[team][r] = scale * products[r];
        }
      }
      const int position = token + team * kTeamTokens + lane_index();
      mask(rows, sequence, position, lane_index() < kTeamTokens && position < end, scores[team]);
    }
  }

  const Arguments& arguments_;
  Pages pages_;
  Shared shared_;
};

}  // namespace vqcc
