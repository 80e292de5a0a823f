// Attention by clusters of blocks that share out a head's channels: each loads the codebooks of its own channel groups alone
// (VQ-LLM, Sec. VI-A), and tokens' scores are added up through the cluster's shared memory.
#pragma once

#include "cluster_share.cuh"
#include "warp_sums.cuh"
#include "window.cuh"

namespace vqcc {

/// o[b, t, h] = softmax over the tokens that query (b, t, h) sees of (q . k * softmax_scale), times v.
///
/// A cluster works on a row set (some query rows of one kv-head) and a sequence at a time, in chunks of kChunkBlocks token
/// blocks: each block makes scores of the chunk's tokens over its own channels, a lane for each token, and writes them to all
/// blocks; past a barrier of the cluster each has the whole scores, weighs them, and adds its own channels' values up, lanes for
/// channel groups. Warps take token blocks in turn, each with a softmax of its own, and merge at the end. A block stores the
/// outputs of its own channels: blocks meet in no other memory.
///
/// `Products` (ScoredProducts, DecodedProducts) is how scores and values come of codes. `Tile` names kClusterBlocks, kWarps,
/// kRows, kRowSets, kChunkBlocks, kKeyDepth, kValueDepth, kElement, kOwnSharedBytes.
template <class Products, class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class Tile>
class ClusterAttention {
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kBlocks = Tile::kClusterBlocks;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kChannels = kHeadDim / kBlocks;
  static constexpr int kChunkBlocks = Tile::kChunkBlocks;
  /// For what is on its way from a window. Codes have the others: with more, an SM has one block instead of two.
  static constexpr int kWindowKeyRegisters = 4;
  static constexpr int kWindowValueRegisters = 8;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AttentionArguments<Element>;
  using Keys = KeyBlock<KeyAlgorithm, kHeadDim, Cache::kKeyOrder>;
  using Values = ValueBlock<ValueAlgorithm, kHeadDim>;
  using Pages = PackedCache<Keys, Values, Cache>;
  using Rows = RowSet<Shape, kRows>;
  using Softmax = typename Products::Softmax;
  using KeyCodes = typename Products::KeyCodes;
  using ValueCodes = typename Products::ValueCodes;
  using Partials = PartialScores<kBlocks, kChunkBlocks * kBlockTokens, kRows>;
  static constexpr int kTeams = Products::Lanes::kTeams;
  static_assert(kChunkBlocks % (kWarps * Tile::kKeyDepth) == 0 && kChunkBlocks % (kWarps * kTeams * Tile::kValueDepth) == 0,
                "codes on their way go on from chunk to chunk");

  /// Shared memory: what products need, partial scores, weights (sums of warps in their place at the end), rows' state, queries.
  static constexpr int kWarpBytes = kWarps * Softmax::kWeightBytes;
  static constexpr int kSumBytes = kWarps * Softmax::kWarpFloats * 4;
  static constexpr int kPartialsOffset = Products::kBytes;
  static constexpr int kWeightsOffset = kPartialsOffset + Partials::kBytes;
  static constexpr int kStateOffset = kWeightsOffset + (kWarpBytes > kSumBytes ? kWarpBytes : kSumBytes);
  static constexpr int kStateFloats = 2 * kRows + Softmax::kScratchFloats;
  static constexpr bool kHasQueries = Products::kReadsQueries || Shape::kWindow > 0;
  static constexpr int kQueriesOffset = kStateOffset + kStateFloats * 4;

 public:
  /// Shared memory of a block beside the books of a codebook cache.
  static constexpr int kSharedBytes =
      kQueriesOffset + (kHasQueries ? kRows * kHeadDim * 4 : 0) - Products::kBookBytes;
  static_assert(kSharedBytes <= Tile::kOwnSharedBytes, "the plan has room");

  VQCC_DEVICE static void run(const Arguments& arguments) {
    ClusterAttention kernel(arguments, dynamic_shared());
    kernel.work();
  }

 private:
  VQCC_DEVICE ClusterAttention(const Arguments& arguments, uint8* shared)
      : arguments_(arguments),
        pages_{arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks},
        rank_(cluster_rank()),
        warp_(uniform_warp_index()),
        partials_{reinterpret_cast<float*>(shared + kPartialsOffset)},
        weights_(shared + kWeightsOffset),
        state_(reinterpret_cast<float*>(shared + kStateOffset)),
        queries_(reinterpret_cast<float*>(shared + kQueriesOffset)),
        products_(arguments, rank_, shared, queries_) {}

  /// A row set and a sequence.
  struct Unit {
    Rows rows;
    int number;
    Sequence<Shape> sequence;
  };

