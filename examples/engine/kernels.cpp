#include "kernels.hpp"

#include <cmath>

namespace engine {
namespace {

unsigned quotient(std::int64_t value, std::int64_t divisor) {
  return static_cast<unsigned>((value + divisor - 1) / divisor);
}

using CausalArguments = CausalParameters<std::uint64_t, std::uint64_t>;

/// A kernel of causal attention, and the bytes of shared memory that its blocks need.
struct CausalKernel {
  kernels_kernel kernel;
  int shared_bytes;
};

CausalKernel causal_kernel(int head_dim) {
  switch (head_dim) {
    case 64: return {KERNELS_KERNEL_CAUSAL_ATTENTION_64, CausalTile<64>::kSharedBytes};
    case 128: return {KERNELS_KERNEL_CAUSAL_ATTENTION_128, CausalTile<128>::kSharedBytes};
    case 256: return {KERNELS_KERNEL_CAUSAL_ATTENTION_256, CausalTile<256>::kSharedBytes};
    default: throw std::runtime_error("prefill has no attention for heads of " + std::to_string(head_dim) + " channels");
  }
}

}  // namespace

Kernels::Kernels(const vqcc_driver& driver, bool overlap) {
  const kernels_status status = kernels_load_embedded(&handle_, &driver);
  if (status != KERNELS_OK) throw std::runtime_error(std::string("the engine's kernels: ") + kernels_status_string(status));
  int device = 0, major = 0;
  overlap_ = overlap && driver.launch_kernel_ex != nullptr && driver.context_get_device(&device) == 0 &&
             driver.device_get_attribute(&major, 75 /* ..._COMPUTE_CAPABILITY_MAJOR */, device) == 0 && major >= 9;
  for (const int head_dim : {64, 128, 256}) {
    constexpr int max_dynamic_shared_size_bytes = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    const CausalKernel causal = causal_kernel(head_dim);
    if (driver.function_set_attribute(handle_.functions[causal.kernel], max_dynamic_shared_size_bytes,
                                      causal.shared_bytes) != 0) {
      kernels_unload(&handle_);
      throw std::runtime_error("the engine's kernels: the driver refused their shared memory");
    }
  }
}

template <class... Arguments>
void Kernels::launch(kernels_kernel kernel, const Shape& shape, void* stream, Arguments... arguments) const {
  void* parameters[] = {&arguments...};
  void* function = handle_.functions[kernel];
  int result = 0;
  if (overlap_) {
    vqcc_launch_attribute attribute = {6, 0, {{0}}};  // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.allowed = 1;
    const vqcc_launch_config config = {shape.x, shape.y,   shape.z,    shape.threads, 1, 1, shape.shared_bytes,
                                       stream,  &attribute, 1};
    result = handle_.driver.launch_kernel_ex(&config, function, parameters, nullptr);
  } else {
    result = handle_.driver.launch_kernel(function, shape.x, shape.y, shape.z, shape.threads, 1, 1, shape.shared_bytes,
                                          stream, parameters, nullptr);
  }
  if (result != 0) {
    throw std::runtime_error("the driver refused a launch of the engine's kernels: CUDA error " + std::to_string(result));
  }
}

void Kernels::add_rms_norm(std::uint64_t x, std::uint64_t delta, std::uint64_t weight, std::uint64_t sum,
                           std::uint64_t normed, int tokens, int hidden, float epsilon, void* stream) const {
  constexpr unsigned threads = kNormThreads;
  const Shape shape = {static_cast<unsigned>(tokens), 1, 1, threads, threads / 32 * sizeof(float)};
  launch(KERNELS_KERNEL_ADD_RMS_NORM, shape, stream, x, delta, weight, sum, normed, hidden, epsilon);
}

void Kernels::rotate(std::uint64_t rows, std::int64_t stride, std::uint64_t out, std::uint64_t turn_steps,
                     std::uint64_t lengths, int tokens, int new_tokens, int heads, int head_dim, bool interleaved,
                     void* stream) const {
  constexpr unsigned threads = kRotateThreads;
  const std::int64_t items = static_cast<std::int64_t>(heads) * head_dim / kRotateElements;
  const Shape shape = {quotient(items, threads), static_cast<unsigned>(tokens), 1, threads, 0};
  const int by_neighbours = interleaved ? 1 : 0;
  launch(KERNELS_KERNEL_ROTATE_HEADS, shape, stream, rows, out, turn_steps, lengths, stride, heads, head_dim, new_tokens,
         by_neighbours);
}

void Kernels::gated_silu(std::uint64_t gate_up, std::uint64_t out, int tokens, int width, void* stream) const {
  constexpr unsigned threads = kGateThreads;
  const Shape shape = {quotient(width / 8, threads), static_cast<unsigned>(tokens), 1, threads, 0};
  launch(KERNELS_KERNEL_GATED_SILU, shape, stream, gate_up, out, width);
}

void Kernels::attend(std::uint64_t rotated, std::uint64_t values, std::int64_t value_stride, std::uint64_t out,
                     int sequences, int tokens, int query_heads, int key_heads, int head_dim, void* stream) const {
  const double log2_e = 1.4426950408889634;
  const auto scale = static_cast<float>(log2_e / std::sqrt(static_cast<double>(head_dim)));
  const CausalArguments arguments = {rotated, values, out, value_stride, tokens, query_heads, key_heads, scale};
  const CausalKernel causal = causal_kernel(head_dim);
  const Shape shape = {quotient(tokens, AnyCausalTile::kQueries), static_cast<unsigned>(query_heads),
                       static_cast<unsigned>(sequences), AnyCausalTile::kThreads,
                       static_cast<unsigned>(causal.shared_bytes)};
  launch(causal.kernel, shape, stream, arguments);
}

}  // namespace engine
