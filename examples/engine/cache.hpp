// The KV cache: pages of codes and windows of the newest tokens of each layer, one page table for all.
#pragma once

#include <cstdint>
#include <vector>

#include "model.hpp"
#include "stream.hpp"

namespace engine {

/// Which pages sequences have, and how long they are; the same for every layer.
class CacheTable {
 public:
  /// Room for `capacity` tokens of each of `batch` sequences; pages are dealt in random order.
  CacheTable(int batch, int capacity);

  /// Sets all lengths, on the device too. Kernels that read them must be done; all copies and memsets are, when it returns.
  void set_length(int tokens);

  std::int64_t page_count() const { return page_count_; }
  std::int64_t page_bytes() const;
  std::size_t window_bytes() const;
  int batch() const { return static_cast<int>(host_lengths_.size()); }
  const std::vector<std::int32_t>& lengths() const { return host_lengths_; }
  const std::vector<std::int32_t>& table() const { return host_table_; }
  int table_stride() const { return table_stride_; }
  std::uint64_t lengths_address() const { return lengths_.address(); }

  /// A layer's cache in this table.
  CacheArrays arrays(std::uint64_t pages, std::uint64_t key_window, std::uint64_t value_window) const;

 private:
  int table_stride_ = 0, sequence_blocks_ = 0;
  std::int64_t page_count_ = 0;
  std::vector<std::int32_t> host_lengths_, host_table_;
  Buffer lengths_, page_table_;
};

/// One layer's codes and windows.
struct LayerCache {
  explicit LayerCache(const CacheTable& table);

  /// The same codes and windows as `other` has.
  void copy(const LayerCache& other) const;
  std::size_t bytes() const { return pages.bytes() + key_window.bytes() + value_window.bytes(); }

  Buffer pages, key_window, value_window;
};

/// Bytes of codes and windows that attending to `length` tokens of each sequence reads.
std::size_t cache_bytes_read(int batch, int length);

}  // namespace engine
