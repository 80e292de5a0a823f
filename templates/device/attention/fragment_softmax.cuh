// A warp's softmax over the tokens that it sees, for four query rows, and values weighted with it on tensor cores.
#pragma once

#include "entry_rows.cuh"
#include "merge.cuh"
#include "quarters.cuh"
#include "window.cuh"

namespace vqcc {

/// Values are operand B, columns channel groups, lane 4 g + m having group 4 g + m of 32. In rows of turn t only the tokens of
/// lanes of member t have weights, so that all lanes multiply the same four tokens at a time, each its own group.
template <class Algorithm, class Shape, class Tile>
class FragmentSoftmax {
  using Rows = EntryRows<Algorithm, Shape::kHeadDim>;
  using Codes = ValueBlock<Algorithm, Shape::kHeadDim>;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRows = Quarters::kRows;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kVectorSize = Rows::kVectorSize;
  static constexpr int kPairs = Rows::kPairs;
  static_assert(Rows::kTeams == 1, "lanes have channel groups of the same token");
  /// A warp's largest score may be passed by so many powers of two before earlier weights are scaled anew.
  static constexpr float kHeadroom = 8.0f;

 public:
  static constexpr int kSlots = Rows::kSlots;
  static constexpr int kCodeWords = Codes::Streams::kChunkWords;  // of a lane in each slot
  /// A warp's weights [row][token] in float16; and zeros in their place.
  static constexpr int kWeightBytes = kRows * kBlockTokens * 2;
  static constexpr int kZeroBytes = 2 * kBlockTokens * 2;
  /// Floats that `merge` needs: of warps, largest scores and sums of each row.
  static constexpr int kScratchFloats = 2 * kRows * kWarps;

  VQCC_DEVICE void start() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      largest_[j] = kMasked;
      sum_[j] = 0.0f;
    }
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
#pragma unroll
      for (int c = 0; c < kVectorSize; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values_[s][c][i] = 0.0f;
      }
    }
  }

  /// Turns scores of a token block, masked where this lane has no token or its query does not see it, into weights relative
  /// to a row's largest score, which may lag behind, and leaves them at `weights`.
  VQCC_DEVICE void weigh(const float (&scores)[4][2], uint8* weights) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float largest = kMasked;
#pragma unroll
      for (int octet = 0; octet < 4; ++octet) largest = larger(largest, scores[octet][j]);
      if (any_lane(largest > largest_[j] + kHeadroom)) {
        largest = larger(Quarters::largest_of_row(largest), largest_[j]);
        const float scale = weight_of(largest_[j], largest);
        largest_[j] = largest;
        sum_[j] *= scale;
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
#pragma unroll
          for (int c = 0; c < kVectorSize; ++c) {
            values_[s][c][2 * j] *= scale;
            values_[s][c][2 * j + 1] *= scale;
          }
        }
      }
