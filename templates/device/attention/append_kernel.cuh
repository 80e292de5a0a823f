// Appends tokens to the cache: keys and values become the codes of their nearest entries, in the kernels' layout.
#pragma once

#include "encoder.cuh"

namespace vqcc {

/// Appends the new tokens of all sequences. The grid has shares for each part: some channel groups of the keys or the
/// values of a kv-head. If kSingle it has one for each 32 sequences; else shares take token blocks in turn.
template <class KeyAlgorithm, class ValueAlgorithm, class Shape, class Cache, class KeyBooks, class ValueBooks, class Tile,
          bool kSingle>
class AppendTokens {
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AppendArguments<Element>;
  using Keys = KeyBlock<KeyAlgorithm, Shape::kHeadDim, Cache::kKeyOrder>;
  using Values = ValueBlock<ValueAlgorithm, Shape::kHeadDim>;
  using Pages = PackedCache<Keys, Values, Cache>;
  using KeyCodeWriter = KeyWriter<KeyAlgorithm, Keys, Cache::kKeyOrder, Tile::kKeyGroups, Tile::kWarps, kSingle>;
  using ValueCodeWriter = ValueWriter<ValueAlgorithm, Values, Keys::kBytes, Tile::kValueGroups, Tile::kWarps, kSingle>;
  using KeyEncoder = Encoder<KeyAlgorithm, KeyBooks, Pages, KeyCodeWriter, Shape, Tile, Tile::kKeyGroups, kSingle>;
  using ValueEncoder = Encoder<ValueAlgorithm, ValueBooks, Pages, ValueCodeWriter, Shape, Tile, Tile::kValueGroups, kSingle>;
  static constexpr int kKeyParts = Keys::kGroups / Tile::kKeyGroups;
  static constexpr int kValueParts = Values::kGroups / Tile::kValueGroups;
  static constexpr int kTurnBytes = KeyEncoder::kSharedBytes > ValueEncoder::kSharedBytes ? KeyEncoder::kSharedBytes
                                                                                            : ValueEncoder::kSharedBytes;
  static_assert(Tile::kKeyGroups == Keys::kSetGroups || Tile::kKeyGroups * KeyAlgorithm::kResiduals *
                                                                KeyAlgorithm::kCodeBits % 32 == 0,
                "a key's codes are whole words");

 public:
  static constexpr int kSharedBytes = kTurnBytes + (kSingle ? 0 : Tile::kBatch + 1) * 4;
  static_assert(kSharedBytes <= Tile::kOwnSharedBytes, "the plan has room");
  static constexpr int kParts = Shape::kHeads * (kKeyParts + kValueParts);

  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    wait_for_previous_kernels();
    const int part = static_cast<int>(blockIdx.x % kParts);
    const int share = static_cast<int>(blockIdx.x / kParts);
    const int head = part / (kKeyParts + kValueParts);
    const int own = part % (kKeyParts + kValueParts);
    if (own < kKeyParts) {
      append<KeyEncoder>(arguments, share,
                         {arguments.keys, arguments.key_strides, arguments.key_window, arguments.key_books, head,
                          own * Tile::kKeyGroups * KeyAlgorithm::kVectorSize});
    } else {
      append<ValueEncoder>(arguments, share,
                           {arguments.values, arguments.value_strides, arguments.value_window, arguments.value_books, head,
                            (own - kKeyParts) * Tile::kValueGroups * ValueAlgorithm::kVectorSize});
    }
  }

 private:
  template <class SideEncoder>
  VQCC_DEVICE static void append(const Arguments& arguments, int share, const AppendedSide<Element>& side) {
    const Pages pages = {arguments.pages, arguments.page_table, arguments.page_table_stride, arguments.page_blocks};
    if constexpr (kSingle) {  // a share is 32 sequences
      if (share * kBlockTokens >= arguments.batch) return;
      SideEncoder::turn(arguments, pages, side, share * kBlockTokens, 0);
    } else {
      SideEncoder::stage_books(side);
      int* starts = reinterpret_cast<int*>(dynamic_shared() + kTurnBytes);
      if (warp_index() == 0) {
        prefix_sums(arguments.batch, starts, [&](int sequence) {
          return Appended<Shape>::of(arguments, sequence).blocks();
        });
      }
      block_barrier();
      const int shares = static_cast<int>(gridDim.x / kParts);
      for (int unit = share; unit < starts[arguments.batch]; unit += shares) {
        const int sequence = last_start(starts, arguments.batch, unit);
        SideEncoder::turn(arguments, pages, side, sequence, unit - starts[sequence]);
      }
    }
  }
};

}  // namespace vqcc
