// Traces as files: a safetensors file for each layer, which bench/engine_check.py holds against float64.
#pragma once

#include <string>
#include <vector>

#include "trace.hpp"

namespace engine {

/// Arrays that are written together; they must live until then.
class ArrayFile {
 public:
  void add(const std::string& name, const char* dtype, const std::vector<std::size_t>& shape, const void* data);
  void note(const std::string& key, const std::string& value);
  /// Writes the file whole, or leaves what was there. Throws if it cannot.
  void write(const std::string& path) const;

 private:
  struct Array {
    const void* data;
    std::size_t bytes;
  };
  std::string header_, notes_;
  std::vector<Array> arrays_;
  std::size_t end_ = 0;
};

/// DIR/layer-<number>.safetensors, in a directory that is there: weights, the cache before and after, activations of every step.
void dump_layer(const std::string& directory, const Layers& layers, const Trace& trace, const CacheTrace& before);

/// DIR/output.safetensors: the sum that ends the last layer.
void dump_output(const std::string& directory, const Layers& layers, const Halves& output);

}  // namespace engine
