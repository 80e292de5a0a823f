#include "cache.hpp"

#include <numeric>
#include <utility>

#include "random.hpp"

namespace engine {
namespace {

/// Pages that no sequence has: numbers of a table are then no permutation that hides mistakes.
constexpr int kSparePages = 2;

void zero(const Buffer& buffer) {
  if (buffer.bytes() > 0) {
    Driver::get().call("cuMemsetD8_v2", buffer.address(), static_cast<unsigned char>(0), buffer.bytes());
  }
}

std::int64_t quotient(std::int64_t value, std::int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

CacheTable::CacheTable(int batch, int capacity)
    : host_lengths_(static_cast<std::size_t>(batch)), lengths_(host_lengths_.size() * sizeof(std::int32_t)), page_table_(0) {
  if (attention::kPageTokens == 0) {
    sequence_blocks_ = static_cast<int>(quotient(capacity, attention::kBlockTokens));
    page_count_ = batch;
    return;
  }
  table_stride_ = static_cast<int>(quotient(capacity, attention::kPageTokens));
  page_count_ = static_cast<std::int64_t>(batch) * table_stride_ + kSparePages;
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(page_count_));
  std::iota(numbers.begin(), numbers.end(), 0);
  Random random(11);
  for (std::size_t i = numbers.size() - 1; i > 0; --i) std::swap(numbers[i], numbers[random.bits() % (i + 1)]);
  numbers.resize(static_cast<std::size_t>(batch * table_stride_));
  host_table_ = std::move(numbers);
  page_table_ = Buffer(host_table_);
}

void CacheTable::set_length(int tokens) {
  for (auto& length : host_lengths_) length = tokens;
  Driver::get().call("cuMemcpyHtoD_v2", lengths_.address(), static_cast<const void*>(host_lengths_.data()),
                     host_lengths_.size() * sizeof(std::int32_t));
  // Copies and memsets are the default stream's, for which the kernels' stream does not wait.
  Driver::get().call("cuCtxSynchronize");
}

std::int64_t CacheTable::page_bytes() const {
  const std::int64_t blocks =
      attention::kPageTokens == 0 ? sequence_blocks_ : attention::kPageTokens / attention::kBlockTokens;
  return blocks * attention::kKeyHeads * attention::kBlockBytes;
}

std::size_t CacheTable::window_bytes() const {
  return host_lengths_.size() * attention::kKeyHeads * attention::kWindow * attention::kHeadDim * sizeof(std::uint16_t);
}

CacheArrays CacheTable::arrays(std::uint64_t pages, std::uint64_t key_window, std::uint64_t value_window) const {
  return {pages,
          page_table_.address(),
          lengths_.address(),
          key_window,
          value_window,
          table_stride_,
          sequence_blocks_,
          host_lengths_.data(),
          host_table_.empty() ? nullptr : host_table_.data(),
          page_count_};
}

LayerCache::LayerCache(const CacheTable& table)
    : pages(static_cast<std::size_t>(table.page_count() * table.page_bytes())),
      key_window(table.window_bytes()),
      value_window(table.window_bytes()) {
  zero(pages);
  zero(key_window);
  zero(value_window);
}

void LayerCache::copy(const LayerCache& other) const {
  const auto copy_buffer = [](const Buffer& to, const Buffer& from) {
    if (from.bytes() > 0) Driver::get().call("cuMemcpyDtoD_v2", to.address(), from.address(), from.bytes());
  };
  copy_buffer(pages, other.pages);
  copy_buffer(key_window, other.key_window);
  copy_buffer(value_window, other.value_window);
}

std::size_t cache_bytes_read(int batch, int length) {
  const std::int64_t coded = length > attention::kWindow ? length - attention::kWindow : 0;
  const std::int64_t full = length - coded;
  const std::int64_t codes = quotient(coded, attention::kBlockTokens) * attention::kBlockBytes;
  const std::int64_t windows = full * attention::kHeadDim * 2 * static_cast<std::int64_t>(sizeof(std::uint16_t));
  return static_cast<std::size_t>(batch * attention::kKeyHeads * (codes + windows));
}

}  // namespace engine
