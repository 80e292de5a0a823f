// Attention over codes that are decoded: the paper's levels (VQ-LLM, Algorithm 2 and Sec. VI) for one token at a time.
#pragma once

#include "../codebook_cache.cuh"
#include "merge.cuh"
#include "value_lanes.cuh"

namespace vqcc {

/// o[b, t, h] = softmax over the tokens that query (b, t, h) sees of (q . k * softmax_scale), times v.
///
/// Blocks of the grid share all token blocks equally. A segment is what a block has of a row set (some query rows of one
/// kv-head) and a sequence; it is worked off in chunks of kChunkBlocks token blocks: scores of the chunk, a lane for each
/// token; then their softmax with what was before; then weighted values, lanes for channel groups. Between these, books of
/// keys and of values may take turns in shared memory (KeyTile, ValueTile).
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class KeyTile, class ValueTile, class Tile>
class DecodeAttention {
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kChunkTokens = Tile::kChunkBlocks * kBlockTokens;
  static constexpr int kKeySize = KeyAlgorithm::kVectorSize;
  static constexpr int kValueSize = ValueAlgorithm::kVectorSize;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AttentionArguments<Element>;
  using Keys = KeyBlock<KeyAlgorithm, kHeadDim, Cache::kKeyOrder>;
  using Values = ValueBlock<ValueAlgorithm, kHeadDim>;
  using Pages = PackedCache<Keys, Values, Cache>;
  using Rows = RowSet<Shape, kRows>;
  static_assert(Cache::kKeyOrder != KeyOrder::kFragment, "lanes have tokens");
  using KeyBooks = CodebookCache<KeyAlgorithm, KeyTile, kThreads>;
  using ValueBooks = CodebookCache<ValueAlgorithm, ValueTile, kThreads>;

  /// Values: a lane has kSlots vectors of a token, or kTeams teams of lanes have a token block each.
  using Lanes = ValueLanes<ValueAlgorithm, Values::kGroups, Tile>;
  static constexpr int kTeams = Lanes::kTeams;
  static constexpr int kSlots = Lanes::kSlots;
  /// Codes that a loop takes at a time.
  static constexpr int kStep = 4;

  /// Shared memory: books, queries, scores (sums of warps in their place once they are used), rows' state, starts of
  /// sequences, rotations, scratch of exchanges. Books of values lie behind those of keys, or in their place if they take turns.
  static constexpr int kKeyBytes = KeyTile::kResidentTiles * KeyTile::kSharedBookBytes;
  static constexpr int kValueBytes = ValueTile::kResidentTiles * ValueTile::kSharedBookBytes;
  static constexpr int kBooksBytes = Tile::kBooksTakeTurns ? (kKeyBytes > kValueBytes ? kKeyBytes : kValueBytes)
                                                           : kKeyBytes + kValueBytes;
  static_assert(kBooksBytes % 16 == 0, "what lies behind books is aligned");
  static constexpr int kQueryFloats = kRows * kHeadDim;
  static constexpr int kScoreFloats = kRows * kChunkTokens;
  static constexpr int kSumFloats = kRows * kHeadDim * kWarps;
  static constexpr int kStateFloats = 3 * kRows + 1;
  static constexpr int kScratchFloats = kScoreFloats > kSumFloats ? kScoreFloats : kSumFloats;
  static constexpr int kProgress = kQueryFloats + kScratchFloats + (kStateFloats + 3) / 4 * 4;
  static constexpr int kFloats = kProgress + ceil_divide(static_cast<int>(sizeof(Progress<Tile::kBatch>)), 16) * 4;
  static constexpr int kExchangeOffset =
      kFloats * 4 + Rotations<Shape>::kStepBytes + kWarps * Rotations<Shape>::kWarpBytes;

 public:
  /// Shared memory beside the books.
  static constexpr int kSharedBytes = kExchangeOffset + kWarps * Lanes::kScratchBytes;
  static_assert(kSharedBytes <= Tile::kOwnSharedBytes, "the plan has room beside the books");

