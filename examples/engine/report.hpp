// What a run found, for people and as JSON.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "options.hpp"
#include "timing.hpp"

namespace engine {

struct Report {
  std::vector<Deviation> deviations;  // of all layers, the worst of each step
  std::optional<Timing> layer;        // of one of the layers, run one after the other
  std::vector<std::pair<std::string, Timing>> steps;

  /// Takes up a deviation, or the larger of two of one step.
  void add(const Deviation& deviation);
  bool is_right() const;
};

/// Prints it to standard output.
void print_report(const Report& report, const Options& options, const Layers& layers);

/// Writes it to `path`. Throws if it cannot.
void write_report(const std::string& path, const Report& report, const Options& options, const Layers& layers);

}  // namespace engine
