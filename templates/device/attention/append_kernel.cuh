// Appends tokens to the cache: keys and values become the codes of their nearest entries, in the kernels' layout.
#pragma once

#include "encoder.cuh"

namespace vqcc {

/// Appends the new tokens of all sequences. The grid has shares for each part: some channel groups of the keys or the
/// values of a kv-head.
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class KeyBooks, class ValueBooks, class Tile,
          bool kSingle>
class AppendTokens {
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AppendArguments<Element>;
  using Keys = KeyBlock<KeyAlgorithm, Shape::kHeadDim, Cache::kKeyOrder>;
  using Values = ValueBlock<ValueAlgorithm, Shape::kHeadDim>;
  using Pages = PackedCache<Keys, Values, Cache>;
  using KeyEncoder = Encoder<KeyAlgorithm, KeyBooks, Pages, typename Keys::Streams, Shape, Tile, Tile::kKeyGroups, 0, true,
                             Cache::kKeyOrder, kSingle>;
  using ValueEncoder = Encoder<ValueAlgorithm, ValueBooks, Pages, typename Values::Streams, Shape, Tile, Tile::kValueGroups,
                               Keys::kBytes, false, Cache::kKeyOrder, kSingle>;
  static constexpr int kKeyParts = Keys::kGroups / Tile::kKeyGroups;
  static constexpr int kValueParts = Values::kGroups / Tile::kValueGroups;
  static constexpr int kCodesBytes = KeyEncoder::kSharedBytes > ValueEncoder::kSharedBytes ? KeyEncoder::kSharedBytes
                                                                                            : ValueEncoder::kSharedBytes;
  static_assert(Tile::kKeyGroups == Keys::kSetGroups || Tile::kKeyGroups * KeyAlgorithm::kResiduals *
                                                                KeyAlgorithm::kCodeBits % 32 == 0,
                "a key's codes are whole words");
  static_assert(kCodesBytes + (kSingle ? 0 : Tile::kBatch + 1) * 4 <= Tile::kOwnSharedBytes, "the plan has room");

 public:
  static constexpr int kParts = Shape::kHeads * (kKeyParts + kValueParts);

  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    wait_for_previous_kernels();
    const Pages pages = {arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks};
    const int part = static_cast<int>(blockIdx.x) % kParts;
    const int share = static_cast<int>(blockIdx.x) / kParts;
    const int shares = static_cast<int>(gridDim.x) / kParts;
    const int head = part / (kKeyParts + kValueParts);
    const int own = part % (kKeyParts + kValueParts);
    int* starts = reinterpret_cast<int*>(dynamic_shared() + kCodesBytes);
    if constexpr (!kSingle) {
      if (warp_index() == 0) {
        prefix_sums(arguments.batch, starts, [&](int sequence) {
          return Appended<Shape>::of(arguments, sequence).blocks();
        });
      }
      block_barrier();
    }
    const int units = kSingle ? ceil_divide(arguments.batch, kBlockTokens) : starts[arguments.batch];
    for (int unit = share; unit < units; unit += shares) {
      const int sequence = kSingle ? unit * kBlockTokens : last_start(starts, arguments.batch, unit);
      const int block = kSingle ? 0 : unit - starts[sequence];
      if (own < kKeyParts) {
        KeyEncoder::turn(arguments, pages,
                         {arguments.keys, arguments.key_strides, arguments.key_window, arguments.key_books, head,
                          own * Tile::kKeyGroups * KeyAlgorithm::kVectorSize},
                         sequence, block);
      } else {
        ValueEncoder::turn(arguments, pages,
                           {arguments.values, arguments.value_strides, arguments.value_window, arguments.value_books, head,
                            (own - kKeyParts) * Tile::kValueGroups * ValueAlgorithm::kVectorSize},
                           sequence, block);
      }
    }
  }
};

}  // namespace vqcc
