// Causal attention of a prefill, over keys and values as the layer computed them: tiles of queries against tiles of keys on
// tensor cores, with the softmax's maximum and sum kept from tile to tile, so that no scores leave the block.
#pragma once

#include "launch.hpp"
#include "ptx.cuh"

namespace engine {

/// Of keys that a query does not see: below every score, and finite, so that differences of two are numbers.
constexpr float kNoScore = -1e30f;

/// Copies kRows rows of kHeadDim halves from row `first` on; those past `count` are zeros.
template <int kHeadDim, int kRows>
ENGINE_DEVICE void load_tile(__half* shared, const __half* rows, long long stride, int first, int count) {
  constexpr int kVectors = kHeadDim / 8;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += CausalTile<kHeadDim>::kThreads) {
    const int row = i / kVectors, vector = i % kVectors;
    uint4 word = make_uint4(0, 0, 0, 0);
    if (first + row < count) word = load(reinterpret_cast<const uint4*>(rows + (first + row) * stride) + vector);
    store(reinterpret_cast<uint4*>(shared + row * CausalTile<kHeadDim>::kPitch) + vector, word);
  }
}

/// One warp's 16 queries: outputs so far, and of rows g and g + 8 the largest score and the sum of exponentials.
template <int kHeadDim>
struct CausalState {
  using Tile = CausalTile<kHeadDim>;
  float out[kHeadDim / 8][4] = {};
  float largest[2] = {kNoScore, kNoScore};
  float sum[2] = {};

  /// Scores of a tile of keys from `first_key` on; those after a query's own place, the first being `first_query`, are none.
  ENGINE_DEVICE static void multiply_keys(float (&scores)[Tile::kKeys / 8][4], const __half* queries, const __half* keys,
                                          int first_query, int first_key) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int step = 0; step < kHeadDim; step += 16) {
      uint32 a[4];
      load_matrices(a, queries + lane % 16 * Tile::kPitch + step + lane / 16 * 8);
#pragma unroll
      for (int key = 0; key < Tile::kKeys; key += 16) {
        uint32 b[4];
        load_matrices(b, keys + (key + lane / 16 * 8 + lane % 8) * Tile::kPitch + step + lane / 8 % 2 * 8);
        multiply_tiles(scores[key / 8], a, b[0], b[1]);
        multiply_tiles(scores[key / 8 + 1], a, b[2], b[3]);
      }
    }
    if (first_key + Tile::kKeys - 1 <= first_query) return;
#pragma unroll
    for (int i = 0; i < Tile::kKeys / 8 * 4; ++i) {
      const int key = first_key + i / 4 * 8 + lane % 4 * 2 + i % 2;
      if (key > first_query + lane / 4 + i % 4 / 2 * 8) scores[i / 4][i % 4] = kNoScore;
    }
  }

  /// Scores become exponentials, relative to the largest so far; outputs and sums follow when that grows. Key 0 is seen by
  /// every query and in the first tile, so the largest is finite from there on.
  ENGINE_DEVICE void exponentiate(float (&scores)[Tile::kKeys / 8][4], float scale) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = largest[half];
      for (auto& each : scores) most = fmaxf(most, fmaxf(each[2 * half], each[2 * half + 1]));
      for (int mask = 1; mask < 4; mask *= 2) most = fmaxf(most, exchange_xor(most, mask));
      const float shrink = exp2f((largest[half] - most) * scale);
      largest[half] = most;
      sum[half] *= shrink;
      for (auto& each : out) {
        each[2 * half] *= shrink;
        each[2 * half + 1] *= shrink;
      }
      for (auto& each : scores) {
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          each[i] = exp2f((each[i] - most) * scale);
          sum[half] += each[i];
        }
      }
    }
  }

  /// Adds the values of a tile, weighted: exponentials are as they come the left operand's fragments.
  ENGINE_DEVICE void add_values(const float (&weights)[Tile::kKeys / 8][4], const __half* values) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int key = 0; key < Tile::kKeys; key += 16) {
      const float(&low)[4] = weights[key / 8], (&high)[4] = weights[key / 8 + 1];
      const uint32 a[4] = {to_halves(low[0], low[1]), to_halves(low[2], low[3]), to_halves(high[0], high[1]),
                           to_halves(high[2], high[3])};
#pragma unroll
      for (int channel = 0; channel < kHeadDim; channel += 16) {
        uint32 b[4];
        load_transposed_matrices(b, values + (key + lane % 16) * Tile::kPitch + channel + lane / 16 * 8);
        multiply_tiles(out[channel / 8], a, b[0], b[1]);
        multiply_tiles(out[channel / 8 + 1], a, b[2], b[3]);
      }
    }
  }
};

using CausalArguments = CausalParameters<const __half*, __half*>;

/// A tile of queries (x of the grid), of a head (y), of a sequence (z).
template <int kHeadDim>
ENGINE_DEVICE void attend_causally(const CausalArguments& arguments) {
  using Tile = CausalTile<kHeadDim>;
  // Later queries see more keys: those blocks begin first.
  const int tile = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Tile::kQueries;
  const int tokens = arguments.tokens, q_heads = arguments.q_heads, kv_heads = arguments.kv_heads;
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (q_heads / kv_heads);
  const long long first_token = static_cast<long long>(blockIdx.z) * tokens;
  const long long stride = static_cast<long long>(q_heads + kv_heads) * kHeadDim;
  const __half* own_queries = arguments.rotated + first_token * stride + head * kHeadDim;
  const __half* own_keys = arguments.rotated + first_token * stride + (q_heads + kv_head) * kHeadDim;
  const __half* own_values = arguments.values + first_token * arguments.value_stride + kv_head * kHeadDim;
  __half* queries = dynamic_shared();
  __half* keys = queries + Tile::kQueries * Tile::kPitch;
  __half* loaded_values = keys + Tile::kKeys * Tile::kPitch;

  load_tile<kHeadDim, Tile::kQueries>(queries, own_queries, stride, tile, tokens);
  const int warp_query = static_cast<int>(threadIdx.x) / kWarpSize * 16;
  const int last = min(tile + Tile::kQueries, tokens);
  CausalState<kHeadDim> state;
  for (int key = 0; key < last; key += Tile::kKeys) {
    __syncthreads();  // the tile before has been read
    load_tile<kHeadDim, Tile::kKeys>(keys, own_keys, stride, key, tokens);
    load_tile<kHeadDim, Tile::kKeys>(loaded_values, own_values, arguments.value_stride, key, tokens);
    __syncthreads();
    float scores[Tile::kKeys / 8][4] = {};
    state.multiply_keys(scores, queries + warp_query * Tile::kPitch, keys, tile + warp_query, key);
    state.exponentiate(scores, arguments.scale);
    state.add_values(scores, loaded_values);
  }

  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = state.sum[half];
    for (int mask = 1; mask < 4; mask *= 2) sum += exchange_xor(sum, mask);
    const int token = tile + warp_query + lane / 4 + 8 * half;
    if (token >= tokens) continue;
    __half* row = arguments.out + ((first_token + token) * q_heads + head) * kHeadDim + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kHeadDim / 8; ++i) {
      *reinterpret_cast<uint32*>(row + 8 * i) = to_halves(state.out[i][2 * half] / sum, state.out[i][2 * half + 1] / sum);
    }
  }
}

}  // namespace engine
