#include "dump.hpp"

#include <cstdio>
#include <cstring>
#include <fstream>

namespace engine {
namespace {

/// Of types U8, F16 and I32.
std::size_t bytes_of(const char* dtype, const std::vector<std::size_t>& shape) {
  std::size_t bytes = std::strcmp(dtype, "U8") == 0 ? 1 : std::strcmp(dtype, "F16") == 0 ? 2 : 4;
  for (const std::size_t size : shape) bytes *= size;
  return bytes;
}

void note_run(ArrayFile& file, const Layers& layers) {
  file.note("batch", std::to_string(layers.run().batch));
  file.note("new_tokens", std::to_string(layers.run().new_tokens));
  file.note("prefill", layers.run().prefill ? "1" : "0");
  file.note("layers", std::to_string(layers.count()));
  file.note("hidden", std::to_string(layers.shape().hidden));
  file.note("rope_base", std::to_string(layers.run().rope_base));
  char epsilon[32];
  (void)std::snprintf(epsilon, sizeof epsilon, "%.9g", static_cast<double>(kEpsilon));
  file.note("epsilon", epsilon);
}

}  // namespace

void ArrayFile::add(const std::string& name, const char* dtype, const std::vector<std::size_t>& shape, const void* data) {
  const std::size_t bytes = bytes_of(dtype, shape);
  if (bytes == 0) return;  // the format has arrays without elements, its readers have trouble with them
  std::string axes;
  for (const std::size_t size : shape) axes += (axes.empty() ? "" : ",") + std::to_string(size);
  header_ += ",\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + axes + "],\"data_offsets\":[" +
             std::to_string(end_) + "," + std::to_string(end_ + bytes) + "]}";
  arrays_.push_back({data, bytes});
  end_ += bytes;
}

void ArrayFile::note(const std::string& key, const std::string& value) {
  notes_ += (notes_.empty() ? "\"" : ",\"") + key + "\":\"" + value + "\"";
}

void ArrayFile::write(const std::string& path) const {
  std::string header = "{\"__metadata__\":{" + notes_ + "}" + header_ + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary);
  std::uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::uint8_t>(header.size() >> 8 * i);
  file.write(reinterpret_cast<const char*>(length), sizeof length);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (const Array& array : arrays_) {
    file.write(static_cast<const char*>(array.data), static_cast<std::streamsize>(array.bytes));
  }
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    (void)std::remove(temporary.c_str());
    throw std::runtime_error("cannot write " + path + ": " + std::strerror(errno));
  }
}

void dump_layer(const std::string& directory, const Layers& layers, const Trace& trace, const CacheTrace& before) {
  ArrayFile file;
  note_run(file, layers);
  const auto rows = static_cast<std::size_t>(layers.run().rows());
  const auto add_rows = [&](const char* name, const Halves& halves) {
    file.add(name, "F16", {halves.empty() ? 0 : rows, halves.size() / rows}, halves.data());
  };
  const std::pair<const char*, const Halves*> steps[] = {
      {"residual", &trace.residual}, {"delta", &trace.delta}, {"attention_sum", &trace.attention_sum},
      {"attention_normed", &trace.attention_normed}, {"qkv", &trace.qkv}, {"rotated", &trace.rotated},
      {"attended", &trace.attended}, {"projected", &trace.projected}, {"mlp_sum", &trace.mlp_sum},
      {"mlp_normed", &trace.mlp_normed}, {"gate_up", &trace.gate_up}, {"activated", &trace.activated}, {"down", &trace.down}};
  for (const auto& [name, halves] : steps) add_rows(name, *halves);

  std::vector<std::vector<std::uint8_t>> held;  // until the file is written
  held.reserve(64);
  const auto add_buffer = [&](const std::string& name, const Buffer& buffer) {
    held.push_back(buffer.download<std::uint8_t>());
    file.add(name, "U8", {held.back().size()}, held.back().data());
  };
  const LayerWeights& weights = layers.weights(trace.layer);
  for (const Linear each : kLinears) {
    const std::string name = std::string("weight.") + Model::facts(each).name;
    add_buffer(name + ".codes", weights.of(each).codes);
    add_buffer(name + ".books", weights.of(each).books);
    add_buffer(name + ".stage_scales", weights.of(each).stage_scales);
    add_buffer(name + ".scales", weights.of(each).scales);
  }
  add_buffer("books.append_key_books", weights.books.append_key_books);
  add_buffer("books.append_value_books", weights.books.append_value_books);
  add_buffer("weight.attention_norm", weights.attention_norm);
  add_buffer("weight.mlp_norm", weights.mlp_norm);
  const CacheTrace after = trace_cache(layers.cache(trace.layer));
  const std::pair<const char*, const CacheTrace*> caches[] = {{"before.", &before}, {"after.", &after}};
  for (const auto& [prefix, cache] : caches) {
    file.add(std::string(prefix) + "pages", "U8", {cache->pages.size()}, cache->pages.data());
    file.add(std::string(prefix) + "key_window", "U8", {cache->key_window.size()}, cache->key_window.data());
    file.add(std::string(prefix) + "value_window", "U8", {cache->value_window.size()}, cache->value_window.data());
  }
  file.add("lengths", "I32", {layers.table().lengths().size()}, layers.table().lengths().data());
  const auto stride = static_cast<std::size_t>(layers.table().table_stride());
  const std::vector<std::int32_t>& pages = layers.table().table();
  file.add("page_table", "I32", {stride == 0 ? 0 : pages.size() / stride, stride}, pages.data());
  file.write(directory + "/layer-" + std::to_string(trace.layer) + ".safetensors");
}

void dump_output(const std::string& directory, const Layers& layers, const Halves& output) {
  ArrayFile file;
  note_run(file, layers);
  const auto rows = static_cast<std::size_t>(layers.run().rows());
  file.add("output", "F16", {rows, output.size() / rows}, output.data());
  file.write(directory + "/output.safetensors");
}

}  // namespace engine
