// What a decoder layer needs beside vqcc's kernels, in float16 with sums in float32: residual add with RMSNorm, RoPE, the
// gated activation, and causal attention over keys and values that are not quantized, for prefill.
//
//   vqcc cubin examples/engine/kernels.cu --gpu h200 --emit object -o DIR
//
// Kernels overlap (programmatic dependent launch): each lets the next one be launched at once, loads what no kernel writes
// (weights, tables), then waits for the kernels before it. See ptx.cuh for why one wait is enough.
#include "attend.cuh"
#include "launch.hpp"
#include "ptx.cuh"

using namespace engine;

/// The sum over the block's threads, for each of them, by a float of dynamic shared memory for each warp.
ENGINE_DEVICE float block_sum(float value) {
  auto* of_warps = reinterpret_cast<float*>(dynamic_shared());
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += exchange_xor(value, mask);
  if (threadIdx.x % kWarpSize == 0) of_warps[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int warp = 0; warp < kNormThreads / kWarpSize; ++warp) sum += of_warps[warp];
  return sum;
}

/// A block for a token: sum = x + delta, rounded to float16, and normed = sum / rms(sum) * weight. Without `delta` the sum is
/// x and is not written, without `normed` there is only the sum. Rows of `hidden` elements, a multiple of 8, follow another.
extern "C" __global__ void __launch_bounds__(kNormThreads)
    add_rms_norm(const __half* x, const __half* delta, const __half* weight, __half* sum, __half* normed, int hidden,
                 float epsilon) {
  allow_next_kernel();
  const int vectors = hidden / 8;
  uint4 scale[kNormVectors];
#pragma unroll
  for (int i = 0; i < kNormVectors; ++i) {
    const int vector = static_cast<int>(threadIdx.x) + i * kNormThreads;
    if (normed != nullptr && vector < vectors) scale[i] = load(reinterpret_cast<const uint4*>(weight) + vector);
  }
  wait_for_previous_kernels();

  const long long row = static_cast<long long>(blockIdx.x) * vectors;
  uint4 held[kNormVectors];
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kNormVectors; ++i) {
    const int vector = static_cast<int>(threadIdx.x) + i * kNormThreads;
    if (vector >= vectors) continue;
    held[i] = load(reinterpret_cast<const uint4*>(x) + row + vector);
    if (delta != nullptr) {
      Eight both = unpack(held[i]);
      const Eight more = unpack(load(reinterpret_cast<const uint4*>(delta) + row + vector));
      for (int j = 0; j < 8; ++j) both.values[j] += more.values[j];
      held[i] = pack(both);
      store(reinterpret_cast<uint4*>(sum) + row + vector, held[i]);
    }
    for (const float each : unpack(held[i]).values) squares += each * each;
  }
  if (normed == nullptr) return;
  const float inverse = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(hidden) + epsilon);
#pragma unroll
  for (int i = 0; i < kNormVectors; ++i) {
    const int vector = static_cast<int>(threadIdx.x) + i * kNormThreads;
    if (vector >= vectors) continue;
    Eight out = unpack(held[i]);
    const Eight factor = unpack(scale[i]);
    for (int j = 0; j < 8; ++j) out.values[j] *= inverse * factor.values[j];
    store(reinterpret_cast<uint4*>(normed) + row + vector, pack(out));
  }
}

