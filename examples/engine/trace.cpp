#include "trace.hpp"

namespace engine {
namespace {

Trace downloaded(const Activations& a, int layer, Halves residual, Halves delta) {
  Trace trace;
  trace.layer = layer;
  trace.residual = std::move(residual);
  trace.delta = std::move(delta);
  // The first layer's norm has nothing to add: its sum is the input.
  trace.attention_sum = trace.delta.empty() ? trace.residual : a.attention_sum.download<std::uint16_t>();
  trace.attention_normed = a.attention_normed.download<std::uint16_t>();
  trace.qkv = a.qkv.download<std::uint16_t>();
  trace.rotated = a.rotated.download<std::uint16_t>();
  trace.attended = a.attended.download<std::uint16_t>();
  trace.projected = a.projected.download<std::uint16_t>();
  trace.mlp_sum = a.mlp_sum.download<std::uint16_t>();
  trace.mlp_normed = a.mlp_normed.download<std::uint16_t>();
  trace.gate_up = a.gate_up.download<std::uint16_t>();
  trace.activated = a.activated.download<std::uint16_t>();
  trace.down = a.down.download<std::uint16_t>();
  return trace;
}

}  // namespace

CacheTrace trace_cache(const LayerCache& cache) {
  return {cache.pages.download<std::uint8_t>(), cache.key_window.download<std::uint8_t>(),
          cache.value_window.download<std::uint8_t>()};
}

Halves trace_layers(const Layers& layers, const Stream& stream, bool with_caches,
                    const std::function<void(const Trace&, const CacheTrace&)>& each) {
  Halves residual = layers.activations().input.download<std::uint16_t>(), delta;
  for (int layer = 0; layer < layers.count(); ++layer) {
    const CacheTrace before = with_caches ? trace_cache(layers.cache(layer)) : CacheTrace{};
    layers.enqueue_layer(layer, stream.get());
    stream.synchronize();
    Trace trace = downloaded(layers.activations(), layer, std::move(residual), std::move(delta));
    each(trace, before);
    residual = std::move(trace.mlp_sum);
    delta = std::move(trace.down);
  }
  layers.enqueue_output(stream.get());
  stream.synchronize();
  return layers.activations().output.download<std::uint16_t>();
}

}  // namespace engine
