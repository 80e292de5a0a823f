#include <cmath>
#include <utility>

#include "random.hpp"
#include "weights.hpp"

namespace engine {
namespace {

class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(std::unique_ptr<BookSource> books) : books_(std::move(books)) {}

  PackedWeight linear(Linear which, int layer) override {
    const LinearFacts facts = Model::facts(which);
    if (facts.codes_bytes == 0) throw std::runtime_error(refusal(facts.name, "its codes are in buckets"));
    const std::int64_t scales = facts.scales_bytes / static_cast<std::int64_t>(sizeof(float));
    if (scales > 1 && scales != facts.n) throw std::runtime_error(refusal(facts.name, "it has scales of groups"));
    if (facts.stage_scales_bytes != 0) throw std::runtime_error(refusal(facts.name, "its entries are no float16"));
    Random random(seed_of(layer, static_cast<int>(which)));
    // Rows of k products of activations of order 1 then have sums of order 1.
    const double deviation = 1.0 / std::sqrt(static_cast<double>(facts.k));
    const auto entries = random.halves(static_cast<std::size_t>(facts.books_bytes) / 2, deviation);
    const std::vector<float> ones(static_cast<std::size_t>(scales), 1.0f);
    const auto codes_bytes = static_cast<std::size_t>(facts.codes_bytes);
    return {Buffer(random.words(codes_bytes).data(), codes_bytes), Buffer(entries), Buffer(0), Buffer(ones)};
  }

  PackedBooks books(int layer) override {
    if (books_ != nullptr) return books_->layer(layer);
    if (attention::kBooksByRows) {
      throw std::runtime_error("random codebooks cannot be drawn for attention, for it looks them up by rows: give packed ones " +
                               std::string("with --books, or all weights with --weights"));
    }
    Random random(seed_of(layer, 4));
    const auto keys = random.halves(attention::kKeyBooksBytes / 2, 1.0);
    const auto values = random.halves(attention::kValueBooksBytes / 2, 1.0);
    return {Buffer(keys), Buffer(values), Buffer(keys), Buffer(values), Buffer(0)};
  }

 private:
  static std::uint64_t seed_of(int layer, int part) {
    return 1000u * static_cast<std::uint64_t>(layer) + static_cast<std::uint64_t>(part);
  }
  static std::string refusal(const std::string& name, const std::string& reason) {
    return "random weights cannot be drawn for " + name + ", for " + reason + ": give packed ones with --weights";
  }

  std::unique_ptr<BookSource> books_;
};

}  // namespace

LayerWeights WeightSource::load(int layer) {
  Random random(static_cast<std::uint64_t>(layer) + 77);
  const auto hidden = static_cast<std::size_t>(Model::facts(Linear::kQkv).k);
  const auto norm = [&] { return Buffer(random.halves(hidden, 0.1, 1.0)); };
  return {{linear(Linear::kQkv, layer), linear(Linear::kO, layer), linear(Linear::kGateUp, layer),
           linear(Linear::kDown, layer)},
          books(layer),
          norm(),
          norm()};
}

std::unique_ptr<WeightSource> random_weights(std::unique_ptr<BookSource> books) {
  return std::make_unique<RandomWeights>(std::move(books));
}

}  // namespace engine
