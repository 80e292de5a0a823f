// QuIP#'s E8P codebook: 65,536 points of a shifted E8 lattice computed from a table of 256 words (1 KB).
#pragma once

#include "../elements.cuh"

namespace vqcc {

/// `Codes` names kVectorSize (8), kResiduals (1 or 2), kCodeBits (16) and kTableBytes.
///
/// A code is a row of absolute values (upper byte) and eight signs (lower byte). A row is eight 4-bit fields,
/// field j holding 2 |v| + 8, always odd; fields 0 to 7 are elements 0, 2, 4, 6, 1, 3, 5, 7. An odd number of
/// set sign bits flips sign bit 0 and shifts the point by -1/4 instead of +1/4.
template <class Codes>
struct E8P : Codes {
  /// What the second stage's points are divided by (QuIP#'s 4-bit variant).
  static constexpr float kSecondStageScale = 1.0f / 3.45f;

  template <Space kSpace>
  VQCC_DEVICE static void decode(const uint8* table, const float* /*stage_scales*/,
                                 const uint32 (&codes)[Codes::kResiduals], float (&weights)[8]) {
#pragma unroll
    for (int stage = 0; stage < Codes::kResiduals; ++stage) {
      float point[8];
      decode_point<kSpace>(reinterpret_cast<const uint32*>(table), codes[stage], point);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        weights[i] = stage == 0 ? point[i] : fused_multiply_add(point[i], kSecondStageScale, weights[i]);
      }
    }
  }

 private:
  template <Space kSpace>
  VQCC_DEVICE static void decode_point(const uint32* table, uint32 code, float (&point)[8]) {
    const uint32 odd = parity(code & 0xffu);
    const uint32 signs = (code & 0xffu) ^ odd;
    // XOR with 14 negates an odd field about 8: 16 - f.
    const uint32 fields = load<kSpace>(table + (code >> 8)) ^ (spread_to_fields(signs) * 14u);
    // 0x5008 is 32.25 in float16; a field at mantissa bit 4 adds half its value: 36 + v + 1/4 in all.
    const float shift = odd ? -36.5f : -36.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32 pair = (fields >> (4 * i)) & 0x000f000fu;
      const float2 values = float16_pair((pair << 4) | 0x50085008u);
      point[2 * i] = values.x + shift;
      point[2 * i + 1] = values.y + shift;
    }
  }

  /// Bit j of a byte to bit 4 j.
  VQCC_DEVICE static uint32 spread_to_fields(uint32 byte) {
    byte = (byte | byte << 12) & 0x000f000fu;
    byte = (byte | byte << 6) & 0x03030303u;
    return (byte | byte << 3) & 0x11111111u;
  }
};

}  // namespace vqcc