  VQCC_DEVICE static void run(const Arguments& arguments) {
    float* floats = reinterpret_cast<float*>(dynamic_shared() + kBooksBytes);
    DecodeAttention kernel(arguments, floats);
    kernel.work();
  }

 private:
  VQCC_DEVICE DecodeAttention(const Arguments& arguments, float* floats)
      : arguments_(arguments),
        pages_{arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks},
        key_books_(arguments.key_books, nullptr, dynamic_shared()),
        value_books_(arguments.value_books, nullptr, dynamic_shared() + (Tile::kBooksTakeTurns ? 0 : kKeyBytes)),
        queries_(floats),
        scores_(floats + kQueryFloats),
        state_(floats + kQueryFloats + kScratchFloats),
        progress_(*reinterpret_cast<Progress<Tile::kBatch>*>(floats + kProgress)),
        rotations_(Rotations<Shape>::at(reinterpret_cast<uint8*>(floats + kFloats))),
        exchanged_(reinterpret_cast<uint8*>(floats) + kExchangeOffset + warp_index() * Lanes::kScratchBytes) {}

  VQCC_DEVICE void work() {
    allow_next_kernel();
    rotations_.template make<kThreads>(arguments_.rotations);
    wait_for_previous_kernels();
    for_each_segment<Shape, Tile, kThreads>(
        arguments_, progress_, state_, scores_, reinterpret_cast<uint32*>(state_ + 3 * kRows),
        [&](const Rows& rows, bool /*same_head*/, int sequence, int first, int end) { work_on(rows, sequence, first, end); });
  }

