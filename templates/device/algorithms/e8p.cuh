// QuIP#'s E8P codebook: 65,536 points of a shifted E8 lattice computed from a table of 512 words (2 KB).
#pragma once

#include "../elements.cuh"
#include "../unpack.cuh"

namespace vqcc {

/// `Codes` names kVectorSize (8), kResiduals (1 or 2), kCodeBits (16) and kTableBytes.
///
/// A code is a row of absolute values (upper byte) and eight signs (lower byte). A row is eight 4-bit fields,
/// field j holding 2 |v| + 8, always odd; fields 0 to 7 are elements 0, 2, 4, 6, 1, 3, 5, 7. An odd number of
/// set sign bits flips sign bit 0 and shifts the point by -1/4 instead of +1/4.
///
/// What the signs do to the fields is a constant of the book, word `signs`: 14 in the field of every sign that is set,
/// since xor with 14 negates an odd field about 8 (16 - f); and 1 in all fields if their number was odd, which takes
/// the one that makes them odd, half a unit, from each.
template <class Codes>
struct E8P : Codes {
  static constexpr int kEntryBytes = 4;
  static constexpr int kTableEntries = 256;
  static constexpr int kConstantEntries = 256;
  static constexpr int kStageBytes = kTableEntries * kEntryBytes;
  static constexpr bool kStagesShareTable = true;
  static_assert(kStageBytes + kConstantEntries * kEntryBytes == Codes::kTableBytes, "one table serves every stage");

  /// A row of the table as look-ups return it: eight 4-bit fields.
  struct Entry {
    uint32 fields;

    template <Space kSpace>
    VQCC_DEVICE static Entry load_from(const void* address) {
      return {load<kSpace>(static_cast<const uint32*>(address))};
    }
  };

  /// decode_pairs gives points over 256; the second stage's are divided by 3.45 besides (QuIP#'s 4-bit variant).
  static constexpr bool kStageFactors = true;
  VQCC_DEVICE static float stage_factor(int stage) { return stage == 0 ? 256.0f : 256.0f / 3.45f; }

  /// The weights that the `codes` of kStages stages stand for, before row or tensor scales.
  template <class Cache, int kStages>
  VQCC_DEVICE static void decode(const Cache& cache, int book, const uint32 (&codes)[kStages], float (&weights)[8]) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      uint32 pairs[4];
      decode_pairs<ElementType::kFloat16>(cache, book, stage, codes[stage], pairs);
      const float factor = stage_factor(cache.stage_number(stage));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 point = float16_pair(pairs[i]);
        weights[2 * i] = stage == 0 ? factor * point.x : fused_multiply_add(factor, point.x, weights[2 * i]);
        weights[2 * i + 1] = stage == 0 ? factor * point.y : fused_multiply_add(factor, point.y, weights[2 * i + 1]);
      }
    }
  }

  /// One stage's point as pairs of 16-bit elements, before its factor: quarters up to 2.75, over 256, exact in either
  /// type.
  template <ElementType kType, class Cache, class Code>
  VQCC_DEVICE static void decode_pairs(const Cache& cache, int book, int stage, Code code, uint32 (&pairs)[4]) {
    const uint32 fields =
        cache.access(book, stage, upper_byte(code)).fields ^ cache.constant(book, lower_byte(code)).fields;
    // A field alone in a float16 is a subnormal number: f / 2^24 in the lowest bits, f / 2^20 in the next ones. Times
    // 2^15 (0x7800) or 2^11 (0x6800) either is f / 512, and the point is f / 2 - 3.75: less 15 / 1024 (0xa380) over 256.
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32 field_pair = (i < 2 ? fields : fields >> 8) & (i % 2 == 0 ? 0x000f000fu : 0x00f000f0u);
      const uint32 point =
          multiply_add_float16_pairs(field_pair, i % 2 == 0 ? 0x78007800u : 0x68006800u, 0xa380a380u);
      pairs[i] = kType == ElementType::kFloat16 ? point : to_bfloat16_pair(float16_pair(point));
    }
  }
};

}  // namespace vqcc
