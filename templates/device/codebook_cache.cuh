// The codebook cache (VQ-LLM, Sec. V-C): Load, Access and Switch. At level gc nothing is cached and Access goes
// to global memory; at level sc every entry of the books in use lies in shared memory.
#pragma once

#include "elements.cuh"

namespace vqcc {

/// Where a block finds the books of the column tiles it is working on.
template <class Algorithm, Space kSpace, int kThreads>
class CodebookCache {
 public:
  static constexpr int kTableBytes = Algorithm::kTableBytes;

  /// `books` are all tables of the matrix, one after another; `cached` is room for those resident at a time.
  VQCC_DEVICE CodebookCache(const uint8* books, const float* stage_scales, uint8* cached)
      : books_(books), stage_scales_(stage_scales), tables_(kSpace == Space::kShared ? cached : books) {}

  /// Makes `count` books from `first` on the ones that `access` finds. Every thread of the block calls it.
  VQCC_DEVICE void switch_to(int first, int count) {
    if constexpr (kSpace == Space::kShared) {
      if (first == first_) return;  // still resident: a matrix with one book loads it once
      block_barrier();              // the books being replaced have been read
      load_tables(first, count);
      block_barrier();
    }
    first_ = first;
  }

  /// The weights that `codes` stand for in book `first + offset`.
  VQCC_DEVICE void access(int offset, const uint32 (&codes)[Algorithm::kResiduals],
                          float (&weights)[Algorithm::kVectorSize]) const {
    const int table = kSpace == Space::kShared ? offset : first_ + offset;
    const float* scales = stage_scales_ + (first_ + offset) * Algorithm::kResiduals;
    Algorithm::template decode<kSpace>(tables_ + table * kTableBytes, scales, codes, weights);
  }

 private:
  VQCC_DEVICE void load_tables(int first, int count) const {
    const uint4* source = reinterpret_cast<const uint4*>(books_ + static_cast<int64>(first) * kTableBytes);
    uint4* target = reinterpret_cast<uint4*>(const_cast<uint8*>(tables_));
    for (int i = static_cast<int>(threadIdx.x); i < count * (kTableBytes / 16); i += kThreads) {
      target[i] = load<Space::kGlobal>(source + i);
    }
  }

  const uint8* books_;
  const float* stage_scales_;
  const uint8* tables_;
  int first_ = -1;
};

}  // namespace vqcc
