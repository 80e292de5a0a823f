// Inputs drawn reproducibly: equal seeds give equal bits on every machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "half.hpp"

namespace engine {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  /// SplitMix64: 64 bits, a step of the state each.
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  /// As good as normally distributed for inputs: the sum of four uniform numbers, of mean 0 and variance 1.
  double normal() {
    const std::uint64_t word = bits();
    double sum = -2.0;
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(word >> 16 * i & 0xffff) / 65536.0;
    return sum * std::sqrt(3.0);
  }

  /// Each one of 4096 drawn values: rounding as many as weights have would take longer than all else here.
  std::vector<std::uint16_t> halves(std::size_t count, double deviation, double mean = 0.0) {
    std::vector<std::uint16_t> values(4096), drawn(count);
    for (auto& each : values) each = example::to_half(mean + deviation * normal());
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < count; ++i) {
      word = i % 5 == 0 ? bits() : word >> 12;
      drawn[i] = values[word & 4095];
    }
    return drawn;
  }

  /// Bytes as they come, a multiple of 8 rounded up to.
  std::vector<std::uint64_t> words(std::size_t bytes) {
    std::vector<std::uint64_t> drawn((bytes + 7) / 8);
    for (auto& each : drawn) each = bits();
    return drawn;
  }

 private:
  std::uint64_t state_;
};

}  // namespace engine
