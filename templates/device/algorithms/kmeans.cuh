// K-means codebooks: a weight vector is the sum over residual stages of one stored entry each.
#pragma once

#include "../elements.cuh"

namespace vqcc {

/// `Codes` names kVectorSize, kEntries, kResiduals, kCodeBits, kEntryStride (stored elements of an entry,
/// padding included), kEntryType and kTableBytes.
template <class Codes>
struct KMeans : Codes {
  static constexpr bool kScaledStages = Codes::kEntryType == ElementType::kInt8;
  static constexpr int kEntryBytes = Codes::kEntryStride * ElementTraits<Codes::kEntryType>::kBytes;
  static constexpr int kStageBytes = Codes::kEntries * kEntryBytes;
  static_assert(Codes::kResiduals * kStageBytes <= Codes::kTableBytes, "every stage lies inside the table");

  /// The weights that `codes` stand for, before row, group or tensor scales. `table` is one codebook, stage by
  /// stage; `stage_scales` the fp32 scale of each stage of an int8 codebook.
  template <Space kSpace>
  VQCC_DEVICE static void decode(const uint8* table, const float* stage_scales,
                                 const uint32 (&codes)[Codes::kResiduals], float (&weights)[Codes::kVectorSize]) {
    using Entry = Elements<Codes::kEntryType, Codes::kEntryStride, smaller(kEntryBytes, 16)>;
#pragma unroll
    for (int stage = 0; stage < Codes::kResiduals; ++stage) {
      const Entry entry =
          Entry::template load_from<kSpace>(table + stage * kStageBytes + codes[stage] * static_cast<uint32>(kEntryBytes));
      float values[Codes::kEntryStride];
      entry.to_float(values);
      const float scale = kScaledStages ? load<Space::kGlobal>(stage_scales + stage) : 1.0f;
#pragma unroll
      for (int i = 0; i < Codes::kVectorSize; ++i) {
        const float value = kScaledStages ? scale * values[i] : values[i];
        weights[i] = stage == 0 ? value : weights[i] + value;
      }
    }
  }
};

}  // namespace vqcc
