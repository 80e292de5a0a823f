// y = W x with a weight that `vqcc pack` wrote: read, checked, uploaded, and multiplied with a vector of ones.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "device.hpp"
#include "gate.embedded.h"
#include "half.hpp"
#include "vqcc/weights.h"

namespace {

/// A packed file, open as long as this lives.
class PackedFile {
 public:
  explicit PackedFile(const char* path) : path_(path) {
    const vqcc_weights_status status = vqcc_weights_open(path, &weights_);
    if (status == VQCC_WEIGHTS_ERROR_FILE) refuse(status, std::strerror(errno));
    if (status != VQCC_WEIGHTS_OK) refuse(status, "at byte " + std::to_string(weights_.where));
  }
  ~PackedFile() { vqcc_weights_close(&weights_); }
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  /// The tensor `name`, if it was packed for this library. Its arrays lie in the file.
  vqcc_weight find(const char* name) const {
    vqcc_weight weight = {};
    const vqcc_weights_status status =
        vqcc_weights_find(&weights_, name, GATE_LAYOUT_ID, GATE_CODES_BYTES, GATE_BOOKS_BYTES, &weight);
    if (status != VQCC_WEIGHTS_OK) refuse(status, name);
    return weight;
  }

 private:
  /// Says of which file, what is wrong with it, and what exactly.
  [[noreturn]] void refuse(vqcc_weights_status status, const std::string& what) const {
    throw std::runtime_error(path_ + ": " + vqcc_weights_status_string(status) + " (" + what + ")");
  }

  std::string path_;
  vqcc_weights weights_ = {};
};

/// The library in the current context.
struct Library {
  explicit Library(const vqcc_driver& driver) { require(gate_load_embedded(&handle, &driver)); }
  ~Library() { gate_unload(&handle); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  static void require(gate_status status) {
    if (status != GATE_OK) throw std::runtime_error(gate_status_string(status));
  }

  gate_handle handle = {};
};

example::Buffer uploaded(const vqcc_weights_array& array) { return example::Buffer(array.data, array.bytes); }

}  // namespace

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("give a packed file and the name of a tensor in it");
  const PackedFile file(words[1]);
  const vqcc_weight weight = file.find(words[2]);

  const example::Context context;
  const vqcc_driver driver = example::vqcc_functions();
  const Library library(driver);
  const example::Buffer codes = uploaded(weight.codes), books = uploaded(weight.books), scales = uploaded(weight.scales);
  const example::Buffer x(std::vector<std::uint16_t>(GATE_K, example::to_half(1.0))), y(2 * GATE_N);
  // Zeroed once: every launch leaves it as the next one needs it.
  const example::Buffer workspace(std::vector<std::uint8_t>(GATE_WORKSPACE_BYTES));

  gate_args args = {};
  args.codes = codes.address();
  args.books = books.address();
  args.scales = scales.address();  // 0 where the algorithm has none, as stage_scales are here
  args.x = x.address();
  args.y = y.address();
  args.workspace = workspace.address();
  args.m = 1;
  args.type = GATE_FLOAT16;
  Library::require(gate_launch(&library.handle, &args, nullptr));
  context.synchronize();

  const auto result = y.download<std::uint16_t>();
  for (std::size_t row = 0; row < 4; ++row) std::printf("y[%zu] = %g\n", row, example::from_half(result[row]));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "packed: %s\n", error.what());
  return 2;
}
