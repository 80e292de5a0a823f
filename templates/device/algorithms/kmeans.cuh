// K-means codebooks: a weight vector is the sum over residual stages of one stored entry each.
#pragma once

#include "../elements.cuh"

namespace vqcc {

/// `Codes` names kVectorSize, kEntries, kResiduals, kCodeBits, kEntryStride (stored elements of an entry,
/// padding included), kEntryType and kTableBytes.
template <class Codes>
struct KMeans : Codes {
  static constexpr int kEntryBytes = Codes::kEntryStride * ElementTraits<Codes::kEntryType>::kBytes;
  static constexpr int kStageBytes = Codes::kEntries * kEntryBytes;
  static constexpr int kTableEntries = Codes::kEntries;
  static constexpr int kConstantEntries = 0;
  static constexpr bool kStagesShareTable = false;
  static constexpr bool kScaledStages = Codes::kEntryType == ElementType::kInt8;
  static_assert(Codes::kResiduals * kStageBytes <= Codes::kTableBytes, "every stage lies inside the table");

  /// A stored entry as look-ups return it.
  using Entry = Elements<Codes::kEntryType, Codes::kEntryStride, smaller(kEntryBytes, 16)>;

  /// The weights that the `codes` of kStages stages stand for in resident book `book`, before row, group or tensor
  /// scales: entries are added in fp32.
  template <class Cache, int kStages>
  VQCC_DEVICE static void decode(const Cache& cache, int book, const uint32 (&codes)[kStages],
                                 float (&weights)[Codes::kVectorSize]) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      float values[Codes::kEntryStride];
      cache.access(book, stage, codes[stage]).to_float(values);
      const float scale = kScaledStages ? cache.stage_scale(book, stage) : 1.0f;
#pragma unroll
      for (int i = 0; i < Codes::kVectorSize; ++i) {
        const float value = kScaledStages ? scale * values[i] : values[i];
        weights[i] = stage == 0 ? value : weights[i] + value;
      }
    }
  }

  /// Stages are added as they are.
  static constexpr bool kStageFactors = false;
  VQCC_DEVICE static float stage_factor(int /*stage*/) { return 1.0f; }

  /// One stage's entry as pairs of 16-bit elements, for tensor cores. Entries have the activations' type.
  static constexpr int kPairs = ceil_divide(Codes::kVectorSize, 2);
  template <ElementType kType, class Cache, class Code>
  VQCC_DEVICE static void decode_pairs(const Cache& cache, int book, int stage, Code code, uint32 (&pairs)[kPairs]) {
    static_assert(kType == Codes::kEntryType && Codes::kEntryStride == Codes::kVectorSize,
                  "entries go to the tensor cores as they are stored");
    const Entry entry = cache.access(book, stage, code);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) pairs[i] = entry.registers[i];
  }
};

}  // namespace vqcc