  /// Goes through this cluster's units. The next one's length is there when it is wanted, its first entries on their way.
  VQCC_DEVICE void work() {
    allow_next_kernel();
    const auto own = UnitRange::of(Shape::kHeads * Tile::kRowSets * arguments_.batch,
                                   static_cast<int>(blockIdx.x) / kBlocks, static_cast<int>(gridDim.x) / kBlocks);
    if (own.first == own.end) return;  // and so do all blocks of the cluster
    cluster_arrive();                  // this block has begun, and its rooms are free
    int set = own.first / arguments_.batch;
    Unit unit = {Rows::of(set, Tile::kRowSets), own.first % arguments_.batch, {}};
    int length = 0;
    Unit last = unit;
    Softmax softmax;
#pragma unroll 1
    for (int i = own.first;; ++i) {
      if (i < own.end) products_.start_keys(unit.rows.head);
      if (i > own.first) finish(last, softmax);
      if (i == own.end) return;
      products_.start_books(unit.rows.head);
      wait_for_previous_kernels();
      if (i == own.first) length = length_of(unit.number);
      unit.sequence = Sequence<Shape>::of(length, arguments_.query_tokens);
      KeyCodes keys[Tile::kKeyDepth];
      ValueCodes values[Tile::kValueDepth];
      start_codes(unit, keys, values);
      prepare(unit);
      softmax.start();
      last = unit;
      if (++unit.number == arguments_.batch) {
        unit.number = 0;
        unit.rows = Rows::of(++set, Tile::kRowSets);
      }
      if (i + 1 < own.end) length = length_of(unit.number);
      attend(last, i + 1 == own.end, keys, values, softmax);
    }
  }

  VQCC_DEVICE int length_of(int number) const { return load<Space::kGlobal>(arguments_.lengths + number); }

  VQCC_DEVICE void prepare(const Unit& unit) {
    const float scale = score_scale<Shape>(arguments_);
    if constexpr (kHasQueries) {
      load_queries<Shape, Tile, kThreads>(arguments_, unit.rows, unit.number, scale, queries_);
    }
    products_.prepare(unit.rows, unit.number, scale);
    block_barrier();  // tables, books and queries are there
  }

  /// Goes through a unit's chunks; `keys` and `values` have its first codes.
  VQCC_DEVICE void attend(const Unit& unit, bool is_last, KeyCodes (&keys)[Tile::kKeyDepth],
                          ValueCodes (&values)[Tile::kValueDepth], Softmax& softmax) {
    const int blocks = unit.sequence.blocks;
#pragma unroll 1
    for (int chunk = 0; chunk < blocks; chunk += kChunkBlocks) {
      const int end = smaller(chunk + kChunkBlocks, blocks);
      cluster_wait();  // all blocks have begun, and have read the last chunk's scores
      score_chunk(unit, chunk, end, keys);
      wait_for_copies();
      cluster_barrier();  // all blocks' partial scores are there, and this one's entries of values
      weigh_chunk(unit, chunk, end, values, softmax);
      if (!is_last || end < blocks) cluster_arrive();  // they have been read
    }
  }

  /// Stores a unit's outputs, of this block's channels. All warps have read what they need of it at its end.
  VQCC_DEVICE void finish(const Unit& unit, const Softmax& softmax) {
    softmax.merge(state_, reinterpret_cast<float*>(weights_), state_ + 2 * kRows, products_.unscale(),
                  [&](int i, float sum) {
                    const int row = i / kChannels;
                    store_output<Shape>(arguments_, unit.rows, row, unit.number, rank_ * kChannels + i % kChannels, sum,
                                        state_[kRows + row]);
                    if (rank_ == 0 && i % kChannels == 0) {
                      store_log_sum<Shape>(arguments_, unit.rows, row, unit.number, state_[row], state_[kRows + row]);
                    }
                  });
  }

  // ---- Codes on their way ----------------------------------------------------------------------------------

  /// Starts to load the codes of this warp's first token blocks: keys of one at a time, values of one for each team of lanes.
  VQCC_DEVICE void start_codes(const Unit& unit, KeyCodes (&keys)[Tile::kKeyDepth],
                               ValueCodes (&values)[Tile::kValueDepth]) const {
    prefetch_window(arguments_, unit.sequence, unit.number, unit.rows.head, unit.sequence.first_block + unit.sequence.blocks,
                    rank_ * kThreads + static_cast<int>(threadIdx.x), Tile::kClusterBlocks * kThreads);
#pragma unroll
    for (int d = 0; d < Tile::kKeyDepth; ++d) {
      load_keys(unit, d * kWarps + warp_, keys[d]);
    }
#pragma unroll
    for (int d = 0; d < Tile::kValueDepth; ++d) {
      load_values(unit, (d * kWarps + warp_) * kTeams, values[d]);
    }
  }

  /// Token blocks are counted from the first that a query sees; those that are not in codes have none.
  VQCC_DEVICE void load_keys(const Unit& unit, int block, KeyCodes& keys) const {
    const int own = unit.sequence.first_block + block;
    if (unit.sequence.is_coded(own)) products_.load_keys(pages_.block_of(unit.number, unit.rows.head, own), keys);
  }
  VQCC_DEVICE void load_values(const Unit& unit, int block, ValueCodes& values) const {
    const int own = unit.sequence.first_block + block + own_team();
    if (!unit.sequence.is_coded(own)) return;
    products_.load_values(pages_.block_of(unit.number, unit.rows.head, own) + Keys::kBytes, values);
  }
  VQCC_DEVICE static int own_team() { return lane_index() / Products::Lanes::kTeamLanes; }

