// Products of four query rows with keys on tensor cores: entries are operand B as they are looked up.
#pragma once

#include "entry_rows.cuh"
#include "quarters.cuh"
#include "work.cuh"

namespace vqcc {

/// Queries as operand A, in registers, and their products with token blocks in the order of fragments (FragmentOrder).
///
/// So that lanes look different channel groups up at a time, tokens meet the groups in different turns. Rows of a turn hold
/// the query in that turn; what other turns leave in a column is not used. Entries of two channels have eight turns: the
/// upper four are another multiply, of the same queries four steps on, a block's halves the other way round.
template <class Algorithm, class Shape, class Tile>
class FragmentKeys {
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
  static_assert(Shape::kRope == Rope::kNone && Tile::kRows == Quarters::kRows, "four rows of queries");
  static constexpr int kPlacesOfWord = 3;  // the fourth byte of a register of places is the region
  static constexpr int kWords = Keys::Streams::kChunkWords;
  static constexpr int kPlaces = ceil_divide(kOctetCodes, kPlacesOfWord);

 public:
  static constexpr int kBytes = Rows::kBytes;
  static constexpr bool kKeepsRows = true;  // in shared memory
  static constexpr bool kScalesScores = true;  // not queries, which float16 then holds as they are
  static constexpr int kScratchBytes = kBlockTokens * Quarters::kRows * 4;

  VQCC_DEVICE void load_entries(const uint8* /*key_rows*/) {}  // rows are copied

  /// Takes queries [row][kHeadDim] in fp32; scores are their products times `scale`. In float16, each row of queries is scaled
  /// by a power of two to where it loses nothing.
  VQCC_DEVICE void start(const TableRegion& region, const float* queries, const uint8* /*key_rows*/, float /*bound*/,
                         float scale) {
    float scales[2];
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
#pragma unroll
    for (int s = 0; s < Order::kSteps; ++s) {
      const int block = s ^ computed_anew(Quarters::turn());
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // registers 0 and 1 have the first pair of a row each, 2 and 3 the second
          const int j = i % 2;
          const int pair = 2 * d + i / 2;
          const int group = block * Order::kBlockGroups + Quarters::member() + pair / kPairs * 4;
          const int channel = group * Rows::kVectorSize + pair % kPairs * 2;
          const float* query = queries + (Quarters::row() + 2 * j) * Shape::kHeadDim + channel;
          queries_[s][d][i] = to_float16_pair(make_float2(scales[j] * query[0], scales[j] * query[1]));
        }
      }
    }
    find_places(region.region);
  }

  /// The scores of this lane's token. Products come to the lanes that have a token's columns; through `scratch`, of this warp
  /// alone, they reach the token's.
  VQCC_DEVICE void add_up(const uint32 (&codes)[Keys::kSets][kWords], const TableRegion& rows, uint8* scratch,
                          float (&scores)[Quarters::kRows]) const {
    float2 products[Order::kOctets];  // of query rows `row()` and `row() + 2`
#pragma unroll
    for (int octet = 0; octet < Order::kOctets; octet += kTogether) {
      float sums[kTogether][kHalves][4] = {};
#pragma unroll
      for (int s = 0; s < Order::kSteps; ++s) {
#pragma unroll
        for (int o = 0; o < kTogether; ++o) {
          uint32 entries[2 * kDepth];
          look_up(codes, rows.base, s, octet + o, entries);
          multiply(s, entries, sums[o]);
        }
      }
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

 private:
  /// Entries of this lane's look-ups of step `s`, operand B of an octet's tokens.
  VQCC_DEVICE void look_up(const uint32 (&codes)[Keys::kSets][kWords], const uint8* rows, int s, int octet,
                           uint32 (&entries)[2 * kDepth]) const {
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

  VQCC_DEVICE void multiply(int s, const uint32 (&entries)[2 * kDepth], float (&sums)[kHalves][4]) const {
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

  /// The product of a column that this lane has of use: of its turn, in the half of the turns that its column is of.
  VQCC_DEVICE static float own_of(const float (&sums)[kHalves][4], int j) {
    const bool even = Quarters::turn() % 2 == 0;
    const float lower = even ? sums[0][2 * j] : sums[0][2 * j + 1];
    const float upper = even ? sums[kHalves - 1][2 * j] : sums[kHalves - 1][2 * j + 1];
    return Quarters::member() < 2 ? lower : upper;
  }

  /// Bytes of a place, lowest first: byte `place` of a register of places, byte `code` of the codes, the region, its sign.
  VQCC_HOST_DEVICE static constexpr uint32 selector_of(int place, int code) {
    return static_cast<uint32>(place) | static_cast<uint32>(4 + code) << 4 | 3u << 8 | 0xbu << 12;
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
  uint32 places_[kPlaces];
  float unscale_[2];  // of query rows `row()` and `row() + 2`
};

}  // namespace vqcc
