// Products of four query rows with keys that are rotated by their positions after decoding, on tensor cores.
#pragma once

#include "fragment_keys.cuh"
#include "rope.cuh"

namespace vqcc {

/// Rotations of a token block's tokens relative to its first, in float16, the same for every block: a row for each token.
///
/// Channels i and i + kHeadDim / 2 together (kHalf): for every two neighbouring i, two cosines, then two sines. Channels 2 i and
/// 2 i + 1 together (kInterleaved): for every i, cosine and sine. Entries are of kVectorSize channels.
template <class Shape, int kVectorSize>
struct RotationTable {
  static constexpr bool kHalf = Shape::kRope == Rope::kHalf;
  static constexpr int kPairs = Shape::kHeadDim / 2;
  static constexpr int kWordBytes = kHalf ? 8 : 4;  // of two neighbouring channels, in kHalf of the lower half
  static constexpr int kTokenBytes = kPairs * 4;
  static constexpr int kBytes = kBlockTokens * kTokenBytes;

  /// Where byte `byte` of a token's row is, so that no lanes of tokens that look up together meet in a bank.
  VQCC_HOST_DEVICE static constexpr int place_of(int token, int byte) {
    constexpr bool kShort = kTokenBytes < 256 && kVectorSize == 2;
    return byte ^ (kHalf ? token % 4 * 16 : kShort ? token / 4 % 2 * 16 : 0);
  }

  /// Every thread of the block calls it; what it made is there after the next barrier.
  template <int kThreads>
  VQCC_DEVICE static void make(uint8* table, const uint8* steps) {
    for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kPairs; i += kThreads) {
      const int token = i / kPairs;
      const int pair = i % kPairs;
      const uint32 rotation = to_float16_pair(rotation_of(turn_of_position(steps, pair, token)));
      uint8* word = table + token * kTokenBytes + place_of(token, kHalf ? pair / 2 * 8 + pair % 2 * 2 : pair * 4);
      store(reinterpret_cast<uint16*>(word), static_cast<uint16>(rotation));
      store(reinterpret_cast<uint16*>(word + (kHalf ? 4 : 2)), static_cast<uint16>(rotation >> 16));
    }
  }

  /// Rotates channels i, i + 1 in `low` and their partners in `high` by two cosines and two sines.
  VQCC_DEVICE static void rotate(uint32& low, uint32& high, uint32 cosines, uint32 sines) {
    const uint32 first = multiply_pairs<ElementType::kFloat16>(low, cosines);
    const uint32 second = multiply_pairs<ElementType::kFloat16>(high, cosines);
    const uint32 rotated = multiply_add_float16_pairs(high, sines ^ 0x80008000u, first);
    high = multiply_add_float16_pairs(low, sines, second);
    low = rotated;
  }
  /// Rotates two neighbouring channels by a cosine and a sine.
  VQCC_DEVICE static void rotate(uint32& pair, uint32 rotation) {
    const uint32 cosines = permute_bytes(rotation, rotation, 0x1010u);
    const uint32 sines = permute_bytes(rotation, rotation, 0x3232u) ^ 0x8000u;
    const uint32 swapped = permute_bytes(pair, pair, 0x1032u);
    const uint32 straight = multiply_pairs<ElementType::kFloat16>(pair, cosines);
    pair = multiply_add_float16_pairs(swapped, sines, straight);
  }
};

/// A key's rotation is one by its block's first position, by which queries are rotated back, and one by the few positions from
/// there on, by which its entries are rotated as they have been looked up: where pairs are halves of a head apart, a lane has
/// both channels, for step s ^ kSteps / 2 has the partners of step s.
///
/// Scratch of a warp: rotated queries, float16 [row][block][pair of a group][member], then, in their place, scores.
template <class Algorithm, class Shape, class Tile>
class RopeFragmentKeys : public FragmentProducts<Algorithm, Shape, Tile> {
  using Base = FragmentProducts<Algorithm, Shape, Tile>;
  using Table = RotationTable<Shape, Algorithm::kVectorSize>;
  using typename Base::Entries;
  using typename Base::Order;
  using typename Base::Rows;
  static constexpr int kRows = Quarters::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kVectorSize = Rows::kVectorSize;
  static constexpr int kGroupWords = Base::kPairs;
  static constexpr int kMemberWords = 2 * Base::kDepth;  // of a block that a lane has
  static constexpr int kHalfSteps = Order::kSteps / 2;
  static constexpr int kRowBytes = kHeadDim * 2 + 16;    // rows of a matrix then meet different banks
  static constexpr int kScoreBytes = kBlockTokens * kRows * 4;
  static constexpr int kWordLanes = smaller(kWarpSize, kHeadDim / 4);
  static_assert(kHeadDim <= 4 * kWarpSize, "lanes have all pairs of a row, or of two");
  static_assert(Shape::kRope != Rope::kNone && kMemberWords == kGroupWords * Order::kStepLookUps, "whole operands");

