// The engine's own kernels against double precision, each given its own inputs.
#pragma once

#include <string>
#include <vector>

#include "trace.hpp"

namespace engine {

/// How far a step's results are from exact ones, relative to what rounding may do: 1 and less is right.
struct Deviation {
  std::string step;
  double worst;
};

/// Of the sampled rows of a layer: its norms, RoPE, the activation and, of a prefill, attention. vqcc's kernels are held
/// against float64 by bench/engine_check.py.
std::vector<Deviation> check_layer(const Layers& layers, const Trace& trace);

/// Of the sum that ends the last layer, whose trace `last` is.
Deviation check_output(const Layers& layers, const Halves& residual, const Halves& delta, const Halves& output);

}  // namespace engine
