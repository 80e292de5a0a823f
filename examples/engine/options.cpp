#include "options.hpp"

#include <cstdlib>
#include <cerrno>

#include "model.hpp"

namespace engine {
namespace {

long whole_number(const std::string& option, const char* text, long least, long most) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != 0 || errno != 0 || value < least || value > most) {
    throw UsageError(option + " cannot be '" + text + "': give a whole number from " + std::to_string(least) + " to " +
                     std::to_string(most));
  }
  return value;
}

double positive_number(const std::string& option, const char* text) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end != 0 || !(value > 0) || value > 1e12) {
    throw UsageError(option + " cannot be '" + text + "': give a number above 0");
  }
  return value;
}

struct Flag {
  const char* name;
  bool Options::*member;
};
constexpr Flag kFlags[] = {{"--check", &Options::check}, {"--breakdown", &Options::breakdown}, {"--help", &Options::help}};
constexpr Flag kDenials[] = {{"--no-overlap", &Options::overlap}, {"--no-timing", &Options::timing}};

struct Number {
  const char* name;
  int Options::*member;
  int most;
};
constexpr Number kNumbers[] = {{"--batch", &Options::batch, attention::kMostBatch},
                               {"--context", &Options::context, attention::kMostContext},
                               {"--prefill", &Options::prefill, attention::kMostContext},
                               {"--layers", &Options::layers, 1024},
                               {"--repeats", &Options::repeats, 1000000}};

struct Text {
  const char* name;
  std::string Options::*member;
};
constexpr Text kTexts[] = {{"--weights", &Options::weights},
                           {"--books", &Options::books},
                           {"--dump", &Options::dump},
                           {"--json", &Options::json}};

bool set_flag(Options& options, const std::string& option) {
  for (const Flag& flag : kFlags) {
    if (option == flag.name) options.*flag.member = true;
    if (option == flag.name) return true;
  }
  for (const Flag& denial : kDenials) {
    if (option == denial.name) options.*denial.member = false;
    if (option == denial.name) return true;
  }
  return false;
}

/// Sets the option that `text` is the value of; null if the command line ends before it.
void set_value(Options& options, const std::string& option, const char* text) {
  const auto value = [&] {
    if (text == nullptr) throw UsageError(option + " has no value");
    return text;
  };
  for (const Number& number : kNumbers) {
    if (option != number.name) continue;
    options.*number.member = static_cast<int>(whole_number(option, value(), 1, number.most));
    return;
  }
  for (const Text& each : kTexts) {
    if (option != each.name) continue;
    options.*each.member = value();
    return;
  }
  if (option != "--rope-base") throw UsageError("there is no option '" + option + "': see --help");
  options.rope_base = positive_number(option, value());
}

}  // namespace

Options parse_options(int count, const char* const* words) {
  Options options;
  bool has_context = false;
  for (int i = 1; i < count; ++i) {
    const std::string option = words[i];
    if (set_flag(options, option)) continue;
    set_value(options, option, i + 1 < count ? words[i + 1] : nullptr);
    ++i;
    has_context = has_context || option == "--context";
  }
  if (!options.weights.empty() && !options.books.empty()) {
    throw UsageError("--weights has codebooks of the cache too: leave --books out");
  }
  if (options.prefill > 0 && has_context) {
    throw UsageError("--context is of decoding: --prefill begins with an empty cache");
  }
  if (options.breakdown && !options.timing) throw UsageError("--breakdown times kernels: leave --no-timing out");
  if (options.prefill > 0) options.context = options.prefill;
  if (!has_context && options.context > attention::kMostContext) options.context = attention::kMostContext;
  return options;
}

std::string help_text() {
  return "usage: engine [OPTIONS]\n"
         "Runs decoder layers on the GPU and times them: one new token of each sequence, or a prefill.\n"
         "\n"
         "  --batch N        sequences, up to " + std::to_string(attention::kMostBatch) + " (default 1)\n"
         "  --context N      tokens of each, the new one included, up to " + std::to_string(attention::kMostContext) +
         " (default 1024, or as many)\n"
         "  --prefill N      run a prefill of N tokens of each sequence instead\n"
         "  --layers N       layers, each with weights and a cache of its own, one after the other in one CUDA graph\n"
         "                   (default: as many as take more than 1 GB, so that none is served from a cache of the GPU)\n"
         "  --weights DIR    packed weights: DIR/qkv.safetensors, o, gate_up, down, attention (default: random ones)\n"
         "  --books FILE     packed codebooks of the cache, beside random weights (default: random ones)\n"
         "  --rope-base X    of caches that store rotated keys (default 500000, Llama 3's; other specs say it themselves)\n"
         "  --check          hold the engine's own kernels against double precision first\n"
         "  --dump DIR       write inputs, weights, caches and every step's output of each layer, for bench/engine_check.py\n"
         "  --repeats N      timed runs (default 30)\n"
         "  --breakdown      time each kernel by itself too\n"
         "  --no-timing      run the graph of all layers once only\n"
         "  --no-overlap     no kernel starts before the one before it has ended\n"
         "  --json FILE      write what was measured\n"
         "\n"
         "Exit codes: 0 done, 1 a check failed, 2 an error.\n";
}

}  // namespace engine
