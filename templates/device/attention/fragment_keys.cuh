// Products of four query rows with keys on tensor cores: entries are operand B as they are looked up.
#pragma once

#include "entry_rows.cuh"
#include "quarters.cuh"
#include "work.cuh"

namespace vqcc {

/// What kernels with queries as operand A share: places of entries, multiplies, and the way of products to their tokens.
///
/// So that lanes look different channel groups up at a time, tokens meet the groups in different turns (FragmentOrder). Rows
/// of a turn hold the query in that turn; what other turns leave in a column is not used. Entries of two channels have eight
/// turns: the upper four are another multiply, of the same queries four steps on, a block's halves the other way round.
template <class Algorithm, class Shape, class Tile>
class FragmentProducts {
 protected:
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Order = FragmentOrder<Algorithm, Shape::kHeadDim>;
  using Keys = KeyBlock<Algorithm, Shape::kHeadDim, KeyOrder::kFragment>;
  static constexpr int kPairs = Rows::kPairs;  // registers of an entry
  static constexpr int kDepth = ceil_divide(kPairs * Order::kStepLookUps, 2);  // multiplies of a step
  static constexpr int kHalves = Order::kTurns > Quarters::kTurns ? 2 : 1;
  static constexpr int kTogether = 2;  // octets whose multiplies take turns: one waits for that before it
  static constexpr int kOctetCodes = Order::kSteps * Order::kStepLookUps;  // of a lane
  static_assert(Order::kSteps >= Order::kTurns && Order::kTurns >= Quarters::kTurns, "as many blocks as turns");
  static_assert(Order::kSteps * kDepth <= 8, "operands of queries stay in registers");
  static_assert((Rows::kSlots == 1 || Rows::kCopies == 1) && Shape::kHeadDim * 2 <= Rows::kRowBytes,
                "a group's entry is at its number times an entry's bytes");
  static_assert(Tile::kRows == Quarters::kRows, "four rows of queries");
  static constexpr int kPlacesOfWord = 3;  // the fourth byte of a register of places is the region
  static constexpr int kWords = Keys::Streams::kChunkWords;
  static constexpr int kPlaces = ceil_divide(kOctetCodes, kPlacesOfWord);

  using Codes = uint32[Keys::kSets][kWords];
  using Entries = uint32[2 * kDepth];  // of a step: operand B
  using Sums = float[kHalves][4];

 public:
  static constexpr int kBytes = Rows::kBytes;
  static constexpr bool kKeepsRows = true;  // in shared memory
  static constexpr bool kScalesScores = true;  // not queries, which float16 then holds as they are

  VQCC_DEVICE void load_entries(const uint8* /*key_rows*/) {}  // rows are copied

