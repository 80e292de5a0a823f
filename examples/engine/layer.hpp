// Decoder layers, one after the other: the steps of each, and what they work on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache.hpp"
#include "kernels.hpp"
#include "model.hpp"
#include "weights.hpp"

namespace engine {

inline constexpr float kEpsilon = 1e-5f;  // of RMSNorm

/// The steps of a layer, each one kernel. `kAttentionNorm` also adds what the layer before left to add.
enum class Step { kAttentionNorm, kQkv, kRotate, kAppend, kAttention, kO, kMlpNorm, kGateUp, kActivation, kDown };
inline constexpr Step kSteps[] = {Step::kAttentionNorm, Step::kQkv,     Step::kRotate, Step::kAppend,     Step::kAttention,
                                  Step::kO,             Step::kMlpNorm, Step::kGateUp, Step::kActivation, Step::kDown};
const char* name_of(Step step);

/// Sizes of a layer, from the model's headers. Throws where its libraries do not make one.
struct LayerShape {
  int hidden, intermediate, query_width, key_width, qkv_width;

  static LayerShape of_model();
};

/// What a run is: `new_tokens` of each of `batch` sequences, attended to by the engine itself if it is a prefill.
struct Run {
  int batch, new_tokens;
  bool prefill;
  double rope_base;  // of a cache that stores rotated keys

  int rows() const { return batch * new_tokens; }
};

/// Activations, which all layers share, as kernels of a stream follow one another. Rows are tokens, float16.
struct Activations {
  Activations(const LayerShape& shape, const Run& run, int rotated_width);

  /// `input` is the first layer's; the residual is `attention_sum` after the norm before attention, then `mlp_sum`.
  Buffer input, attention_sum, attention_normed, qkv, rotated, attended, projected;
  Buffer mlp_sum, mlp_normed, gate_up, activated, down, output;
};

/// The kernels of layers, enqueued on one stream. All that kernels write is theirs in the order of that stream, also where they
/// overlap: each waits for those before it before it reads an activation, or writes anything (ptx.cuh; the headers say the same
/// of vqcc's kernels). Workspaces are one for each linear layer, and one for attention, for the same reason.
class Layers {
 public:
  Layers(const Model& model, const Kernels& kernels, const Run& run, std::vector<LayerWeights> weights,
         std::vector<LayerCache> caches, CacheTable& table);

  /// One step of layer `layer`.
  void enqueue(Step step, int layer, void* stream) const;
  /// All steps of it.
  void enqueue_layer(int layer, void* stream) const;
  /// What the last layer left to add.
  void enqueue_output(void* stream) const;

  /// Fills every cache with `tokens` drawn tokens, by the kernel that appends; the first cache is copied to the others.
  void fill(int tokens, const Stream& stream);

  int count() const { return static_cast<int>(weights_.size()); }
  const LayerShape& shape() const { return shape_; }
  const Run& run() const { return run_; }
  const Activations& activations() const { return activations_; }
  const LayerWeights& weights(int layer) const { return weights_[static_cast<std::size_t>(layer)]; }
  const LayerCache& cache(int layer) const { return caches_[static_cast<std::size_t>(layer)]; }
  const CacheTable& table() const { return table_; }
  int rotated_heads() const;
  /// Radians between positions of each pair of channels.
  const std::vector<double>& frequencies() const { return frequencies_; }

 private:
  void multiply(Linear which, int layer, const Buffer& x, const Buffer& y, void* stream) const;
  void attend(int layer, void* stream) const;
  void append(int layer, void* stream) const;
  BookArrays books_of(int layer) const;
  CacheArrays cache_of(int layer) const;

  const Model& model_;
  const Kernels& kernels_;
  LayerShape shape_;
  Run run_;
  std::vector<LayerWeights> weights_;
  std::vector<LayerCache> caches_;
  CacheTable& table_;
  std::vector<double> frequencies_;
  Activations activations_;
  Buffer turn_steps_;
  Buffer workspaces_[4], attention_workspace_;
};

/// Bytes that a layer of this run takes on the device beside the activations: weights as the headers have them, and its cache.
std::size_t layer_bytes(const CacheTable& table);

/// Bytes that a layer reads at least: its weights, its codebooks, and the cache where it attends over it.
std::size_t bytes_read(const Layers& layers, int context);

}  // namespace engine
