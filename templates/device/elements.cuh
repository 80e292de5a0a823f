// Arrays of small elements: loaded by the widest aligned words, handed out as fp32.
#pragma once

#include "arch.cuh"

namespace vqcc {

template <ElementType kType> struct ElementTraits;
template <> struct ElementTraits<ElementType::kFloat16> {
  using Type = __half;
  static constexpr int kBytes = 2;
};
template <> struct ElementTraits<ElementType::kBfloat16> {
  using Type = __nv_bfloat16;
  static constexpr int kBytes = 2;
};
template <> struct ElementTraits<ElementType::kFloat32> {
  using Type = float;
  static constexpr int kBytes = 4;
};
template <> struct ElementTraits<ElementType::kInt8> {
  using Type = signed char;
  static constexpr int kBytes = 1;
};

VQCC_HOST_DEVICE constexpr int smaller(int a, int b) { return a < b ? a : b; }
VQCC_HOST_DEVICE constexpr int larger(int a, int b) { return a < b ? b : a; }
/// The largest power of two that is at most `value`; 1 for less.
VQCC_HOST_DEVICE constexpr int power_of_two_at_most(int value) {
  return value < 2 ? 1 : 2 * power_of_two_at_most(value / 2);
}
VQCC_HOST_DEVICE constexpr int ceil_divide(int a, int b) { return a / b + (a % b != 0 ? 1 : 0); }

/// `kCount` elements of `kType`, raw, in registers. The address must be aligned to `kAlignment` bytes, which
/// divides the array's size in bytes.
template <ElementType kType, int kCount, int kAlignment>
struct Elements {
  static constexpr int kBytes = kCount * ElementTraits<kType>::kBytes;
  static constexpr int kWordBytes = smaller(kAlignment, 16);
  static constexpr int kWordRegisters = ceil_divide(kWordBytes, 4);
  static constexpr int kWords = kBytes / kWordBytes;
  static_assert(kBytes % kWordBytes == 0, "elements are loaded by whole words");
  /// Elements held by one register of a loaded word.
  static constexpr int kPerRegister = smaller(4, kWordBytes) / ElementTraits<kType>::kBytes;

  uint32 registers[kWords * kWordRegisters];

  template <Space kSpace>
  VQCC_DEVICE static Elements load_from(const void* address) {
    using Word = typename WordOf<kWordBytes>::Type;
    Elements result;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      uint32 word[kWordRegisters];
      to_registers(load<kSpace>(static_cast<const Word*>(address) + w), word);
#pragma unroll
      for (int r = 0; r < kWordRegisters; ++r) result.registers[w * kWordRegisters + r] = word[r];
    }
    return result;
  }

  /// The elements as fp32; exact for every type.
  VQCC_DEVICE void to_float(float (&values)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint32 packed = registers[i / kPerRegister];
      const int slot = i % kPerRegister;
      if constexpr (kType == ElementType::kInt8) {
        values[i] = static_cast<float>(static_cast<signed char>(packed >> (8 * slot)));
      } else if constexpr (kType == ElementType::kFloat32) {
        values[i] = float_of_bits(packed);
      } else {
        const float2 pair = kType == ElementType::kFloat16 ? float16_pair(packed) : bfloat16_pair(packed);
        values[i] = slot == 0 ? pair.x : pair.y;
      }
    }
  }
};

/// One element as fp32.
template <ElementType kType>
VQCC_DEVICE float load_element(const void* array, int index) {
  constexpr int kBytes = ElementTraits<kType>::kBytes;
  float value[1];
  Elements<kType, 1, kBytes>::template load_from<Space::kGlobal>(static_cast<const uint8*>(array) +
                                                                static_cast<int64>(index) * kBytes)
      .to_float(value);
  return value[0];
}

}  // namespace vqcc
