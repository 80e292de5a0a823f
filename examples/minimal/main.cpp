// Loads a compiled library, launches one product y = W x and checks it: W is random, in codes of two books of 256 entries.
#include <cstdio>
#include <random>
#include <utility>

#include "device.hpp"
#include "half.hpp"
#include "minimal.embedded.h"

namespace {

constexpr int kRows = MINIMAL_N, kColumns = MINIMAL_K, kStages = 2, kEntries = 256, kVectorSize = 8;

/// What `vqcc pack` makes of a quantized weight, and an input. An engine reads the weight by vqcc/weights.h.
struct Inputs {
  std::vector<std::uint32_t> codes;
  std::vector<std::uint16_t> books, x;
  std::vector<float> scales;
};

Inputs draw() {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  Inputs inputs{std::vector<std::uint32_t>(MINIMAL_CODES_BYTES / 4), std::vector<std::uint16_t>(MINIMAL_BOOKS_BYTES / 2),
                std::vector<std::uint16_t>(kColumns), std::vector<float>(kRows)};
  for (auto& word : inputs.codes) word = static_cast<std::uint32_t>(random());
  for (auto& entry : inputs.books) entry = example::to_half(normal(random));
  for (auto& element : inputs.x) element = example::to_half(normal(random));
  for (auto& scale : inputs.scales) scale = static_cast<float>(std::exp2(normal(random)));
  return inputs;
}

/// Element `row` of y in double precision, and the sum of the absolute values of what is added up.
std::pair<double, double> expected(const Inputs& inputs, int row) {
  double sum = 0, magnitude = 0;
  for (int column = 0; column < kColumns; ++column) {
    // Chunked codes (docs/packed-layout.md): a word has both codes of vectors v and v + 32.
    const int vector = column / kVectorSize;
    const std::uint32_t word = inputs.codes[static_cast<std::size_t>(row * 32 + vector % 32)] >> (vector / 32 * 16);
    for (int stage = 0; stage < kStages; ++stage) {
      const int code = static_cast<int>(word >> (8 * stage) & 255);
      const int entry = (stage * kEntries + code) * kVectorSize + column % kVectorSize;
      const double product = inputs.scales[static_cast<std::size_t>(row)] *
                             example::from_half(inputs.books[static_cast<std::size_t>(entry)]) *
                             example::from_half(inputs.x[static_cast<std::size_t>(column)]);
      sum += product;
      magnitude += std::fabs(product);
    }
  }
  return {sum, magnitude};
}

/// Unloaded whatever happens.
struct Library {
  minimal_handle handle = {};
  ~Library() { minimal_unload(&handle); }
};

void require(minimal_status status) {
  if (status != MINIMAL_OK) throw std::runtime_error(minimal_status_string(status));
}

}  // namespace

int main() try {
  const example::Context context;
  const vqcc_driver driver = example::vqcc_functions();
  Library library;
  require(minimal_load_embedded(&library.handle, &driver));

  const Inputs inputs = draw();
  const example::Buffer codes(inputs.codes), books(inputs.books), scales(inputs.scales), x(inputs.x);
  const example::Buffer y(2 * kRows);
  minimal_args args = {};
  args.codes = codes.address();
  args.books = books.address();
  args.scales = scales.address();
  args.x = x.address();
  args.y = y.address();
  args.m = 1;
  args.type = MINIMAL_FLOAT16;
  require(minimal_launch(&library.handle, &args, nullptr));
  context.synchronize();

  int wrong = 0;
  const auto result = y.download<std::uint16_t>();
  for (int row = 0; row < kRows; ++row) {
    const auto [exact, magnitude] = expected(inputs, row);
    // y is rounded to 11 bits, entries of both stages may be added up in 11 bits before.
    const double bound = std::ldexp(std::fabs(exact), -11) + std::ldexp(magnitude, -10);
    wrong += !(std::fabs(example::from_half(result[static_cast<std::size_t>(row)]) - exact) <= bound);
  }
  std::printf("%s: %d of %d rows are right\n", minimal_gpu_info(library.handle.gpu)->name, kRows - wrong, kRows);
  return wrong == 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "minimal: %s\n", error.what());
  return 2;
}
