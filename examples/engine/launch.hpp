// What kernels.cu and the host that launches it (kernels.cpp) must agree on: threads, shared memory, parameters. Both include
// it, so it has no header of the standard library, which device code lacks.
#pragma once

namespace engine {

constexpr int kNormThreads = 512, kRotateThreads = 128, kGateThreads = 256;
/// Vectors of eight elements that a thread of add_rms_norm keeps.
constexpr int kNormVectors = 4;
/// Elements that a thread of rotate_heads takes.
constexpr int kRotateElements = 16;

/// Each of four warps has 16 queries; keys and values of a tile are shared by all. Rows are padded by 16 bytes, so that the
/// eight rows that ldmatrix reads at once lie in different banks.
struct AnyCausalTile {
  static constexpr int kThreads = 128, kQueries = 64;
};
template <int kHeadDim>
struct CausalTile : AnyCausalTile {
  static constexpr int kKeys = kHeadDim == 256 ? 32 : 64;  // scores and outputs of wide heads share the registers
  static constexpr int kPitch = kHeadDim + 8;
  static constexpr int kSharedBytes = (kQueries + 2 * kKeys) * kPitch * 2;
};

/// Attention of all tokens of sequences of `tokens`: `rotated` has a row of queries and keys for each token, `values` rows that
/// are `value_stride` elements apart, `out` is [sequences * tokens, q_heads, head_dim]. `scale` is the softmax's times log2(e).
/// Addresses are pointers to float16 on the device, and numbers on the host.
template <class Input, class Output>
struct CausalParameters {
  static_assert(sizeof(Input) == 8 && sizeof(Output) == 8, "the device's addresses have 64 bits");
  Input rotated;
  Input values;
  Output out;
  long long value_stride;
  int tokens, q_heads, kv_heads;
  float scale;
};

}  // namespace engine