 public:
  static constexpr int kRotationBytes = Table::kBytes;
  static constexpr int kScratchBytes = larger(kRows * kRowBytes, kScoreBytes);

  template <int kThreads>
  VQCC_DEVICE static void make_rotations(uint8* table, const uint8* steps) {
    Table::template make<kThreads>(table, steps);
  }

  VQCC_DEVICE void start(const TableRegion& region, const float* queries, const uint8* /*key_rows*/, float /*bound*/,
                         float scale) {
    float scales[2];
    this->find_scales(queries, scale, scales);
#pragma unroll
    for (int r = 0; r < kRows; ++r) scales_[r] = float_of_bits(value_of_lane(float_as_bits(scales[r / 2]), r % 2 * 16));
    this->find_places(region.region);
  }

  /// Goes to the token block whose first token is at `position`: queries, in fp32, are rotated back by it.
  VQCC_DEVICE void move_to(const uint8* table, const uint8* steps, int position, const float* queries, uint8* scratch) {
    table_ = table + lane_index() / 4 * Table::kTokenBytes;
    warp_barrier();  // the last block's scores have been read
    if constexpr (Table::kHalf) rotate_halves(steps, position, queries, scratch);
    else rotate_neighbours(steps, position, queries, scratch);
    warp_barrier();
    const uint8* row = scratch + (lane_index() % 8 / 4 + lane_index() / 8 % 2 * 2) * kRowBytes + lane_index() / 16 * 16;
#pragma unroll
    for (int s = 0; s < Order::kSteps; ++s) {
      const int block = s ^ lane_index() % 4;
#pragma unroll
      for (int d = 0; d < Base::kDepth; ++d) {
        load_matrices(this->queries_[s][d], row + (block * kMemberWords + (2 * d ^ swap_of(block))) * 16);
      }
    }
    warp_barrier();  // they have been read
  }

  VQCC_DEVICE void add_up(const typename Base::Codes& codes, const TableRegion& rows, uint8* scratch,
                          float (&scores)[kRows]) const {
    this->add_octets(scratch, scores, [&](int octet, typename Base::Sums (&sums)[Base::kTogether]) {
#pragma unroll
      for (int s = 0; s < kHalfSteps; ++s) {
#pragma unroll
        for (int o = 0; o < Base::kTogether; ++o) {
          Entries first;
          Entries second;
          this->look_up(codes, rows.base, s, octet + o, first);
          this->look_up(codes, rows.base, s + kHalfSteps, octet + o, second);
          rotate_entries(s, octet + o, first, second);
          this->multiply(s, first, sums[o]);
          this->multiply(s + kHalfSteps, second, sums[o]);
        }
      }
    });
  }

 private:
  /// Where a channel's pair is in a row of rotated queries: matrices have the members' words side by side.
  VQCC_DEVICE static int place_of(int channel) {
    const int group = channel / kVectorSize;
    const int in_block = group % Order::kBlockGroups;
    const int word = in_block / 4 * kGroupWords + channel % kVectorSize / 2;
    const int block = group / Order::kBlockGroups;
    return (block * kMemberWords + (word ^ swap_of(block))) * 16 + in_block % 4 * 4;
  }
  /// Of four words of a block, blocks two apart have the two halves the other way round: they would meet in banks.
  VQCC_DEVICE static int swap_of(int block) { return kMemberWords == 4 ? block / 2 % 2 * 2 : 0; }

  VQCC_DEVICE float scale_of(int i) const {
    if constexpr (kWordLanes == kWarpSize) return scales_[i];
    else return lane_index() < kWordLanes ? scales_[2 * i] : scales_[2 * i + 1];
  }

  VQCC_DEVICE void rotate_halves(const uint8* steps, int position, const float* queries, uint8* scratch) const {
    const int channel = lane_index() % kWordLanes * 2;
    const float2 rotations[2] = {rotation_of(turn_of_position(steps, channel, position)),
                                 rotation_of(turn_of_position(steps, channel + 1, position))};
#pragma unroll
    for (int i = 0; i < kRows * kWordLanes / kWarpSize; ++i) {
      const int row = i * (kWarpSize / kWordLanes) + lane_index() / kWordLanes;
      const float* query = queries + row * kHeadDim + channel;
      const float2 low = load<Space::kShared>(reinterpret_cast<const float2*>(query));
      const float2 high = load<Space::kShared>(reinterpret_cast<const float2*>(query + kHeadDim / 2));
      const float scale = scale_of(i);
      store_pair(scratch, row, channel, scale * first_back(low.x, high.x, rotations[0]),
                 scale * first_back(low.y, high.y, rotations[1]));
      store_pair(scratch, row, channel + kHeadDim / 2, scale * second_back(low.x, high.x, rotations[0]),
                 scale * second_back(low.y, high.y, rotations[1]));
    }
  }