 protected:
  /// Powers of two that bring queries [row][kHeadDim] in fp32 to where float16 loses nothing, of rows `row()` and `row() + 2`;
  /// scores are products times `scale`.
  VQCC_DEVICE void find_scales(const float* queries, float scale, float (&scales)[2]) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float largest = 0.0f;
      const float* query = queries + (computed_anew(Quarters::row()) + 2 * j) * Shape::kHeadDim;
      for (int i = lane_index() % 16; i < Shape::kHeadDim; i += 16) largest = larger(largest, magnitude(query[i]));
      const int exponent = static_cast<int>(float_as_bits(Quarters::largest_of_row(largest)) >> 23) - 127;
      const int shift = exponent < -100 ? 100 : -exponent;
      scales[j] = float_of_bits(static_cast<uint32>(127 + shift) << 23);
      unscale_[j] = scale * float_of_bits(static_cast<uint32>(127 - shift) << 23);
    }
  }

  /// The scores of this lane's token: `add(octet, sums)` adds up the products of kTogether octets from `octet` on. They come to
  /// the lanes that have a token's columns; through `scratch`, of this warp alone, they reach the token's.
  template <class Add>
  VQCC_DEVICE void add_octets(uint8* scratch, float (&scores)[Quarters::kRows], const Add& add) const {
    float2 products[Order::kOctets];  // of query rows `row()` and `row() + 2`
#pragma unroll
    for (int octet = 0; octet < Order::kOctets; octet += kTogether) {
      Sums sums[kTogether] = {};
      add(octet, sums);
#pragma unroll
      for (int o = 0; o < kTogether; ++o) {
        products[octet + o].x = unscale_[0] * own_of(sums[o], 0);
        products[octet + o].y = unscale_[1] * own_of(sums[o], 1);
      }
    }
    if (Quarters::has_token()) {  // after all look-ups: these could not pass a store
#pragma unroll
      for (int octet = 0; octet < Order::kOctets; ++octet) {
        store(reinterpret_cast<float2*>(scratch) + Quarters::token_of(octet) * 2 + Quarters::row(), products[octet]);
      }
    }
    warp_barrier();
    const float4 rows_02_13 = load<Space::kShared>(reinterpret_cast<const float4*>(scratch) + lane_index());
    scores[0] = rows_02_13.x;
    scores[2] = rows_02_13.y;
    scores[1] = rows_02_13.z;
    scores[3] = rows_02_13.w;
  }

  /// Entries of this lane's look-ups of step `s`, operand B of an octet's tokens.
  VQCC_DEVICE void look_up(const Codes& codes, const uint8* rows, int s, int octet, Entries& entries) const {
#pragma unroll
    for (int i = 0; i < Order::kStepLookUps; ++i) {
      const int own = s * Order::kStepLookUps + i;
      const int index = octet * kOctetCodes + own;
      const uint32 place = permute_bytes(places_[own / kPlacesOfWord], codes[index / 4 / kWords][index / 4 % kWords],
                                         selector_of(own % kPlacesOfWord, index % 4));
      uint32 pairs[kPairs];
      Rows::template load_from<Space::kShared>(rows + place, pairs);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) entries[i * kPairs + p] = pairs[p];
    }
  }

  VQCC_DEVICE void multiply(int s, const Entries& entries, Sums& sums) const {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const uint32 b[2] = {entries[2 * d], entries[2 * d + 1]};
      multiply_fragments<ElementType::kFloat16>(sums[0], queries_[s][d], b);
      if constexpr (kHalves == 2) {
        const uint32(&a)[4] = queries_[s ^ 4][d];
        multiply_fragments<ElementType::kFloat16>(sums[1], {a[2], a[3], a[0], a[1]}, b);
      }
    }
  }

  /// Where in a row this lane's entries are, of the look-ups of an octet: three to a register.
  VQCC_DEVICE void find_places(int region) {
    const int turn = lane_index() / 4 % Order::kTurns;
#pragma unroll
    for (int w = 0; w < kPlaces; ++w) {
      places_[w] = static_cast<uint32>(region) << 24;
#pragma unroll
      for (int b = 0; b < kPlacesOfWord; ++b) {
        const int own = w * kPlacesOfWord + b;
        if (own >= kOctetCodes) break;
        const int group = Order::group_of(turn, Quarters::member(), own / Order::kStepLookUps, own % Order::kStepLookUps);
        places_[w] |= static_cast<uint32>(group * Rows::kEntryBytes) << 8 * b;
      }
    }
  }

  uint32 queries_[Order::kSteps][kDepth][4];

 private:
  /// The product of a column that this lane has of use: of its turn, in the half of the turns that its column is of.
  VQCC_DEVICE static float own_of(const Sums& sums, int j) {
    const bool even = Quarters::turn() % 2 == 0;
    const float lower = even ? sums[0][2 * j] : sums[0][2 * j + 1];
    const float upper = even ? sums[kHalves - 1][2 * j] : sums[kHalves - 1][2 * j + 1];
    return Quarters::member() < 2 ? lower : upper;
  }

  /// Bytes of a place, lowest first: byte `place` of a register of places, byte `code` of the codes, the region, its sign.
  VQCC_HOST_DEVICE static constexpr uint32 selector_of(int place, int code) {
    return static_cast<uint32>(place) | static_cast<uint32>(4 + code) << 4 | 3u << 8 | 0xbu << 12;
  }

  uint32 places_[kPlaces];
  float unscale_[2];  // of query rows `row()` and `row() + 2`
};

/// Queries as operand A, in registers while a segment lasts.
template <class Algorithm, class Shape, class Tile>
class FragmentKeys : public FragmentProducts<Algorithm, Shape, Tile>, public FixedKeys {
  using Base = FragmentProducts<Algorithm, Shape, Tile>;
  using typename Base::Order;
  using typename Base::Rows;
  static_assert(Shape::kRope == Rope::kNone, "keys are multiplied as they lie in the cache");

 public:
  static constexpr int kScratchBytes = kBlockTokens * Quarters::kRows * 4;

  /// Takes queries [row][kHeadDim] in fp32; scores are their products times `scale`.
  VQCC_DEVICE void start(const TableRegion& region, const float* queries, const uint8* /*key_rows*/, float /*bound*/,
                         float scale) {
    float scales[2];
    this->find_scales(queries, scale, scales);
#pragma unroll
    for (int s = 0; s < Order::kSteps; ++s) {
      const int block = s ^ computed_anew(Quarters::turn());
#pragma unroll
      for (int d = 0; d < Base::kDepth; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // registers 0 and 1 have the first pair of a row each, 2 and 3 the second
          const int j = i % 2;
          const int pair = 2 * d + i / 2;
          const int group = block * Order::kBlockGroups + Quarters::member() + pair / Base::kPairs * 4;
          const int channel = group * Rows::kVectorSize + pair % Base::kPairs * 2;
          const float* query = queries + (Quarters::row() + 2 * j) * Shape::kHeadDim + channel;
          this->queries_[s][d][i] = to_float16_pair(make_float2(scales[j] * query[0], scales[j] * query[1]));
        }
      }
    }
    this->find_places(region.region);
  }

  VQCC_DEVICE void add_up(const typename Base::Codes& codes, const TableRegion& rows, uint8* scratch,
                          float (&scores)[Quarters::kRows]) const {
    this->add_octets(scratch, scores, [&](int octet, typename Base::Sums (&sums)[Base::kTogether]) {
#pragma unroll
      for (int s = 0; s < Order::kSteps; ++s) {
#pragma unroll
        for (int o = 0; o < Base::kTogether; ++o) {
          typename Base::Entries entries;
          this->look_up(codes, rows.base, s, octet + o, entries);
          this->multiply(s, entries, sums[o]);
        }
      }
    });
  }
};

}  // namespace vqcc
