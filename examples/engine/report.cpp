#include "report.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

namespace engine {
namespace {

std::string number(double value) {
  char text[32];
  (void)std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string timing_json(const Timing& timing) {
  return "{\"us\": " + number(timing.median) + ", \"us_min\": " + number(timing.least) +
         ", \"us_max\": " + number(timing.most) + "}";
}

std::size_t code_bytes(const Layers& layers) {
  std::size_t bytes = 0;
  for (const Linear each : kLinears) bytes += layers.weights(0).of(each).bytes();
  return bytes;
}

}  // namespace

void Report::add(const Deviation& deviation) {
  for (Deviation& known : deviations) {
    if (known.step != deviation.step) continue;
    known.worst = std::max(known.worst, deviation.worst);
    return;
  }
  deviations.push_back(deviation);
}

bool Report::is_right() const {
  for (const Deviation& each : deviations) {
    if (!(each.worst <= 1)) return false;
  }
  return true;
}

void print_report(const Report& report, const Options& options, const Layers& layers) {
  const std::string what = options.prefill > 0 ? "prefill of " + std::to_string(options.prefill) + " tokens"
                                               : "one token at a context of " + std::to_string(options.context);
  std::printf("%s, batch %d, %d layers: ", what.c_str(), options.batch, layers.count());
  if (const auto& layer = report.layer) std::printf("%.2f us for each (%.2f to %.2f), ", layer->median, layer->least, layer->most);
  std::printf("%s reads %.1f MB\n", report.layer ? "which" : "each", 1e-6 * static_cast<double>(bytes_read(layers, options.context)));
  for (const auto& [step, timing] : report.steps) {
    std::printf("  %-15s %9.2f us (%.2f to %.2f), by itself\n", step.c_str(), timing.median, timing.least, timing.most);
  }
  for (const Deviation& each : report.deviations) {
    std::printf("  %-15s %s: at most %.3f of its bound from double precision\n", each.step.c_str(),
                each.worst <= 1 ? "right" : "WRONG", each.worst);
  }
}

void write_report(const std::string& path, const Report& report, const Options& options, const Layers& layers) {
  std::ostringstream text;
  text << "{\n  \"batch\": " << options.batch << ",\n  \"context\": " << options.context
       << ",\n  \"prefill\": " << options.prefill << ",\n  \"layers\": " << layers.count()
       << ",\n  \"overlap\": " << (options.overlap ? "true" : "false") << ",\n  \"hidden\": " << layers.shape().hidden
       << ",\n  \"intermediate\": " << layers.shape().intermediate << ",\n  \"q_heads\": " << attention::kQueryHeads
       << ",\n  \"kv_heads\": " << attention::kKeyHeads << ",\n  \"head_dim\": " << attention::kHeadDim
       << ",\n  \"weight_bytes\": " << code_bytes(layers)
       << ",\n  \"cache_bytes\": " << (options.prefill > 0 ? 0 : cache_bytes_read(options.batch, options.context))
       << ",\n  \"bytes_read\": " << bytes_read(layers, options.context)
       << ",\n  \"layer\": " << (report.layer ? timing_json(*report.layer) : "null")
       << ",\n  \"steps\": {";
  const char* separator = "\n    ";
  for (const auto& [step, timing] : report.steps) {
    text << separator << "\"" << step << "\": " << timing_json(timing);
    separator = ",\n    ";
  }
  text << "},\n  \"checked\": {";
  separator = "\n    ";
  for (const Deviation& each : report.deviations) {
    text << separator << "\"" << each.step << "\": " << (each.worst <= 1e300 ? number(each.worst) : "null");
    separator = ",\n    ";
  }
  text << "},\n  \"right\": " << (report.is_right() ? "true" : "false") << "\n}\n";
  std::ofstream file(path);
  file << text.str();
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path + ": " + std::strerror(errno));
}

}  // namespace engine
