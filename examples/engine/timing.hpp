// Times of graphs: medians over replays, of as many launches back to back as take a few milliseconds.
#pragma once

#include <algorithm>
#include <vector>

#include "stream.hpp"

namespace engine {

/// Microseconds.
struct Timing {
  double median = 0, least = 0, most = 0;
};

/// Times of a launch of `graph`, each divided by `parts`.
inline Timing time_graph(const Graph& graph, const Stream& stream, int repeats, int parts) {
  constexpr double wanted = 5000;  // microseconds of a sample: what begins and ends it then does not show
  constexpr int most_launches = 200, warm_up = 3;
  const Event start, end;
  const auto sample = [&](int launches) {
    graph.launch(stream);  // the GPU is busy while the ones to be timed are enqueued
    start.record(stream);
    for (int i = 0; i < launches; ++i) graph.launch(stream);
    end.record(stream);
    end.synchronize();
    return end.microseconds_since(start) / launches;
  };
  double once = 0;
  for (int i = 0; i < warm_up; ++i) once = sample(1);
  const int launches = std::clamp(static_cast<int>(wanted / std::max(once, 1.0)), 1, most_launches);
  std::vector<double> samples;
  for (int i = 0; i < repeats; ++i) samples.push_back(sample(launches) / parts);
  std::sort(samples.begin(), samples.end());
  const std::size_t middle = samples.size() / 2;
  const double median = samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
  return {median, samples.front(), samples.back()};
}

}  // namespace engine
