// Weights of a decoder layer on the device: packed files as `vqcc pack` writes them, or random ones.
#pragma once

#include <memory>
#include <string>

#include "model.hpp"
#include "stream.hpp"

namespace engine {

/// A packed weight; arrays that the algorithm lacks are empty.
struct PackedWeight {
  Buffer codes, books, stage_scales, scales;

  LinearArrays arrays() const { return {codes.address(), books.address(), stage_scales.address(), scales.address()}; }
  std::size_t bytes() const { return codes.bytes() + books.bytes() + stage_scales.bytes() + scales.bytes(); }
};

/// Packed codebooks of keys and values. Those that append may be those that attend.
struct PackedBooks {
  Buffer key_books, value_books, append_key_books, append_value_books, book_facts;

  std::size_t read_bytes() const { return key_books.bytes() + value_books.bytes() + book_facts.bytes(); }
};

struct LayerWeights {
  PackedWeight linears[4];  // by Linear
  PackedBooks books;
  Buffer attention_norm, mlp_norm;

  const PackedWeight& of(Linear layer) const { return linears[static_cast<int>(layer)]; }
};

/// Where layers' weights come from. `layer` counts from 0.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual PackedWeight linear(Linear which, int layer) = 0;
  virtual PackedBooks books(int layer) = 0;

  /// All of a layer; weights of norms, which are no quantized ones, are drawn.
  LayerWeights load(int layer);
};

/// Where codebooks of layers' caches come from.
class BookSource {
 public:
  virtual ~BookSource() = default;
  virtual PackedBooks layer(int number) const = 0;
};

/// Those of a file: its tensors in order are those of the decoder layers, and begin anew where there are fewer. Throws what is
/// wrong with it.
std::unique_ptr<BookSource> file_books(const std::string& path);

/// Codes and entries drawn so that activations stay of order 1; codebooks of caches too, if there is no source of them. Throws
/// where the model's cannot be drawn: codes in buckets, scales of groups or stages, books of attention by rows.
std::unique_ptr<WeightSource> random_weights(std::unique_ptr<BookSource> books);

/// NAME.safetensors in `directory` for each linear layer, and attention.safetensors: tensors in the order of the file are those
/// of the decoder layers, and begin anew where there are fewer. Throws what is wrong with a file, and where.
std::unique_ptr<WeightSource> file_weights(const std::string& directory);

}  // namespace engine
