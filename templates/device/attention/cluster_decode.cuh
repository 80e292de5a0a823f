// What a block of a cluster does by decoding: the paper's codebook-centric dataflow (VQ-LLM, Sec. VI-A), books of its own
// channel groups alone in the codebook cache.
#pragma once

#include "../codebook_cache.cuh"
#include "cluster_share.cuh"
#include "value_lanes.cuh"
#include "warp_sums.cuh"

namespace vqcc {

/// A warp's softmax, in fp32 throughout. Weights pass through shared memory, of each token its rows together.
template <class Lanes, class Tile>
class DecodedSoftmax : public WarpSums<Lanes, Tile::kRows, Tile::kWarps, Lanes> {
  static constexpr int kRows = Tile::kRows;
  static constexpr int kTeams = Lanes::kTeams;

 public:
  static constexpr int kWeightBytes = kTeams * kBlockTokens * kRows * 4;

  VQCC_DEVICE void weigh(const float (&scores)[kTeams][kRows], uint8* weights) {
    this->raise(scores);
    float* own = reinterpret_cast<float*>(weights) + lane_index() * kRows;
#pragma unroll
    for (int team = 0; team < kTeams; ++team) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) own[team * kBlockTokens * kRows + r] = this->weigh_one(r, scores[team][r]);
    }
  }

  /// Adds this lane's elements of a token in slot `slot`, times its weight, number `token` of `weights`.
  VQCC_DEVICE void add_value(int slot, const float (&value)[Lanes::kVectorSize], const uint8* weights, int token) {
    const float* own = reinterpret_cast<const float*>(weights) + token * kRows;
#pragma unroll
    for (int r = 0; r < kRows; ++r) this->add_vector(r, slot, own[r], value);
  }

  /// A token's value in full precision.
  using Row = typename Lanes::Row;
  template <class Element>
  VQCC_DEVICE static Row load_row(const Element* values) {
    return Lanes::template load_row<Tile::kElement>(values);
  }
  VQCC_DEVICE void add_row(const Row& row, float /*scale*/, const uint8* weights, int token) {
#pragma unroll
    for (int s = 0; s < Lanes::kSlots; ++s) add_value(s, row.values[s], weights, token);
  }
};

/// The parts of ClusterAttention that know how products come about: entries are decoded and multiplied.
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class KeyTile, class ValueTile, class Tile>
class DecodedProducts {
  static constexpr int kThreads = Tile::kWarps * kWarpSize;
  static constexpr int kRows = Tile::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kBlocks = Tile::kClusterBlocks;
  static constexpr int kKeySize = KeyAlgorithm::kVectorSize;
  using Share = KeyShare<KeyAlgorithm, kHeadDim, Cache::kKeyOrder, kBlocks>;
  using Values = ValueBlock<ValueAlgorithm, kHeadDim>;
  static constexpr int kValueGroups = Values::kGroups / kBlocks;
  static_assert(Values::kGroups % kBlocks == 0, "each block has channel groups");
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AttentionArguments<Element>;
  using RowSets = RowSet<Shape, kRows>;

  /// Books of the block's own groups, or the one that all groups share.
  template <class Scope>
  static constexpr int kOwnBooks = Scope::kHeadBooks == 1 ? 1 : Scope::kHeadBooks / kBlocks;
  static_assert(KeyTile::kResidentTiles == kOwnBooks<KeyTile> && ValueTile::kResidentTiles == kOwnBooks<ValueTile>,
                "a block holds the books of its own channel groups");
  using KeyBooks = CodebookCache<KeyAlgorithm, KeyTile, kThreads>;
  using ValueBooks = CodebookCache<ValueAlgorithm, ValueTile, kThreads>;
  static constexpr int kKeyBytes = KeyTile::kResidentTiles * KeyTile::kSharedBookBytes;
  static constexpr int kValueBytes = ValueTile::kResidentTiles * ValueTile::kSharedBookBytes;
  /// Codes that a loop takes at a time.
  static constexpr int kStep = 4;
  using Chunk = CodeChunk<ValueAlgorithm, typename Values::Streams>;

 public:
  using Lanes = ValueLanes<ValueAlgorithm, kValueGroups, Tile>;
  using Softmax = DecodedSoftmax<Lanes, Tile>;
  /// Shared memory for books, rotations and scratch of exchanges; whether queries must be there too; and whether a team of
  /// lanes must decode along with others where it has no codes.
  static constexpr bool kReadsQueries = true;
  static constexpr bool kTogether = Lanes::kTogether;
  static constexpr int kBookBytes = kKeyBytes + kValueBytes;
  static_assert(kBookBytes % 16 == 0, "what follows is aligned");
  static constexpr int kExchangeOffset =
      kBookBytes + Rotations<Shape>::kStepBytes + Tile::kWarps * Rotations<Shape>::kWarpBytes;
  static constexpr int kBytes = kExchangeOffset + Tile::kWarps * Lanes::kScratchBytes;

  struct KeyCodes {
    typename Share::Chunk sets[Share::kSets];
  };
  struct ValueCodes {
    Chunk slots[Lanes::kSlots];
  };