  /// Token blocks `first` to `end` of a sequence, counted from the first that a query sees.
  VQCC_DEVICE void work_on(const Rows& rows, int number, int first, int end) {
    const int length = load<Space::kGlobal>(arguments_.lengths + number);
    const auto sequence = Sequence<Shape>::of(length, arguments_.query_tokens);
    prefetch_window(arguments_, sequence, number, rows.head, sequence.first_block + end, static_cast<int>(threadIdx.x),
                    kThreads);
    start_rows(rows, number);
    float sums[kRows][kSlots][kValueSize] = {};
    for (int chunk = first; chunk < end; chunk += Tile::kChunkBlocks) {
      const int blocks = smaller(Tile::kChunkBlocks, end - chunk);
      block_barrier();  // queries are there; the last chunk's weights and books of values have been read
      key_books_.switch_to(rows.head * KeyTile::kHeadBooks * KeyTile::kBooksByHead, 0, KeyTile::kHeadBooks);
      for (int i = warp_index(); i < blocks; i += kWarps) {
        score_block(rows, number, sequence, sequence.first_block + chunk + i, scores_ + i * kBlockTokens);
      }
      block_barrier();
      for (int row = warp_index(); row < kRows; row += kWarps) weigh(row, blocks * kBlockTokens);
      if constexpr (Tile::kBooksTakeTurns) key_books_.forget();
      value_books_.switch_to(rows.head * ValueTile::kHeadBooks * ValueTile::kBooksByHead, 0, ValueTile::kHeadBooks);
      block_barrier();
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float scale = state_[2 * kRows + r];
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
#pragma unroll
          for (int c = 0; c < kValueSize; ++c) sums[r][s][c] *= scale;
        }
      }
      for (int i = warp_index() * kTeams; i < blocks; i += kWarps * kTeams) {
        const int own = i + Lanes::team();
        if (own < blocks || Lanes::kTogether) {
          add_block(rows, number, sequence, sequence.first_block + chunk + own, own < blocks,
                    scores_ + own * kBlockTokens, sums);
        }
      }
      if constexpr (Tile::kBooksTakeTurns) value_books_.forget();
    }
    block_barrier();  // all weights have been read
    add_sums(sums);
    block_barrier();
  }

  /// Queries, times the softmax's scale. And no token has been seen.
  VQCC_DEVICE void start_rows(const Rows& rows, int sequence) {
    const float scale = score_scale<Shape>(arguments_);
    load_queries<Shape, Tile, kThreads>(arguments_, rows, sequence, scale, queries_);
    for (int r = static_cast<int>(threadIdx.x); r < kRows; r += kThreads) {
      state_[r] = kMasked;
      state_[kRows + r] = 0.0f;
    }
  }

  // ---- Scores ----------------------------------------------------------------------------------------------

  /// Scores of a token block, a lane for each token, to scores[r * kChunkTokens + lane].
  VQCC_DEVICE void score_block(const Rows& rows, int number, const Sequence<Shape>& sequence, int block, float* scores) {
    const int position = sequence.first_token(block) + lane_index();
    const bool present = position < sequence.end_token(block);
    rotations_.turn_to(arguments_.rotations, sequence.first_token(block));
    float own[kRows] = {};
    if (present) {
      if (sequence.is_coded(block)) {
        add_coded_keys(rows.head, number, block, own);
      } else {
        add_window_key<Shape, Tile::kElement>(rotations_, queries_, arguments_.key_window, number, rows.head, position,
                                              own);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float score = capped_score<Shape>(arguments_, own[r]);
      const bool seen = present && rows.sees(r, position, sequence.length, arguments_.query_tokens);
      scores[r * kChunkTokens + lane_index()] = seen ? score : kMasked;
    }
  }

  VQCC_DEVICE void add_coded_keys(int head, int number, int block, float (&scores)[kRows]) {
    const uint8* codes_of_block = pages_.block_of(number, head, block);
#pragma unroll 1
    for (int set = 0; set < Keys::kSets; ++set) {
      auto codes = Keys::Streams::load_from(codes_of_block + set * Keys::Streams::kBytes, lane_index());
      constexpr int kStepGroups = smaller(kStep, Keys::kSetGroups);
#pragma unroll 1
      for (int first = 0; first < Keys::kSetGroups; first += kStepGroups) {
#pragma unroll
        for (int i = 0; i < kStepGroups; ++i) {
          const int group = Keys::group_of(set, first + i, lane_index());
          uint32 code[KeyAlgorithm::kResiduals];
          codes.template codes_of<KeyAlgorithm::kResiduals>(i, code);
          float key[kKeySize];
          KeyAlgorithm::decode(key_books_, KeyTile::kHeadBooks == 1 ? 0 : group, code, key);
          add_products(rotations_, queries_, group * kKeySize, key, scores);
        }
        codes.template advance<kStepGroups>();
      }
    }
  }

  // ---- Softmax ---------------------------------------------------------------------------------------------

  /// Turns a row's scores of a chunk into weights relative to the largest score so far. One warp.
  VQCC_DEVICE void weigh(int row, int tokens) {
    float* scores = scores_ + row * kChunkTokens;
    const float before = state_[row];
    float largest = before;
    for (int i = lane_index(); i < tokens; i += kWarpSize) largest = larger(largest, scores[i]);
    largest = largest_of_warp(largest);
    float sum = 0.0f;
    for (int i = lane_index(); i < tokens; i += kWarpSize) {
      const float weight = weight_of(scores[i], largest);
      scores[i] = weight;
      sum += weight;
    }
    sum = sum_of_warp(sum);
    warp_barrier();  // all lanes have read what is there
    if (lane_index() != 0) return;
    const float scale = weight_of(before, largest);
    state_[row] = largest;
    state_[kRows + row] = fused_multiply_add(state_[kRows + row], scale, sum);
    state_[2 * kRows + row] = scale;
  }

  // ---- Values ----------------------------------------------------------------------------------------------

  /// Adds a token block's values times their weights, weights[r * kChunkTokens + token], to this lane's channels; if it is
  /// not `present` it has neither.
  VQCC_DEVICE void add_block(const Rows& rows, int number, const Sequence<Shape>& sequence, int block, bool present,
                             const float* weights, float (&sums)[kRows][kSlots][kValueSize]) {
    const int tokens = present ? sequence.end_token(block) - sequence.first_token(block) : 0;
    const bool coded = sequence.is_coded(block);
    if (coded || Lanes::kTogether) {
      const bool any = coded && present;
      const uint8* values = any ? pages_.block_of(number, rows.head, block) + Keys::kBytes : nullptr;
      add_coded_values(values, any ? tokens : 0, weights, sums);
    }
    if (coded) return;
    const int first = sequence.first_token(block);
    add_window_rows<typename Lanes::Row>(
        tokens,
        [&](int t) {
          return Lanes::template load_row<Tile::kElement>(
              window_row<Shape>(arguments_.value_window, number, rows.head, first + t));
        },
        [&](int t, const typename Lanes::Row& row) {
#pragma unroll
          for (int s = 0; s < kSlots; ++s) add_value(weights + t, row.values[s], s, sums);
        });
  }

  /// Adds `tokens` tokens that have codes. Where lanes exchange what they decode, teams with fewer decode along, code 0.
  VQCC_DEVICE void add_coded_values(const uint8* values, int tokens, const float* weights,
                                    float (&sums)[kRows][kSlots][kValueSize]) {
    using Codes = CodeChunk<ValueAlgorithm, typename Values::Streams>;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int group = Lanes::group_of(s);
      auto codes = Lanes::kTogether && tokens == 0 ? Codes{} : Values::Streams::load_from(values, group);
#pragma unroll 1
      for (int first = 0; Lanes::kTogether ? any_lane(first < tokens) : first < tokens; first += kStep) {
#pragma unroll
        for (int i = 0; i < kStep; ++i) {
          const bool has = first + i < tokens;
          if (!Lanes::kTogether && !has) break;
          uint32 code[ValueAlgorithm::kResiduals];
          codes.template codes_of<ValueAlgorithm::kResiduals>(i, code);
          float value[kValueSize];
          ValueAlgorithm::decode(value_books_, ValueTile::kHeadBooks == 1 ? 0 : group, code, value);
          Lanes::exchange(value, exchanged_);
          if (has) add_value(weights + first + i, value, s, sums);
        }
        codes.template advance<kStep>();
      }
    }
  }

  VQCC_DEVICE static void add_value(const float* weight, const float (&value)[kValueSize], int slot,
                                    float (&sums)[kRows][kSlots][kValueSize]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kValueSize; ++c) {
        sums[r][slot][c] = fused_multiply_add(weight[r * kChunkTokens], value[c], sums[r][slot][c]);
      }
    }
  }

  /// Adds the sums of the block's warps, in their order, to scores_[r * kHeadDim + channel].
  VQCC_DEVICE void add_sums(float (&sums)[kRows][kSlots][kValueSize]) {
    float* own = scores_ + warp_index() * kRows * kHeadDim;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int c = 0; c < kValueSize; ++c) {
#pragma unroll
          for (int distance = Lanes::kTeamLanes; distance < kWarpSize; distance *= 2) {
            sums[r][s][c] += exchange_xor(sums[r][s][c], distance);
          }
          if (Lanes::team() == 0) own[r * kHeadDim + Lanes::channel_of(s, c)] = sums[r][s][c];
        }
      }
    }
    block_barrier();
    add_warps<kRows * kHeadDim, kWarps>(scores_, [&](int i, float sum) { scores_[i] = sum; });
  }

  const Arguments& arguments_;
  Pages pages_;
  KeyBooks key_books_;
  ValueBooks value_books_;
  float* queries_;
  float* scores_;
  float* state_;  // of rows: largest, sum, what the last chunk scales earlier ones by; and a flag
  Progress<Tile::kBatch>& progress_;
  Rotations<Shape> rotations_;
  uint8* exchanged_;  // scratch of this warp
};

}  // namespace vqcc