  VQCC_DEVICE void rotate_neighbours(const uint8* steps, int position, const float* queries, uint8* scratch) const {
#pragma unroll
    for (int channel = lane_index() * 2; channel < kHeadDim; channel += kWarpSize * 2) {
      const float2 rotation = rotation_of(turn_of_position(steps, channel / 2, position));
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float2 pair = load<Space::kShared>(reinterpret_cast<const float2*>(queries + r * kHeadDim + channel));
        store_pair(scratch, r, channel, scales_[r] * first_back(pair.x, pair.y, rotation),
                   scales_[r] * second_back(pair.x, pair.y, rotation));
      }
    }
  }

  /// The first and the second channel of a pair, rotated back.
  VQCC_DEVICE static float first_back(float first, float second, float2 rotation) {
    return fused_multiply_add(first, rotation.x, second * rotation.y);
  }
  VQCC_DEVICE static float second_back(float first, float second, float2 rotation) {
    return fused_multiply_add(second, rotation.x, -first * rotation.y);
  }
  VQCC_DEVICE static void store_pair(uint8* scratch, int row, int channel, float first, float second) {
    store(reinterpret_cast<uint32*>(scratch + row * kRowBytes + place_of(channel)), to_float16_pair(make_float2(first, second)));
  }

  /// Rotates the entries of steps `s` and `s` + kHalfSteps, which are partners where pairs are halves of a head apart.
  VQCC_DEVICE void rotate_entries(int s, int octet, Entries& first, Entries& second) const {
    const uint8* tokens = table_ + octet * 8 * Table::kTokenBytes;
    if constexpr (Table::kHalf) {
      // Lanes of upper turns have the upper half first: they rotate the other way round.
      constexpr bool kMayBeUpper = Order::kTurns > kHalfSteps;
      const int turn = lane_index() / 4 % Order::kTurns;
      const uint32 sign = kMayBeUpper && turn >= kHalfSteps ? 0x80008000u : 0u;
      uint32 rotations[kMemberWords][2];
      load_rotations(tokens, s, rotations);
#pragma unroll
      for (int w = 0; w < kMemberWords; ++w) Table::rotate(first[w], second[w], rotations[w][0], rotations[w][1] ^ sign);
    } else {
      uint32 rotations[kMemberWords][1];
      load_rotations(tokens, s, rotations);
#pragma unroll
      for (int w = 0; w < kMemberWords; ++w) Table::rotate(first[w], rotations[w][0]);
      load_rotations(tokens, s + kHalfSteps, rotations);
#pragma unroll
      for (int w = 0; w < kMemberWords; ++w) Table::rotate(second[w], rotations[w][0]);
    }
  }

  /// Rotations of this lane's words of a step, by 16 bytes at most.
  template <int kWordRotations>
  VQCC_DEVICE static void load_rotations(const uint8* tokens, int s, uint32 (&rotations)[kMemberWords][kWordRotations]) {
    constexpr int kGroupBytes = kGroupWords * Table::kWordBytes;
    constexpr int kLoadBytes = smaller(16, kGroupBytes);
    constexpr int kLoadWords = kLoadBytes / 4;
    using Word = typename WordOf<kLoadBytes>::Type;
    const int own_turn = lane_index() / 4 % Order::kTurns;
#pragma unroll
    for (int i = 0; i < Order::kStepLookUps; ++i) {
      const int group = Order::group_of(own_turn, Quarters::member(), s, i) % (Table::kHalf ? Rows::kGroups / 2 : Rows::kGroups);
#pragma unroll
      for (int b = 0; b < kGroupBytes; b += kLoadBytes) {
        uint32 word[kLoadWords];
        const int place = Table::place_of(lane_index() / 4, group * kGroupBytes + b);
        to_registers(load<Space::kShared>(reinterpret_cast<const Word*>(tokens + place)), word);
#pragma unroll
        for (int l = 0; l < kLoadWords; ++l) {
          const int index = b / 4 + l;
          rotations[i * kGroupWords + index / kWordRotations][index % kWordRotations] = word[l];
        }
      }
    }
  }

  float scales_[kRows];
  const uint8* table_;  // this lane's token of an octet
};

}  // namespace vqcc