  VQCC_DEVICE DecodedProducts(const Arguments& arguments, int rank, uint8* shared, const float* queries)
      : arguments_(arguments),
        rank_(rank),
        queries_(queries),
        key_books_(arguments.key_books, nullptr, shared),
        value_books_(arguments.value_books, nullptr, shared + kKeyBytes),
        rotations_(Rotations<Shape>::at(shared + kBookBytes)),
        exchanged_(shared + kExchangeOffset + warp_index() * Lanes::kScratchBytes) {
    rotations_.template make<kThreads>(arguments.rotations);
  }

  VQCC_DEVICE void start_keys(int /*head*/) const {}

  /// Switches to the books of `head`. What it reads no kernel writes.
  VQCC_DEVICE void start_books(int head) {
    key_books_.switch_to(first_book<KeyTile>(head), 0, kOwnBooks<KeyTile>);
    value_books_.switch_to(first_book<ValueTile>(head), 0, kOwnBooks<ValueTile>);
  }
  VQCC_DEVICE void prepare(const RowSets& /*rows*/, int /*sequence*/, float /*scale*/) {}

  VQCC_DEVICE void load_keys(const uint8* block, KeyCodes& codes) const {
#pragma unroll
    for (int set = 0; set < Share::kSets; ++set) codes.sets[set] = Share::load_from(block, rank_, set);
  }
  VQCC_DEVICE void load_values(const uint8* block, ValueCodes& codes) const {
#pragma unroll
    for (int s = 0; s < Lanes::kSlots; ++s) {
      codes.slots[s] = Values::Streams::load_from(block, rank_ * kValueGroups + Lanes::group_of(s));
    }
  }

  /// The scores of this lane's token over the block's channels; `position` is that of the token block's first.
  VQCC_DEVICE void score(const KeyCodes& codes, int position, float (&scores)[kRows]) {
    rotations_.turn_to(arguments_.rotations, position);
#pragma unroll
    for (int r = 0; r < kRows; ++r) scores[r] = 0.0f;
    constexpr int kStepGroups = smaller(kStep, Share::kSetGroups);
#pragma unroll
    for (int set = 0; set < Share::kSets; ++set) {
      auto chunk = codes.sets[set];
#pragma unroll 1
      for (int first = 0; first < Share::kSetGroups; first += kStepGroups) {
#pragma unroll
        for (int i = 0; i < kStepGroups; ++i) {
          const int group = Share::group_of(first + i, lane_index());
          uint32 code[KeyAlgorithm::kResiduals];
          chunk.template codes_of<KeyAlgorithm::kResiduals>(i, code);
          float key[kKeySize];
          KeyAlgorithm::decode(key_books_, KeyTile::kHeadBooks == 1 ? 0 : set * Share::kSetGroups + group, code, key);
          add_products(rotations_, queries_, (Share::first_group(rank_, set) + group) * kKeySize, key, scores);
        }
        chunk.template advance<kStepGroups>();
      }
    }
  }

  /// Rotations of the token block whose first token is at `position`. Every lane of the warp calls it.
  VQCC_DEVICE const Rotations<Shape>& rotations(int position) const {
    rotations_.turn_to(arguments_.rotations, position);
    return rotations_;
  }

  /// Adds the values of this lane's team's token block; if it is not `coded` its lanes decode along, code 0, so that others
  /// can exchange.
  VQCC_DEVICE void add_values(const ValueCodes& codes, bool coded, const uint8* weights, Softmax& softmax) const {
#pragma unroll
    for (int s = 0; s < Lanes::kSlots; ++s) {
      auto chunk = kTogether && !coded ? Chunk{} : codes.slots[s];
#pragma unroll 1
      for (int first = 0; first < kBlockTokens; first += kStep) {
#pragma unroll
        for (int i = 0; i < kStep; ++i) {
          uint32 code[ValueAlgorithm::kResiduals];
          chunk.template codes_of<ValueAlgorithm::kResiduals>(i, code);
          float value[ValueAlgorithm::kVectorSize];
          ValueAlgorithm::decode(value_books_, ValueTile::kHeadBooks == 1 ? 0 : Lanes::group_of(s), code, value);
          Lanes::exchange(value, exchanged_);
          if (!kTogether || coded) softmax.add_value(s, value, weights, first + i);
        }
        chunk.template advance<kStep>();
      }
    }
  }
  VQCC_DEVICE float unscale() const { return 1.0f; }
  VQCC_DEVICE float scale() const { return 1.0f; }

 private:
  template <class Scope>
  VQCC_DEVICE int first_book(int head) const {
    return head * Scope::kHeadBooks * Scope::kBooksByHead + (Scope::kHeadBooks == 1 ? 0 : rank_ * kOwnBooks<Scope>);
  }

  const Arguments& arguments_;
  int rank_;
  const float* queries_;
  KeyBooks key_books_;
  ValueBooks value_books_;
  Rotations<Shape> rotations_;
  uint8* exchanged_;  // scratch of this warp
};

}  // namespace vqcc
