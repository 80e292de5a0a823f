// Codes of a turn's slots to words of the packed cache.
//
// Codes of a token block that no token has yet are zero: whoever writes its first token writes those too. A block's codes of
// a key are whole words, and a value's stream is one block's: nobody else writes them.
#pragma once

#include "slots.cuh"

namespace vqcc {

/// Codes of a turn lie in shared memory as [slot, kGroups, stages], for channel groups from `first_group` on.
template <class Algorithm, class Keys, KeyOrder kOrder, int kGroups, int kWarps, bool kSingle>
class KeyWriter {
  using Streams = typename Keys::Streams;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kStages = Algorithm::kResiduals;
  static constexpr int kTokenBits = kStages * Algorithm::kCodeBits;
  static constexpr int kWords = ceil_divide(kGroups * kTokenBits, 32);
  static constexpr bool kBytes = kOrder == KeyOrder::kFragment;
  static_assert(!kBytes || kTokenBits == 8, "a code is a byte, and there is one");

 public:
  VQCC_DEVICE static void write(const CodePlace* places, const uint32* codes, int first_group) {
    constexpr int kUnits = kBlockTokens * (kBytes ? kGroups : 1);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kUnits; i += kThreads) {
      const CodePlace place = places[kBytes ? i / kGroups : i];
      if (place.token < 0) continue;
      if constexpr (kBytes) {
        store(byte_of(place.block, place.token, first_group + i % kGroups), static_cast<uint8>(codes[i]));
      } else write_words(place, codes + i * kGroups * kStages, first_group);
    }
    // A warp for each first token of a block, a lane for each token after it.
#pragma unroll 1
    for (int i = warp_index(); i < kBlockTokens; i += kWarps) {
      const int token = lane_index();
      if (places[i].token != 0 || token == 0 || (!kSingle && places[token].token >= 0)) continue;
      clear(places[i].block, token, first_group);
    }
  }

 private:
  /// Position of the first of the groups in its set's stream: rotation keeps runs of a power of two together.
  VQCC_DEVICE static int first_position(int token, int first_group) {
    const int in_set = first_group % Keys::kSetGroups;
    return Keys::kRotated ? (in_set ^ (token % Keys::kSetGroups)) & ~(kGroups - 1) : in_set;
  }
  VQCC_DEVICE static uint32* word_of(uint8* block, int token, int first_group, int word) {
    uint8* streams = block + first_group / Keys::kSetGroups * Streams::kBytes;
    const int first_word = first_position(token, first_group) * kTokenBits / 32;
    return reinterpret_cast<uint32*>(streams + Streams::offset_of(token, first_word + word));
  }
  VQCC_DEVICE static uint8* byte_of(uint8* block, int token, int group) {
    using Order = FragmentOrder<Algorithm, Keys::kGroups * Algorithm::kVectorSize>;
    const int index = Order::index_of(token, group);
    return block + index / (4 * Streams::kChunkWords) * Streams::kBytes +
           Streams::offset_of(Order::lane_of(token, group), index / 4 % Streams::kChunkWords) + index % 4;
  }

  VQCC_DEVICE static void write_words(const CodePlace& place, const uint32* codes, int first_group) {
    const int rotation = Keys::kRotated ? place.token % kGroups : 0;  // of the run
    uint32 words[kWords] = {};
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
#pragma unroll
      for (int stage = 0; stage < kStages; ++stage) {
        put(words, i * kTokenBits + stage * Algorithm::kCodeBits, codes[(i ^ rotation) * kStages + stage]);
      }
    }
#pragma unroll
    for (int w = 0; w < kWords; ++w) store(word_of(place.block, place.token, first_group, w), words[w]);
  }

  VQCC_DEVICE static void clear(uint8* block, int token, int first_group) {
#pragma unroll
    for (int i = 0; i < (kBytes ? kGroups : kWords); ++i) {
      if constexpr (kBytes) store(byte_of(block, token, first_group + i), uint8{0});
      else store(word_of(block, token, first_group, i), 0u);
    }
  }

  /// Puts a code at bit `bit` of some words; `bit` is a constant once loops are unrolled.
  VQCC_DEVICE static void put(uint32 (&words)[kWords], int bit, uint32 code) {
    words[bit / 32] |= code << bit % 32;
    if (bit % 32 + Algorithm::kCodeBits > 32) words[smaller(bit / 32 + 1, kWords - 1)] |= code >> (32 - bit % 32);
  }
};

/// The same of values, whose codes begin kOffset bytes into a token block.
template <class Algorithm, class Values, int kOffset, int kGroups, int kWarps, bool kSingle>
class ValueWriter {
  using Streams = typename Values::Streams;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kStages = Algorithm::kResiduals;
  static constexpr int kTokenBits = kStages * Algorithm::kCodeBits;
  static constexpr int kWords = Streams::kChunkWords;
  static constexpr bool kWholeBytes = kTokenBits == 8 || kTokenBits == 16 || kTokenBits == 32;

