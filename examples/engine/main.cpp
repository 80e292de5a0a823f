// Decoder layers over vqcc's kernels: checked, dumped for others to check, and timed.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "dump.hpp"
#include "layer.hpp"
#include "options.hpp"
#include "report.hpp"
#include "timing.hpp"

namespace {

using namespace engine;

/// Weights and caches of all layers take more than this, so that the GPU's second-level cache serves none of them again.
constexpr std::size_t kDefaultBytes = std::size_t{1} << 30;
constexpr int kMostDefaultLayers = 128;
/// Part of the free memory that layers may take.
constexpr double kFreeShare = 0.9;

int layers_of(const Options& options, const CacheTable& table) {
  std::size_t free_bytes = 0, all_bytes = 0;
  Driver::get().call("cuMemGetInfo_v2", &free_bytes, &all_bytes);
  const std::size_t each = layer_bytes(table);
  const auto most = static_cast<std::size_t>(kFreeShare * static_cast<double>(free_bytes)) / each;
  auto wanted = static_cast<std::size_t>(options.layers);
  if (options.layers == 0) {
    wanted = std::min<std::size_t>(kMostDefaultLayers, kDefaultBytes / each + 1);
    wanted = std::min(wanted, std::max<std::size_t>(most, 1));
  }
  if (wanted > most) {
    throw std::runtime_error(std::to_string(wanted) + " layers of " + std::to_string(each >> 20) + " MiB do not fit " +
                             std::to_string(free_bytes >> 20) + " MiB of free memory: take fewer --layers, a smaller --batch " +
                             "or --context");
  }
  return static_cast<int>(wanted);
}

/// Throws where a file could not be written at the end, after all the work.
void require_directory_of(const std::string& path) {
  if (!std::filesystem::is_directory(std::filesystem::absolute(path).parent_path())) {
    throw std::runtime_error("cannot write " + path + ": there is no such directory");
  }
}

/// Runs all layers once, step by step, and looks at what each step made.
void trace(const Layers& layers, const Stream& stream, const Options& options, Report& report) {
  Halves residual, delta;
  const bool dumped = !options.dump.empty();
  const Halves output = trace_layers(layers, stream, dumped, [&](const Trace& each, const CacheTrace& before) {
    if (options.check) {
      for (const Deviation& found : check_layer(layers, each)) report.add(found);
    }
    if (dumped) dump_layer(options.dump, layers, each, before);
    residual = each.mlp_sum;
    delta = each.down;
  });
  if (options.check) report.add(check_output(layers, residual, delta, output));
  if (dumped) dump_output(options.dump, layers, output);
}

/// Runs all layers as one graph, and times that if it is wanted.
void run_graph(const Layers& layers, const Stream& stream, const Options& options, Report& report) {
  const Graph all(stream, [&](void* capturing) {
    for (int layer = 0; layer < layers.count(); ++layer) layers.enqueue_layer(layer, capturing);
    layers.enqueue_output(capturing);
  });
  if (!options.timing) {
    all.launch(stream);
    stream.synchronize();
    return;
  }
  report.layer = time_graph(all, stream, options.repeats, layers.count());
  if (!options.breakdown) return;
  for (const Step step : kSteps) {
    const Graph alone(stream, [&](void* capturing) {
      for (int layer = 0; layer < layers.count(); ++layer) layers.enqueue(step, layer, capturing);
    });
    report.steps.emplace_back(name_of(step), time_graph(alone, stream, std::max(3, options.repeats / 4), layers.count()));
  }
}

int run(const Options& options) {
  // Mistakes that need no GPU to be found come first.
  (void)LayerShape::of_model();
  if (options.prefill > 0 && attention::kSlidingWindow != 0) {
    throw std::runtime_error("the engine's own attention, of a prefill, knows no sliding window, and the model has one");
  }
  auto books = options.books.empty() ? nullptr : file_books(options.books);
  const auto source = options.weights.empty() ? random_weights(std::move(books)) : file_weights(options.weights);
  if (!options.dump.empty()) std::filesystem::create_directories(options.dump);
  if (!options.json.empty()) require_directory_of(options.json);

  const example::Context context;
  const vqcc_driver driver = example::vqcc_functions();
  const Model model(driver, options.overlap);
  const Kernels kernels(driver, options.overlap);
  const Run shape = {options.batch, options.new_tokens(), options.prefill > 0, options.rope_base};

  CacheTable table(options.batch, options.context);
  const int count = layers_of(options, table);
  std::vector<LayerWeights> weights;
  std::vector<LayerCache> caches;
  for (int layer = 0; layer < count; ++layer) {
    weights.push_back(source->load(layer));
    caches.emplace_back(table);
  }
  const Stream stream;
  Layers layers(model, kernels, shape, std::move(weights), std::move(caches), table);
  layers.fill(options.context - options.new_tokens(), stream);

  Report report;
  // Also without a check: a kernel that fails does so by its name here, not in a graph.
  trace(layers, stream, options, report);
  run_graph(layers, stream, options, report);
  print_report(report, options, layers);
  if (!options.json.empty()) write_report(options.json, report, options, layers);
  return report.is_right() ? 0 : 1;
}

}  // namespace

int main(int count, char** words) try {
  const Options options = parse_options(count, words);
  if (options.help) {
    (void)std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  return run(options);
} catch (const std::exception& error) {
  (void)std::fprintf(stderr, "engine: %s\n", error.what());
  return 2;
}
