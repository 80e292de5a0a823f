// Codes as the packer wrote them: a chunk is what one lane reads at a time, a little-endian bit stream of
// kChunkVectors vectors of kResiduals codes of kCodeBits bits each, padded to whole 32-bit words.
#pragma once

#include "arch.cuh"
#include "elements.cuh"

namespace vqcc {

/// A code where it was packed: `width` bits from bit `shift` of `low` on, or of `high:low`. Whoever needs it as an address
/// takes the bits in as few instructions as that allows. `shift` and `width` are constants once loops are unrolled.
struct PackedCode {
  uint32 low;
  uint32 high;
  int shift;
  int width;

  VQCC_DEVICE uint32 value() const {
    const uint32 bits = shift + width > 32 ? funnel_right(low, high, shift) : low >> shift;
    return bits & ((1u << width) - 1u);  // code widths are 1 to 16 bits
  }
};

/// The bytes of a code of 16 bits.
VQCC_DEVICE uint32 lower_byte(uint32 code) { return code & 0xffu; }
VQCC_DEVICE uint32 upper_byte(uint32 code) { return code >> 8; }
VQCC_DEVICE PackedCode lower_byte(const PackedCode& code) { return {code.low, code.high, code.shift, 8}; }
VQCC_DEVICE PackedCode upper_byte(const PackedCode& code) { return {code.low, code.high, code.shift + 8, 8}; }

/// `Codes` names kCodeBits and kResiduals, `Layout` kChunkVectors and kChunkWords.
template <class Codes, class Layout>
struct CodeChunk {
  static constexpr int kWords = Layout::kChunkWords;
  static constexpr uint32 kMask = (1u << Codes::kCodeBits) - 1u;  // code widths are 1 to 16 bits
  /// Widest load that divides a chunk: chunks follow one another, so this is also their alignment.
  static constexpr int kLoadWords = kWords % 4 == 0 ? 4 : kWords % 2 == 0 ? 2 : 1;

  uint32 words[kWords];

  /// Chunk number `index` of a packed row.
  VQCC_DEVICE static CodeChunk load_from(const uint32* row, int index) {
    using Word = typename WordOf<kLoadWords * 4>::Type;
    const Word* source = reinterpret_cast<const Word*>(row + index * kWords);
    CodeChunk chunk;
#pragma unroll
    for (int w = 0; w < kWords / kLoadWords; ++w) {
      uint32 loaded[kLoadWords];
      to_registers(load_streaming(source + w), loaded);
#pragma unroll
      for (int r = 0; r < kLoadWords; ++r) chunk.words[w * kLoadWords + r] = loaded[r];
    }
    return chunk;
  }

  /// The codes of the first kStages stages of vector `vector`; `vector` is a constant once loops are unrolled.
  template <int kStages>
  VQCC_DEVICE void codes_of(int vector, uint32 (&codes)[kStages]) const {
#pragma unroll
    for (int r = 0; r < kStages; ++r) {
      const int bit = (vector * Codes::kResiduals + r) * Codes::kCodeBits;
      const int word = bit / 32;
      const int shift = bit % 32;
      const bool straddles = shift + Codes::kCodeBits > 32;
      const uint32 bits = straddles ? funnel_right(words[word], words[word + straddles], shift) : words[word] >> shift;
      codes[r] = bits & kMask;
    }
  }

  /// Makes stage `stage` of every vector the first one, for a block that works on the stages from there.
  VQCC_DEVICE void skip_stages(int stage) {
    const int bits = stage * Codes::kCodeBits;  // at most 7 codes of 16 bits
#pragma unroll
    for (int moved = 0; moved < (Codes::kResiduals - 1) * Codes::kCodeBits; moved += 32) {
      // Whole words first: a funnel shift moves by less than one.
      const bool whole = bits >= moved + 32;
#pragma unroll
      for (int w = 0; w < kWords; ++w) words[w] = whole ? next_word(w) : words[w];
    }
#pragma unroll
    for (int w = 0; w < kWords; ++w) words[w] = funnel_right(words[w], next_word(w), bits % 32);
  }

  /// Forgets the first `kVectors` vectors: what follows moves down to vector 0. Lets a loop over a chunk stay
  /// rolled without indexing registers at run time.
  template <int kVectors>
  VQCC_DEVICE void advance() {
    constexpr int kBits = kVectors * Codes::kResiduals * Codes::kCodeBits;
    constexpr int kSkip = kBits / 32;
    constexpr int kShift = kBits % 32;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const uint32 low = w + kSkip < kWords ? words[smaller(w + kSkip, kWords - 1)] : 0u;
      const uint32 high = w + kSkip + 1 < kWords ? words[smaller(w + kSkip + 1, kWords - 1)] : 0u;
      words[w] = kShift == 0 ? low : funnel_right(low, high, kShift);
    }
  }

 private:
  VQCC_DEVICE uint32 next_word(int w) const { return w + 1 < kWords ? words[smaller(w + 1, kWords - 1)] : 0u; }
};

}  // namespace vqcc
