// What the program is told on its command line.
#pragma once

#include <stdexcept>
#include <string>

namespace engine {

struct Options {
  int batch = 1;
  int context = 1024;   // of each sequence, the new token included
  int layers = 0;       // 0: as many as make weights and caches pass kDefaultBytes
  int prefill = 0;      // new tokens of each sequence; 0: decode one
  int repeats = 30;
  double rope_base = 500000.0;
  bool check = false, breakdown = false, overlap = true, timing = true, help = false;
  std::string books, weights, dump, json;

  /// Tokens that a run adds to each sequence.
  int new_tokens() const { return prefill > 0 ? prefill : 1; }
  int rows() const { return batch * new_tokens(); }
};

/// A mistake on the command line.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws UsageError for an option that there is not, a value that it cannot have, or options that contradict.
Options parse_options(int count, const char* const* words);

/// What --help prints.
std::string help_text();

}  // namespace engine
