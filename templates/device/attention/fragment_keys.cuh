// Products of four query rows with keys on tensor cores: entries are operand B as they are looked up.
#pragma once

#include "entry_rows.cuh"
#include "quarters.cuh"

namespace vqcc {

/// Queries as operand A, in registers, and their products with token blocks in the order of fragments (FragmentOrder).
///
/// So that lanes look different channel groups up at a time, tokens meet the groups in different turns. Rows of a turn hold
/// the query in that turn; what other turns leave in a column is not used. Entries of two channels have eight turns: the
/// upper four are another multiply, of the same queries four steps on, a block's halves the other way round.
template <class Algorithm, class Shape>
class FragmentKeys {
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Order = FragmentOrder<Algorithm, Shape::kHeadDim>;
  using Keys = KeyBlock<Algorithm, Shape::kHeadDim, KeyOrder::kFragment>;
  static constexpr int kPairs = Rows::kPairs;  // registers of an entry
  static constexpr int kDepth = ceil_divide(kPairs * Order::kStepLookUps, 2);  // multiplies of a step
  static constexpr int kHalves = Order::kTurns > Quarters::kTurns ? 2 : 1;
  static constexpr int kOctetCodes = Order::kSteps * Order::kStepLookUps;  // of a lane
  static_assert(Order::kSteps >= Order::kTurns && Order::kTurns >= Quarters::kTurns, "as many blocks as turns");
  static_assert(Order::kSteps * kDepth <= 8, "operands of queries stay in registers");
  static_assert((Rows::kSlots == 1 || Rows::kCopies == 1) && Shape::kHeadDim * 2 <= Rows::kRowBytes,
                "a group's entry is at its number times an entry's bytes");
  static constexpr int kPlacesOfWord = 3;  // the fourth byte of a register of places is zero
  static constexpr int kPlaces = ceil_divide(kOctetCodes, kPlacesOfWord);

 public:
  /// Takes queries [row][kHeadDim] in fp32. In float16, each row is scaled by a power of two to where it loses nothing.
  VQCC_DEVICE void start(const float* queries) {
    float scales[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float largest = 0.0f;
      for (int i = lane_index() % 16; i < Shape::kHeadDim; i += 16) {
        largest = larger(largest, magnitude(queries[(Quarters::row() + 2 * j) * Shape::kHeadDim + i]));
      }
      const int exponent = static_cast<int>(float_as_bits(Quarters::largest_of_row(largest)) >> 23) - 127;
      const int shift = exponent < -100 ? 100 : -exponent;
      scales[j] = float_of_bits(static_cast<uint32>(127 + shift) << 23);
      unscale_[j] = float_of_bits(static_cast<uint32>(127 - shift) << 23);
    }
#pragma unroll
    for (int s = 0; s < Order::kSteps; ++s) {
      const int block = s ^ Quarters::turn();
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
    find_places();
  }

  /// Products with the token block whose codes are at `codes`, entries in `rows`: for each octet those of the lane's token,
  /// if it has one, with its two query rows.
  VQCC_DEVICE void multiply(const uint8* codes, const uint8* rows, float (&products)[Order::kOctets][2]) const {
    constexpr int kWords = Keys::Streams::kChunkWords;
    uint32 words[Keys::kSets][kWords];
#pragma unroll
    for (int set = 0; set < Keys::kSets; ++set) {
      Keys::Streams::take(codes + set * Keys::Streams::kBytes, lane_index(), words[set]);
    }
#pragma unroll
    for (int octet = 0; octet < Order::kOctets; ++octet) {
      float sums[kHalves][4] = {};
#pragma unroll
      for (int s = 0; s < Order::kSteps; ++s) {
        uint32 entries[2 * kDepth];
#pragma unroll
        for (int i = 0; i < Order::kStepLookUps; ++i) {
          const int own = s * Order::kStepLookUps + i;
          const int index = octet * kOctetCodes + own;
          const uint32 place = permute_bytes(places_[own / kPlacesOfWord], words[index / 4 / kWords][index / 4 % kWords],
                                             selector_of(own % kPlacesOfWord, index % 4));
          uint32 pairs[kPairs];
          Rows::template load_from<Space::kShared>(rows + place, pairs);
#pragma unroll
          for (int p = 0; p < kPairs; ++p) entries[i * kPairs + p] = pairs[p];
        }
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
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const bool even = Quarters::turn() % 2 == 0;
        const float lower = even ? sums[0][2 * j] : sums[0][2 * j + 1];
        const float upper = even ? sums[kHalves - 1][2 * j] : sums[kHalves - 1][2 * j + 1];
        products[octet][j] = unscale_[j] * (Quarters::member() < 2 ? lower : upper);
      }
    }
  }

 private:
  /// Bytes of a place, lowest first: byte `place` of a register of places, byte `code` of the codes, zeros.
  VQCC_HOST_DEVICE static constexpr uint32 selector_of(int place, int code) {
    return static_cast<uint32>(place) | static_cast<uint32>(4 + code) << 4 | 3u << 8 | 3u << 12;
  }

  /// Where in a row this lane's entries are, of the look-ups of an octet: three to a register.
  VQCC_DEVICE void find_places() {
    const int turn = lane_index() / 4 % Order::kTurns;
#pragma unroll
    for (int w = 0; w < kPlaces; ++w) {
      places_[w] = 0u;
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
