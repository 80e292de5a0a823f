#include <stdexcept>

#include "vqcc/books.h"
#include "vqcc/weights.h"
#include "weights.hpp"

namespace engine {
namespace {

/// Why a packed file cannot be used, and where: `status` is a text of its reader.
[[noreturn]] void refuse(const std::string& path, const char* status, std::size_t where) {
  throw std::runtime_error(path + ": " + status + ", at byte " + std::to_string(where));
}

template <typename Array>
Buffer upload(const Array& array) {
  return Buffer(array.data, array.bytes);
}

/// Items that stand before that of decoder layer `number`: they begin anew where there are fewer than layers.
std::size_t before(int number, std::size_t count) { return static_cast<std::size_t>(number) % count; }

/// Packed weights of a linear layer, open as long as this lives.
class WeightsFile {
 public:
  explicit WeightsFile(std::string path) : path_(std::move(path)) {
    require(vqcc_weights_open(path_.c_str(), &weights_), weights_.where);
    if (weights_.count == 0) throw std::runtime_error(path_ + ": the file has no tensor");
  }
  ~WeightsFile() { vqcc_weights_close(&weights_); }
  WeightsFile(const WeightsFile&) = delete;
  WeightsFile& operator=(const WeightsFile&) = delete;

  PackedWeight tensor(int number, const LinearFacts& facts) const {
    vqcc_weight weight = {};
    for (std::size_t left = before(number, weights_.count) + 1; left > 0; --left) {
      require(vqcc_weights_next(&weights_, &weight), weight.where);
    }
    std::string name(vqcc_weights_name(&weights_, &weight, nullptr, 0), '\0');
    (void)vqcc_weights_name(&weights_, &weight, name.data(), name.size() + 1);
    require(vqcc_weights_find(&weights_, name.c_str(), facts.layout_id, facts.codes_bytes, facts.books_bytes, &weight),
            weight.where);
    return {upload(weight.codes), upload(weight.books), upload(weight.stage_scales), upload(weight.scales)};
  }

 private:
  // The call that gives the status sets what `where` refers to, perhaps after arguments are evaluated.
  void require(vqcc_weights_status status, const std::size_t& where) const {
    if (status != VQCC_WEIGHTS_OK) refuse(path_, vqcc_weights_status_string(status), where);
  }

  std::string path_;
  vqcc_weights weights_ = {};
};

/// Packed codebooks of attention, open as long as this lives.
class BooksFile : public BookSource {
 public:
  explicit BooksFile(std::string path) : path_(std::move(path)) {
    require(vqcc_books_open(path_.c_str(), &books_), books_.where);
    if (books_.count == 0) throw std::runtime_error(path_ + ": the file has no codebooks");
  }
  ~BooksFile() { vqcc_books_close(&books_); }
  BooksFile(const BooksFile&) = delete;
  BooksFile& operator=(const BooksFile&) = delete;

  PackedBooks layer(int number) const override {
    constexpr vqcc_books_sizes kSizes = {attention::kKeyBooksBytes, attention::kValueBooksBytes, attention::kAppendKeyBooksBytes,
                                         attention::kAppendValueBooksBytes, attention::kBookFactsBytes};
    vqcc_layer_books layer = {};
    for (std::size_t left = before(number, books_.count) + 1; left > 0; --left) {
      require(vqcc_books_next(&books_, &layer), layer.where);
    }
    std::string name(vqcc_books_name(&books_, &layer, nullptr, 0), '\0');
    (void)vqcc_books_name(&books_, &layer, name.data(), name.size() + 1);
    require(vqcc_books_find(&books_, name.c_str(), attention::kLayoutId, &kSizes, &layer), layer.where);
    return {upload(layer.key_books), upload(layer.value_books), upload(layer.append_key_books),
            upload(layer.append_value_books), upload(layer.book_facts)};
  }

 private:
  void require(vqcc_books_status status, const std::size_t& where) const {
    if (status != VQCC_BOOKS_OK) refuse(path_, vqcc_books_status_string(status), where);
  }

  std::string path_;
  vqcc_books books_ = {};
};

class FileWeights : public WeightSource {
 public:
  explicit FileWeights(const std::string& directory) : books_(directory + "/attention.safetensors") {
    for (const Linear each : kLinears) {
      files_.push_back(std::make_unique<WeightsFile>(directory + "/" + Model::facts(each).name + ".safetensors"));
    }
  }
  PackedWeight linear(Linear which, int layer) override {
    return files_[static_cast<std::size_t>(which)]->tensor(layer, Model::facts(which));
  }
  PackedBooks books(int layer) override { return books_.layer(layer); }

 private:
  std::vector<std::unique_ptr<WeightsFile>> files_;
  BooksFile books_;
};

}  // namespace

std::unique_ptr<BookSource> file_books(const std::string& path) { return std::make_unique<BooksFile>(path); }

std::unique_ptr<WeightSource> file_weights(const std::string& directory) { return std::make_unique<FileWeights>(directory); }

}  // namespace engine