  // ---- Scores ----------------------------------------------------------------------------------------------

  /// Writes this block's share of the scores of token blocks `chunk` to `end` to all blocks. `keys` has the first codes.
  VQCC_DEVICE void score_chunk(const Unit& unit, int chunk, int end, KeyCodes (&keys)[Tile::kKeyDepth]) {
#pragma unroll 1
    for (int first = chunk + warp_; first < end; first += Tile::kKeyDepth * kWarps) {
#pragma unroll
      for (int d = 0; d < Tile::kKeyDepth; ++d) {
        const int block = first + d * kWarps;
        if (block >= end) break;
        float scores[kRows];
        score_block(unit, unit.sequence.first_block + block, keys[d], scores);
        load_keys(unit, block + Tile::kKeyDepth * kWarps, keys[d]);
        partials_.push(rank_, (block - chunk) * kBlockTokens + lane_index(), scores);
      }
    }
  }

  VQCC_DEVICE void score_block(const Unit& unit, int block, const KeyCodes& keys, float (&scores)[kRows]) {
    const int first = unit.sequence.first_token(block);
    if (unit.sequence.is_coded(block)) {
      products_.score(keys, first, scores);
      return;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) scores[r] = 0.0f;
    const auto& rotations = products_.rotations(first);
    if (first + lane_index() < unit.sequence.end_token(block)) {
      add_window_key<Shape, Tile::kElement, kChannels, kWindowKeyRegisters>(
          rotations, queries_, arguments_.key_window, unit.number, unit.rows.head, first + lane_index(), scores,
          rank_ * kChannels);
    }
  }

  // ---- Softmax and values ----------------------------------------------------------------------------------

  /// Weighs the tokens of token blocks `chunk` to `end`, and adds their values. `values` has the first codes.
  VQCC_DEVICE void weigh_chunk(const Unit& unit, int chunk, int end, ValueCodes (&values)[Tile::kValueDepth],
                               Softmax& softmax) {
    uint8* weights = weights_ + warp_ * Softmax::kWeightBytes;
#pragma unroll 1
    for (int first = chunk + warp_ * kTeams; first < end; first += Tile::kValueDepth * kWarps * kTeams) {
#pragma unroll
      for (int d = 0; d < Tile::kValueDepth; ++d) {
        const int block = first + d * kWarps * kTeams;
        if (block >= end) break;
        float scores[kTeams][kRows];
#pragma unroll
        for (int team = 0; team < kTeams; ++team) {
          whole_scores(unit, chunk, block + team, end, scores[team]);
        }
        warp_barrier();  // the last weights have been read
        softmax.weigh(scores, weights);
        warp_barrier();
        add_values(unit, block, end, values[d], weights, softmax);
        load_values(unit, block + Tile::kValueDepth * kWarps * kTeams, values[d]);
      }
    }
  }

  /// This lane's token's scores in powers of two; masked where a row does not see it.
  VQCC_DEVICE void whole_scores(const Unit& unit, int chunk, int block, int end, float (&scores)[kRows]) const {
    const auto& sequence = unit.sequence;
    const int own = sequence.first_block + block;
    const int position = sequence.first_token(own) + lane_index();
    const bool present = block < end && position < sequence.end_token(own);
    if (block < end) partials_.add_up((block - chunk) * kBlockTokens + lane_index(), scores);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool seen = present && unit.rows.sees(r, position, sequence.length, arguments_.query_tokens);
      scores[r] = seen ? capped_score<Shape>(arguments_, scores[r]) : kMasked;
    }
  }

  /// Adds the values of this lane's team's token block times their weights.
  VQCC_DEVICE void add_values(const Unit& unit, int block, int end, const ValueCodes& values, const uint8* weights,
                              Softmax& softmax) const {
    const auto& sequence = unit.sequence;
    const int own = sequence.first_block + block + own_team();
    const bool present = block + own_team() < end;
    const bool coded = present && sequence.is_coded(own);
    const uint8* own_weights = weights + own_team() * (Softmax::kWeightBytes / kTeams);
    if (coded || Products::kTogether) products_.add_values(values, coded, own_weights, softmax);
    if (coded || !present) return;
    const float scale = products_.scale();
    const int first = sequence.first_token(own);
    add_window_rows<typename Softmax::Row, kWindowValueRegisters>(
        sequence.end_token(own) - first,
        [&](int t) {
          const Element* row = window_row<Shape>(arguments_.value_window, unit.number, unit.rows.head, first + t);
          return Softmax::load_row(row + rank_ * kChannels);
        },
        [&](int t, const typename Softmax::Row& row) { softmax.add_row(row, scale, own_weights, t); });
  }

  const Arguments& arguments_;
  Pages pages_;
  int rank_;
  int warp_;
  Partials partials_;
  uint8* weights_;
  float* state_;  // of rows: largest, sum; then those of warps
  float* queries_;
  Products products_;
};

}  // namespace vqcc