  /// Tokens of a block that get codes, from `first` to before `end`, and the slot of the first.
  struct Run {
    int first;
    int end;
    int slot;
  };

 public:
  VQCC_DEVICE static void write(const CodePlace* places, const uint32* codes, int first_group) {
    if constexpr (kSingle) {
      write_ones(places, codes, first_group);
      clear_after_first(places, first_group);
    } else write_block(places, codes, first_group);
  }

 private:
  VQCC_DEVICE static uint32* word_of(uint8* block, int group, int word) {
    return reinterpret_cast<uint32*>(block + kOffset + Streams::offset_of(group, word));
  }

  /// A thread for each slot and group.
  VQCC_DEVICE static void write_ones(const CodePlace* places, const uint32* codes, int first_group) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kGroups; i += kThreads) {
      const int slot = i / kGroups;
      const int group = first_group + i % kGroups;
      const CodePlace place = places[slot];
      if (place.token < 0) continue;
      const Run run = {place.token, place.token + 1, slot};
      const int first_bit = place.token * kTokenBits;
      if constexpr (kWholeBytes) {
        uint32* word = word_of(place.block, group, first_bit / 32);
        store_bytes(word, place.token, bits_of_token(codes + i * kStages));
        continue;
      }
#pragma unroll 1
      for (int w = first_bit / 32; w * 32 < first_bit + kTokenBits; ++w) {
        write_word(word_of(place.block, group, w), run, codes, i % kGroups, w);
      }
    }
  }

  /// A warp for each first token of a block: zeros in the words that it has no part of.
  VQCC_DEVICE static void clear_after_first(const CodePlace* places, int first_group) {
    constexpr int kFirst = ceil_divide(kTokenBits, 32);
#pragma unroll 1
    for (int i = warp_index(); i < kBlockTokens; i += kWarps) {
      if (places[i].token != 0) continue;
#pragma unroll 1
      for (int j = lane_index(); j < kGroups * (kWords - kFirst); j += kWarpSize) {
        store(word_of(places[i].block, first_group + j % kGroups, kFirst + j / kGroups), 0u);
      }
    }
  }

  /// A thread for each word of the token block that codes fall in: those before are other tokens', those after are zero
  /// already, unless the block's first token is among these.
  VQCC_DEVICE static void write_block(const CodePlace* places, const uint32* codes, int first_group) {
    const uint32 slots = lanes_where(places[lane_index()].token >= 0);  // a run; slot i is token i
    const int end = kBlockTokens - leading_zeros(slots);
    const Run run = {end - count_bits(slots), end, end - count_bits(slots)};
    if (slots == 0) return;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kGroups * kWords; i += kThreads) {
      const int w = i / kGroups;
      if (w * 32 + 32 <= run.first * kTokenBits || (w * 32 >= run.end * kTokenBits && run.first > 0)) continue;
      write_word(word_of(places[run.slot].block, first_group + i % kGroups, w), run, codes, i % kGroups, w);
    }
  }

  /// Word `w` of a group's stream: the codes before the run's stay, those after are zero.
  VQCC_DEVICE static void write_word(uint32* place, const Run& run, const uint32* codes, int group, int w) {
    const int kept = run.first * kTokenBits - w * 32;
    const uint32 before = kept > 0 ? load_fresh(place) & ((1u << kept) - 1u) : 0u;
    store(place, before | bits_of(run, codes, group, w * 32));
  }

  /// The 32 bits of a run's codes from bit `first_bit` of their stream on.
  VQCC_DEVICE static uint32 bits_of(const Run& run, const uint32* codes, int group, int first_bit) {
    uint32 bits = 0;
    const int first = run.first > first_bit / kTokenBits ? run.first : first_bit / kTokenBits;
    const int end = smaller(run.end, ceil_divide(first_bit + 32, kTokenBits));
#pragma unroll 1
    for (int token = first; token < end; ++token) {
      const uint32* own = codes + ((run.slot + token - run.first) * kGroups + group) * kStages;
#pragma unroll
      for (int stage = 0; stage < kStages; ++stage) {
        const int bit = token * kTokenBits + stage * Algorithm::kCodeBits - first_bit;
        if (bit >= 0 && bit < 32) bits |= own[stage] << bit;
        else if (bit < 0 && bit > -Algorithm::kCodeBits) bits |= own[stage] >> -bit;
      }
    }
    return bits;
  }

  /// A token's codes, which are whole bytes of `word`: those of the tokens before need not be read.
  VQCC_DEVICE static void store_bytes(uint32* word, int token, uint32 bits) {
    using Bits = typename WordOf<kWholeBytes ? kTokenBits / 8 : 4>::Type;
    if (token == 0) store(word, bits);
    else store(reinterpret_cast<Bits*>(word) + token % (32 / kTokenBits), static_cast<Bits>(bits));
  }
  VQCC_DEVICE static uint32 bits_of_token(const uint32* codes) {
    uint32 bits = 0;
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) bits |= codes[stage] << stage * Algorithm::kCodeBits;
    return bits;
  }
};

}  // namespace vqcc