#pragma unroll
      for (int octet = 0; octet < 4; ++octet) {
        const float weight = weight_of(scores[octet][j], largest_[j]);
        sum_[j] += weight;
        if (Quarters::has_token()) {
          const int place = (Quarters::row() + 2 * j) * kBlockTokens + Quarters::token_of(octet);
          store(reinterpret_cast<uint16*>(weights) + place,
                static_cast<uint16>(to_float16_pair(make_float2(weight, 0.0f))));
        }
      }
    }
  }

  /// Adds a token block's values, looked up by this lane's codes in `tables`, times their weights.
  VQCC_DEVICE void add_codes(const uint8* tables, const uint32 (&codes)[kSlots][kCodeWords], const uint8* weights,
                             const uint8* zeros) {
    const uint32 place = Rows::own_place();
    const bool own = Quarters::turn() == Quarters::member();
    constexpr int kRowBytes = kBlockTokens * 2;
    const uint8* nothing = zeros + (1 - Quarters::row()) * kRowBytes;  // in other banks than the rows' weights
    const uint8* first = own ? weights + Quarters::row() * kRowBytes : nothing;
    const uint8* second = own ? weights + (Quarters::row() + 2) * kRowBytes : nothing;
#pragma unroll
    for (int eight = 0; eight < kBlockTokens; eight += 8) {
      uint32 a[2][4];  // of both rows, pairs of eight tokens
      to_registers(load<Space::kShared>(reinterpret_cast<const uint4*>(first + eight * 2)), a[0]);
      to_registers(load<Space::kShared>(reinterpret_cast<const uint4*>(second + eight * 2)), a[1]);
#pragma unroll
      for (int four = 0; four < 2; ++four) {
        const uint32 operand[4] = {a[0][2 * four], a[1][2 * four], a[0][2 * four + 1], a[1][2 * four + 1]};
#pragma unroll
        for (int s = 0; s < kSlots; ++s) {
          uint32 entries[4][kPairs];
#pragma unroll
          for (int t = 0; t < 4; ++t) Rows::look_up(tables, s, place, codes[s][eight / 4 + four], t, entries[t]);
#pragma unroll
          for (int c = 0; c < kVectorSize; ++c) {  // the lower or upper channels of pairs of tokens
            const uint32 selector = c % 2 == 0 ? 0x5410u : 0x7632u;
            multiply_fragments<ElementType::kFloat16>(values_[s][c], operand,
                                                      {permute_bytes(entries[0][c / 2], entries[1][c / 2], selector),
                                                       permute_bytes(entries[2][c / 2], entries[3][c / 2], selector)});
          }
        }
      }
    }
  }

  /// Adds a token's value in full precision, times `scale` and its weight, number `token` of `weights`.
  template <class Element>
  VQCC_DEVICE void add_row(const Element* row, float scale, const uint8* weights, int token) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int place = (Quarters::row() + i / 2 * 2) * kBlockTokens + token;
      const float weight =
          scale * float16_pair(load<Space::kShared>(reinterpret_cast<const uint16*>(weights) + place)).x;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        float channels[kVectorSize];
        load_channels<Tile::kElement>(row + group_of(s, i) * kVectorSize, channels);
#pragma unroll
        for (int c = 0; c < kVectorSize; ++c) {
          values_[s][c][i] = fused_multiply_add(weight, channels[c], values_[s][c][i]);
        }
      }
    }
  }

  /// Merges the softmaxes of the block's warps: state[r] is a row's largest score, state[kRows + r] its sum, and
  /// sums[r * kHeadDim + channel] its weighted values, times `unscale`. `sums` has room for each warp's. Every thread of the
  /// block calls it; the result is there at its end.
  VQCC_DEVICE void merge(float* state, float* sums, float* scratch, float unscale) const {
    float* largest_of = scratch;  // [row][warp]
    float* sum_of = scratch + kRows * kWarps;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float sum = Quarters::sum_of_row(sum_[j]);
      if (lane_index() % 16 == 0) {
        largest_of[(Quarters::row() + 2 * j) * kWarps + warp_index()] = largest_[j];
        sum_of[(Quarters::row() + 2 * j) * kWarps + warp_index()] = sum;
      }
    }
    block_barrier();  // and what lay where sums will has been read
    float* own = sums + warp_index() * kRows * kHeadDim;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int r = Quarters::row() + 2 * j;
      float largest = kMasked;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) largest = larger(largest, largest_of[r * kWarps + w]);
      if (warp_index() == 0 && lane_index() % 16 == 0) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          sum = fused_multiply_add(sum_of[r * kWarps + w], weight_of(largest_of[r * kWarps + w], largest), sum);
        }
        state[r] = largest;
        state[kRows + r] = sum;
      }
      const float scale = unscale * weight_of(largest_[j], largest);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int c = 0; c < kVectorSize; ++c) {
            own[r * kHeadDim + group_of(s, i) * kVectorSize + c] = scale * values_[s][c][2 * j + i];
          }
        }
      }
    }
    block_barrier();
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kHeadDim; i += kThreads) {
      float sum = sums[i];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += sums[w * kRows * kHeadDim + i];
      sums[i] = sum;
    }
    block_barrier();
  }

 private:
  /// The channel group of this lane's sums [slot][.][i]: column 2 member + i % 2, in its rows' turn.
  VQCC_DEVICE static int group_of(int slot, int i) {
    return slot * kWarpSize + (Quarters::member() * 2 + i % 2) * 4 + Quarters::turn();
  }

  // Of query rows `row()` and `row() + 2`; values [slot][channel of a group][row, column of the multiply].
  float largest_[2];
  float sum_[2];
  float values_[kSlots][kVectorSize][4];
};

}  // namespace vqcc
