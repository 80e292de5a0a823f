// The engine's own kernels (kernels.cu), loaded and launched.
#pragma once

#include <cstdint>

#include "kernels.embedded.h"
#include "launch.hpp"
#include "stream.hpp"

namespace engine {

/// Functions that enqueue a kernel on `stream`; addresses are of float16 on the device.
class Kernels {
 public:
  /// With `overlap`, on GPUs that can, kernels may start while those before them end.
  Kernels(const vqcc_driver& driver, bool overlap);
  ~Kernels() { kernels_unload(&handle_); }
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  /// sum = x + delta and normed = its RMSNorm; without `delta` (0) normed is x's, without `normed` there is the sum alone.
  void add_rms_norm(std::uint64_t x, std::uint64_t delta, std::uint64_t weight, std::uint64_t sum, std::uint64_t normed,
                    int tokens, int hidden, float epsilon, void* stream) const;

  /// Rotates the first `heads` heads of rows of `stride` elements by their tokens' positions.
  void rotate(std::uint64_t rows, std::int64_t stride, std::uint64_t out, std::uint64_t turn_steps, std::uint64_t lengths,
              int tokens, int new_tokens, int heads, int head_dim, bool interleaved, void* stream) const;

  void gated_silu(std::uint64_t gate_up, std::uint64_t out, int tokens, int width, void* stream) const;

  /// Causal attention of all tokens of `sequences`, over rows of queries and keys, and values `value_stride` apart.
  void attend(std::uint64_t rotated, std::uint64_t values, std::int64_t value_stride, std::uint64_t out, int sequences,
              int tokens, int query_heads, int key_heads, int head_dim, void* stream) const;

  /// The most elements of a row that add_rms_norm takes; its rows are multiples of 8.
  static constexpr int kMostHidden = 8 * kNormVectors * kNormThreads;

 private:
  struct Shape {
    unsigned x, y, z, threads, shared_bytes;
  };
  template <class... Arguments>
  void launch(kernels_kernel kernel, const Shape& shape, void* stream, Arguments... arguments) const;

  kernels_handle handle_ = {};
  bool overlap_ = false;
};

}  // namespace engine
