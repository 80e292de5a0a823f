#include "check.hpp"

#include <algorithm>
#include <cmath>

#include "half.hpp"

namespace engine {
namespace {

using example::from_half;

/// Rounding to float16, half a unit in the last of 11 bits, and what sums in float32 lose.
constexpr double kRounding = 0x1p-11 + 0x1p-18;
/// Half of the least float16, below which steps are no smaller.
constexpr double kLeast = 0x1p-24;
constexpr int kSampledRows = 16;

/// The largest quotient of an error and its bound so far; one that is no number counts as infinitely wrong.
struct Worst {
  double value = 0;

  /// `exact` should have been rounded to `got`; before that it may have been off by `error`.
  void add(std::uint16_t got, double exact, double error) {
    const double bound = std::fabs(exact) * kRounding + error + kLeast;
    const double quotient = std::fabs(from_half(got) - exact) / bound;
    value = quotient <= value ? value : std::isnan(quotient) ? HUGE_VAL : quotient;
  }
};

/// Rows from the first to the last, evenly.
std::vector<int> sampled(int rows) {
  std::vector<int> chosen;
  const int count = std::min(rows, kSampledRows);
  for (int i = 0; i < count; ++i) {
    chosen.push_back(count == 1 ? 0 : static_cast<int>(static_cast<long long>(i) * (rows - 1) / (count - 1)));
  }
  return chosen;
}

const std::uint16_t* row_of(const Halves& halves, int row, int width) {
  return halves.data() + static_cast<std::size_t>(row) * static_cast<std::size_t>(width);
}

Worst check_sum(const Halves& a, const Halves& b, const Halves& sum, int rows, int width) {
  Worst worst;
  for (const int row : sampled(rows)) {
    for (int i = 0; i < width; ++i) {
      worst.add(row_of(sum, row, width)[i], from_half(row_of(a, row, width)[i]) + from_half(row_of(b, row, width)[i]), 0);
    }
  }
  return worst;
}

Worst check_norm(const Halves& x, const Halves& weight, const Halves& normed, int rows, int width) {
  Worst worst;
  for (const int row : sampled(rows)) {
    const std::uint16_t* own = row_of(x, row, width);
    double squares = 0;
    for (int i = 0; i < width; ++i) squares += from_half(own[i]) * from_half(own[i]);
    const double inverse = 1 / std::sqrt(squares / width + static_cast<double>(kEpsilon));
    for (int i = 0; i < width; ++i) {
      worst.add(row_of(normed, row, width)[i], from_half(own[i]) * inverse * from_half(weight[static_cast<std::size_t>(i)]), 0);
    }
  }
  return worst;
}

Worst check_rotation(const Layers& layers, const Trace& trace) {
  Worst worst;
  constexpr int channels = attention::kHeadDim, pairs = channels / 2;
  const int new_tokens = layers.run().new_tokens, heads = layers.rotated_heads();
  for (const int row : sampled(layers.run().rows())) {
    const int length = layers.table().lengths()[static_cast<std::size_t>(row / new_tokens)];
    const int position = length - new_tokens + row % new_tokens;
    for (int head = 0; head < heads; ++head) {
      const std::uint16_t* from = row_of(trace.qkv, row, layers.shape().qkv_width) + head * channels;
      const std::uint16_t* to = row_of(trace.rotated, row, heads * channels) + head * channels;
      for (int pair = 0; pair < pairs; ++pair) {
        const int first = attention::kRope == 2 ? 2 * pair : pair, second = attention::kRope == 2 ? first + 1 : pair + pairs;
        const double angle = position * layers.frequencies()[static_cast<std::size_t>(pair)];
        const double x = from_half(from[first]), y = from_half(from[second]);
        const double error = 0x1p-20 * (std::fabs(x) + std::fabs(y));
        worst.add(to[first], x * std::cos(angle) - y * std::sin(angle), error);
        worst.add(to[second], x * std::sin(angle) + y * std::cos(angle), error);
      }
    }
  }
  return worst;
}

Worst check_activation(const Layers& layers, const Trace& trace) {
  Worst worst;
  const int width = layers.shape().intermediate;
  for (const int row : sampled(layers.run().rows())) {
    const std::uint16_t* gate_up = row_of(trace.gate_up, row, 2 * width);
    for (int i = 0; i < width; ++i) {
      const double gate = from_half(gate_up[i]), exact = gate / (1 + std::exp(-gate)) * from_half(gate_up[width + i]);
      worst.add(row_of(trace.activated, row, width)[i], exact, 0x1p-20 * std::fabs(exact));
    }
  }
  return worst;
}

/// One query's attention: outputs, and weighted sums of the values' magnitudes, which bound what rounded weights do.
void attend(const Layers& layers, const Trace& trace, int row, int head, std::vector<double>& out,
            std::vector<double>& magnitudes) {
  constexpr int channels = attention::kHeadDim;
  const int tokens = layers.run().new_tokens, begin = row / tokens * tokens;
  const int rotated_width = layers.rotated_heads() * channels;
  const int key_head = head / (attention::kQueryHeads / attention::kKeyHeads);
  const std::uint16_t* query = row_of(trace.rotated, row, rotated_width) + head * channels;
  std::vector<double> weights;
  for (int other = begin; other <= row; ++other) {
    const std::uint16_t* key = row_of(trace.rotated, other, rotated_width) + (attention::kQueryHeads + key_head) * channels;
    double score = 0;
    for (int i = 0; i < channels; ++i) score += from_half(query[i]) * from_half(key[i]);
    weights.push_back(score / std::sqrt(static_cast<double>(channels)));
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  out.assign(channels, 0);
  magnitudes.assign(channels, 0);
  for (int other = begin; other <= row; ++other) {
    const std::uint16_t* value = row_of(trace.qkv, other, layers.shape().qkv_width) + layers.shape().query_width +
                                 layers.shape().key_width + key_head * channels;
    const double weight = weights[static_cast<std::size_t>(other - begin)] / sum;
    for (int i = 0; i < channels; ++i) {
      out[static_cast<std::size_t>(i)] += weight * from_half(value[i]);
      magnitudes[static_cast<std::size_t>(i)] += weight * std::fabs(from_half(value[i]));
    }
  }
}

Worst check_attention(const Layers& layers, const Trace& trace) {
  Worst worst;
  std::vector<double> out, magnitudes;
  for (const int row : sampled(layers.run().rows())) {
    for (int head = 0; head < attention::kQueryHeads; ++head) {
      attend(layers, trace, row, head, out, magnitudes);
      const std::uint16_t* got = row_of(trace.attended, row, layers.shape().query_width) + head * attention::kHeadDim;
      for (std::size_t i = 0; i < out.size(); ++i) worst.add(got[i], out[i], 0x1p-10 * magnitudes[i]);
    }
  }
  return worst;
}

}  // namespace

std::vector<Deviation> check_layer(const Layers& layers, const Trace& trace) {
  const int rows = layers.run().rows(), hidden = layers.shape().hidden;
  const LayerWeights& weights = layers.weights(trace.layer);
  std::vector<Deviation> found;
  const auto add = [&](const char* step, const Worst& worst) { found.push_back({step, worst.value}); };
  if (!trace.delta.empty()) add("attention_sum", check_sum(trace.residual, trace.delta, trace.attention_sum, rows, hidden));
  add("attention_norm", check_norm(trace.attention_sum, weights.attention_norm.download<std::uint16_t>(),
                                   trace.attention_normed, rows, hidden));
  add("rotate", check_rotation(layers, trace));
  if (layers.run().prefill) add("attention", check_attention(layers, trace));
  add("mlp_sum", check_sum(trace.attention_sum, trace.projected, trace.mlp_sum, rows, hidden));
  add("mlp_norm", check_norm(trace.mlp_sum, weights.mlp_norm.download<std::uint16_t>(), trace.mlp_normed, rows, hidden));
  add("activation", check_activation(layers, trace));
  return found;
}

Deviation check_output(const Layers& layers, const Halves& residual, const Halves& delta, const Halves& output) {
  return {"output", check_sum(residual, delta, output, layers.run().rows(), layers.shape().hidden).value};
}

}  // namespace engine
