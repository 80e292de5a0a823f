// What each step of a layer left, copied to the host.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "layer.hpp"

namespace engine {

using Halves = std::vector<std::uint16_t>;

/// A layer's inputs, the residual and what is to be added to it (empty for the first layer), and what its steps made.
struct Trace {
  int layer = 0;
  Halves residual, delta;
  Halves attention_sum, attention_normed, qkv, rotated, attended, projected, mlp_sum, mlp_normed, gate_up, activated, down;
};

/// A layer's cache, of which `pages` are all pages.
struct CacheTrace {
  std::vector<std::uint8_t> pages, key_window, value_window;
};

CacheTrace trace_cache(const LayerCache& cache);

/// Runs the layers once, one after the other, and hands over each one's trace, with the cache as it was before.
/// Returns the output of all.
Halves trace_layers(const Layers& layers, const Stream& stream, bool with_caches,
                    const std::function<void(const Trace&, const CacheTrace&)>& each);

}  // namespace engine
