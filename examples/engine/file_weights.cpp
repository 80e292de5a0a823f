#include <cstring>

#include "vqcc/weights.h"
#include "weights.hpp"

namespace engine {
namespace {

/// A packed file, open as long as this lives; what is wrong with it is said with its name and the place.
class PackedFile {
 public:
  explicit PackedFile(std::string path) : path_(std::move(path)) {
    require(vqcc_weights_open(path_.c_str(), &weights_), weights_.where);
    if (weights_.count == 0) throw std::runtime_error(path_ + ": the file has no tensor");
  }
  ~PackedFile() { vqcc_weights_close(&weights_); }
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  /// Tensor `number` of the file, from the first on again where there are fewer, for a library.
  PackedWeight tensor(int number, const LinearFacts& facts) const {
    vqcc_weight weight = {};
    for (auto left = static_cast<std::uint64_t>(number) % weights_.count + 1; left > 0; --left) {
      require(vqcc_weights_next(&weights_, &weight), weight.where);
    }
    char name[256];
    (void)vqcc_weights_name(&weights_, &weight, name, sizeof name);
    require(vqcc_weights_find(&weights_, name, facts.layout_id, facts.codes_bytes, facts.books_bytes, &weight), weight.where);
    const auto upload = [](const vqcc_weights_array& array) { return Buffer(array.data, array.bytes); };
    return {upload(weight.codes), upload(weight.books), upload(weight.stage_scales), upload(weight.scales)};
  }

 private:
  void require(vqcc_weights_status status, std::size_t where) const {
    if (status == VQCC_WEIGHTS_OK) return;
    throw std::runtime_error(path_ + ": " + vqcc_weights_status_string(status) + ", at byte " + std::to_string(where));
  }

  std::string path_;
  vqcc_weights weights_ = {};
};

/// Codebooks of attention. vqcc/weights.h reads weights of linear layers alone, but its checks of a file's header, and of where
/// arrays lie, are those of any packed file.
class BooksFile : public BookSource {
 public:
  explicit BooksFile(std::string path) : path_(std::move(path)), file_(path_.c_str()) {
    weights_.data = file_.data;
    weights_.bytes = file_.bytes;
    require(file_.data != nullptr ? VQCC_WEIGHTS_OK : VQCC_WEIGHTS_ERROR_FILE);
    require(vqcc_weights_check_header(&weights_));
    require(vqcc_weights_check_metadata(&weights_));
    require(vqcc_weights_check_places(&weights_));
    vqcc_json packed = vqcc_weights_packed(&weights_), name, described;
    while (vqcc_json_member(&packed, &name, &described)) ++count_;
    if (count_ == 0) throw std::runtime_error(path_ + ": the file has no codebooks");
  }

  PackedBooks layer(int number) const override {
    vqcc_json packed = vqcc_weights_packed(&weights_), name, described, id;
    for (int left = number % count_ + 1; left > 0; --left) (void)vqcc_json_member(&packed, &name, &described);
    char text[16] = {};
    if (!vqcc_json_field(described, "layout_id", &id) || !vqcc_json_accept(&id, '"') ||
        vqcc_json_copy(id, text, sizeof text) != std::strlen(attention::kLayoutId) ||
        std::strcmp(text, attention::kLayoutId) != 0) {
      require(VQCC_WEIGHTS_ERROR_LAYOUT);
    }
    return {array(name, ".key_books", attention::kKeyBooksBytes), array(name, ".value_books", attention::kValueBooksBytes),
            array(name, ".append_key_books", attention::kAppendKeyBooksBytes),
            array(name, ".append_value_books", attention::kAppendValueBooksBytes),
            array(name, ".book_facts", attention::kBookFactsBytes)};
  }

 private:
  /// A file's bytes, mapped.
  struct Mapping {
    explicit Mapping(const char* path) {
      const int file = open(path, O_RDONLY);
      struct stat status = {};
      if (file < 0) return;
      if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
        bytes = static_cast<std::size_t>(status.st_size);
        void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapped != MAP_FAILED) data = static_cast<const std::uint8_t*>(mapped);
      }
      (void)close(file);
    }
    ~Mapping() {
      if (data != nullptr) (void)munmap(const_cast<std::uint8_t*>(data), bytes);
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    const std::uint8_t* data = nullptr;
    std::size_t bytes = 0;
  };

  Buffer array(vqcc_json name, const char* ending, std::int64_t bytes) const {
    if (bytes == 0) return Buffer(0);
    vqcc_weights_entry entry = {};
    vqcc_json value = {};
    std::size_t hint = 0;
    if (!vqcc_weights_find_entry(&weights_, name, ending, &hint, &value)) require(VQCC_WEIGHTS_ERROR_ARRAY);
    require(vqcc_weights_read_entry(&weights_, value, &entry));
    if (entry.end - entry.begin != static_cast<std::uint64_t>(bytes)) require(VQCC_WEIGHTS_ERROR_BYTES);
    return Buffer(weights_.data + weights_.header_end + entry.begin, static_cast<std::size_t>(bytes));
  }
  void require(vqcc_weights_status status) const {
    if (status != VQCC_WEIGHTS_OK) throw std::runtime_error(path_ + ": " + vqcc_weights_status_string(status));
  }

  std::string path_;
  Mapping file_;
  vqcc_weights weights_ = {};
  int count_ = 0;
};

class FileWeights : public WeightSource {
 public:
  explicit FileWeights(const std::string& directory) : books_(directory + "/attention.safetensors") {
    for (const Linear each : kLinears) {
      files_.push_back(std::make_unique<PackedFile>(directory + "/" + Model::facts(each).name + ".safetensors"));
    }
  }
  PackedWeight linear(Linear which, int layer) override {
    return files_[static_cast<std::size_t>(which)]->tensor(layer, Model::facts(which));
  }
  PackedBooks books(int layer) override { return books_.layer(layer); }

 private:
  std::vector<std::unique_ptr<PackedFile>> files_;
  BooksFile books_;
};

}  // namespace

std::unique_ptr<BookSource> file_books(const std::string& path) { return std::make_unique<BooksFile>(path); }

std::unique_ptr<WeightSource> file_weights(const std::string& directory) { return std::make_unique<FileWeights>(directory); }

}  // namespace engine