/// Rotates the first `heads` heads of each token by its position: those of queries, and of keys where these come next. A block
/// row of the grid is a token, a thread takes 16 channels of a head. Pairs are channels i and i + head_dim / 2, or 2i and
/// 2i + 1 if `interleaved`. The tokens are the last `new_tokens` ones of their sequences, whose lengths count them.
/// `turn_steps` has for each pair what it turns from one position to the next, in 2^-64 of a turn: exact at any position.
extern "C" __global__ void __launch_bounds__(kRotateThreads)
    rotate_heads(const __half* in, __half* out, const uint64* turn_steps, const int* lengths, long long in_stride, int heads,
                 int head_dim, int new_tokens, int interleaved) {
  allow_next_kernel();
  const int per_head = head_dim / kRotateElements;
  const int item = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const bool inside = item < heads * per_head;
  const int place = item % per_head;
  uint64 steps[8] = {};
  if (inside) {
    for (int j = 0; j < 8; ++j) steps[j] = turn_steps[8 * place + j];
  }
  wait_for_previous_kernels();
  if (!inside) return;

  const int token = static_cast<int>(blockIdx.y);
  const int position = lengths[token / new_tokens] - new_tokens + token % new_tokens;
  const int first = item / per_head * head_dim + (interleaved ? 16 : 8) * place;
  const int second = first + (interleaved ? 8 : head_dim / 2);
  const __half* row = in + token * in_stride;
  const Eight a = unpack(load(reinterpret_cast<const uint4*>(row + first)));
  const Eight b = unpack(load(reinterpret_cast<const uint4*>(row + second)));
  Eight rotated_a, rotated_b;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const uint64 turn = steps[j] * static_cast<uint64>(static_cast<long long>(position));
    const float2 angle = cosine_and_sine(static_cast<float>(static_cast<int>(turn >> 32)) * 0x1p-31f);
    // Pair j: in place j of both vectors, or 2j and 2j + 1 of the two as one.
    const float x = interleaved ? (j < 4 ? a.values[2 * j % 8] : b.values[2 * j % 8]) : a.values[j];
    const float y = interleaved ? (j < 4 ? a.values[(2 * j + 1) % 8] : b.values[(2 * j + 1) % 8]) : b.values[j];
    const float turned_x = x * angle.x - y * angle.y, turned_y = x * angle.y + y * angle.x;
    if (!interleaved) {
      rotated_a.values[j] = turned_x;
      rotated_b.values[j] = turned_y;
    } else if (j < 4) {
      rotated_a.values[2 * j % 8] = turned_x;
      rotated_a.values[(2 * j + 1) % 8] = turned_y;
    } else {
      rotated_b.values[2 * j % 8] = turned_x;
      rotated_b.values[(2 * j + 1) % 8] = turned_y;
    }
  }
  __half* to = out + static_cast<long long>(token) * heads * head_dim;
  store(reinterpret_cast<uint4*>(to + first), pack(rotated_a));
  store(reinterpret_cast<uint4*>(to + second), pack(rotated_b));
}

/// out = silu(gate) * up of rows [gate | up], `width` elements each, a multiple of 8. A block row of the grid is a token.
extern "C" __global__ void __launch_bounds__(kGateThreads) gated_silu(const __half* gate_up, __half* out, int width) {
  allow_next_kernel();
  wait_for_previous_kernels();
  const int vector = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), vectors = width / 8;
  if (vector >= vectors) return;
  const uint4* row = reinterpret_cast<const uint4*>(gate_up) + 2LL * blockIdx.y * vectors;
  const Eight gate = unpack(load(row + vector)), up = unpack(load(row + vectors + vector));
  Eight result;
  for (int j = 0; j < 8; ++j) result.values[j] = gate.values[j] / (1.0f + expf(-gate.values[j])) * up.values[j];
  store(reinterpret_cast<uint4*>(out) + static_cast<long long>(blockIdx.y) * vectors + vector, pack(result));
}

/// Causal attention (attend.cuh): a block for a tile of queries, a head, a sequence.
ENGINE_DEVICE void allow_and_wait() {
  allow_next_kernel();
  wait_for_previous_kernels();
}
extern "C" __global__ void __launch_bounds__(AnyCausalTile::kThreads) causal_attention_64(CausalArguments arguments) {
  allow_and_wait();
  attend_causally<64>(arguments);
}
extern "C" __global__ void __launch_bounds__(AnyCausalTile::kThreads) causal_attention_128(CausalArguments arguments) {
  allow_and_wait();
  attend_causally<128>(arguments);
}
extern "C" __global__ void __launch_bounds__(AnyCausalTile::kThreads) causal_attention_256(CausalArguments arguments) {
  allow_and_wait();
  attend_causally<256>(arguments);
}
