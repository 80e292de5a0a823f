// Encoding of keys and values by their nearest entries, and of codes in the kernels' layout.
#pragma once

#include "window.cuh"

namespace vqcc {

/// Parameters of one launch: new keys and values [batch, new tokens, kv heads, head_dim] with strides. Lengths count the
/// new tokens, of which a sequence has counts[sequence] (null: all), at its end.
template <class Element>
struct AppendArguments {
  const Element* keys;
  const Element* values;
  uint8* pages;
  const uint8* key_books;
  const uint8* value_books;
  const int* lengths;
  const int* counts;
  const int* page_table;
  Element* key_window;
  Element* value_window;
  int batch;
  int new_tokens;
  int page_table_stride;
  int page_blocks;
  RowStrides key_strides;
  RowStrides value_strides;
};

/// What a sequence gets: for each new token, at position p + window, the one at p is encoded. Positions below zero stand
/// for tokens that find the window not yet full.
template <class Shape>
struct Appended {
  int length;
  int first;  // position of the first new token

  template <class Arguments>
  VQCC_DEVICE static Appended of(const Arguments& arguments, int sequence) {
    const int length = load<Space::kGlobal>(arguments.lengths + sequence);
    const int count =
        arguments.counts == nullptr ? arguments.new_tokens : load<Space::kGlobal>(arguments.counts + sequence);
    return {length, length - smaller(count, length)};  // an empty sequence gets nothing
  }
  /// The token block that the first of these positions is in, and how many blocks they are in.
  VQCC_DEVICE int first_block() const { return block_of(first - Shape::kWindow); }
  VQCC_DEVICE int blocks() const {
    return length > first ? block_of(length - 1 - Shape::kWindow) - first_block() + 1 : 0;
  }
  VQCC_DEVICE bool has(int position) const {
    return position >= first - Shape::kWindow && position < length - Shape::kWindow;
  }

 private:
  VQCC_DEVICE static int block_of(int position) {  // rounded down
    return position >= 0 ? position / kBlockTokens : -ceil_divide(-position, kBlockTokens);
  }
};

/// Keys or values of one kv-head as an encoder reads and writes them: kChannels neighbouring ones from `channel` on.
template <class Element>
struct AppendedSide {
  const Element* tokens;
  RowStrides strides;
  Element* window;
  const uint8* books;
  int head;
  int channel;
};

/// Encodes kGroups channel groups of one kv-head's keys (kIsKeys) or values. A turn takes 32 slots, each a position of a
/// sequence: those of a token block, or, if kSingle, the one new position of each of 32 sequences. Warps find the nearest
/// entries for a group and some slots, a lane comparing every 32nd entry, ties going to the lower one. Then threads put
/// codes together to words.
///
/// Codes of a token block that no token has yet are zero. A key's kGroups codes are whole words, and a value's stream is
/// one thread's: nobody else writes them.
template <class Algorithm, class Books, class Pages, class Streams, class Shape, class Tile, int kGroups, int kOffset,
          bool kIsKeys, KeyOrder kOrder, bool kSingle>
class Encoder {
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AppendArguments<Element>;
  using Side = AppendedSide<Element>;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kStages = Algorithm::kResiduals;
  static constexpr int kTeams = kWarps > kGroups ? kWarps / kGroups : 1;  // warps that share a group's slots
  static constexpr int kLaneEntries = ceil_divide(Algorithm::kEntries, kWarpSize);
  static constexpr bool kRotated = kOrder == KeyOrder::kRotated;
  static constexpr int kTokenBits = kStages * Algorithm::kCodeBits;  // of a stream

 public:
  static constexpr int kSharedBytes = kBlockTokens * kGroups * kStages * 4;

  /// One of 32 slots: a position of a sequence, which has a code if it is not negative.
  struct Slot {
    int sequence;
    int position;
    bool present;
    Appended<Shape> appended;

    VQCC_DEVICE bool encoded() const { return present && position >= 0; }
  };

  VQCC_DEVICE static Slot slot_of(const Arguments& arguments, int first_sequence, int block, int index) {
    Slot slot = {};
    slot.sequence = kSingle ? first_sequence + index : first_sequence;
    if (slot.sequence >= arguments.batch) return slot;
    slot.appended = Appended<Shape>::of(arguments, slot.sequence);
    slot.position = kSingle ? slot.appended.length - 1 - Shape::kWindow
                            : (slot.appended.first_block() + block) * kBlockTokens + index;
    slot.present = slot.appended.has(slot.position);
    return slot;
  }

  /// A turn: of sequences from `first_sequence` on, or of token block `block` of that sequence, counted from its first.
  VQCC_DEVICE static void turn(const Arguments& arguments, const Pages& pages, const Side& side, int first_sequence,
                               int block) {
    uint32* codes = reinterpret_cast<uint32*>(dynamic_shared());
    for (int i = warp_index(); i < kGroups * kTeams; i += kWarps) {
      const int group = i % kGroups;
      for (int index = i / kGroups; index < kBlockTokens; index += kTeams) {
        const Slot slot = slot_of(arguments, first_sequence, block, index);
        if (slot.encoded()) encode(side, slot, group, codes + (index * kGroups + group) * kStages);
      }
    }
    block_barrier();
    fill_window(arguments, side, first_sequence, block);
    if constexpr (kIsKeys && kOrder == KeyOrder::kFragment) {
      write_key_bytes(arguments, pages, side, first_sequence, block, codes);
    } else if constexpr (kIsKeys) write_keys(arguments, pages, side, first_sequence, block, codes);
    else write_values(arguments, pages, side, first_sequence, block, codes);
    block_barrier();  // codes have been read
  }

 private:
  // ---- Nearest entries -------------------------------------------------------------------------------------

  /// The codes of one vector, by a warp: each stage's nearest entry to what the stages before have left.
  VQCC_DEVICE static void encode(const Side& side, const Slot& slot, int group, uint32* codes) {
    const int channel = side.channel + group * kVectorSize;
    const Element* row = slot.position >= slot.appended.first
                             ? new_row(side, slot, slot.position)
                             : window_row<Shape, const Element>(side.window, slot.sequence, side.head, slot.position);
    float rest[kVectorSize];
    load_vector(row + channel, rest);
    const int group_of_head = channel / kVectorSize;
    const int first_book = Books::kBooksByHead ? side.head * Books::kHeadBooks : 0;
    const int book = first_book + (Books::kHeadBooks > 1 ? group_of_head : 0);
    const uint8* entries = side.books + static_cast<int64>(book) * Algorithm::kTableBytes;
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage, entries += Algorithm::kStageBytes) {
      float nearest = infinity();
      uint32 code = 0;
#pragma unroll 4
      for (int i = 0; i < kLaneEntries; ++i) {
        const uint32 entry = static_cast<uint32>(i * kWarpSize + lane_index());
        if (entry >= static_cast<uint32>(Algorithm::kEntries)) break;
        const float distance = distance_to(entries + entry * static_cast<uint32>(Algorithm::kEntryBytes), rest);
        if (distance < nearest) {
          nearest = distance;
          code = entry;
        }
      }
#pragma unroll
      for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
        const float other = exchange_xor(nearest, mask);
        const uint32 other_code = exchange_xor(code, mask);
        const bool better = other < nearest || (other == nearest && other_code < code);
        nearest = better ? other : nearest;
        code = better ? other_code : code;
      }
      if (lane_index() == 0) codes[stage] = code;
      if (kStages > 1) {
        float values[kVectorSize];
        load_entry(entries + code * static_cast<uint32>(Algorithm::kEntryBytes), values);
#pragma unroll
        for (int c = 0; c < kVectorSize; ++c) rest[c] = rest[c] - values[c];
      }
    }
  }

  /// The squared distance, each difference, square and sum rounded: what NumPy gives in float32.
  VQCC_DEVICE static float distance_to(const uint8* entry, const float (&vector)[kVectorSize]) {
    float values[kVectorSize];
    load_entry(entry, values);
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) {
      const float difference = vector[c] - values[c];
      sum = rounded_sum(sum, rounded_product(difference, difference));
    }
    return sum;
  }

  VQCC_DEVICE static void load_entry(const uint8* entry, float (&values)[kVectorSize]) {
    float padded[Algorithm::kEntryStride];
    Algorithm::Entry::template load_from<Space::kGlobal>(entry).to_float(padded);
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) values[c] = padded[c];
  }

  VQCC_DEVICE static void load_vector(const Element* channels, float (&values)[kVectorSize]) {
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) values[c] = fresh_element(channels + c);
  }

  VQCC_DEVICE static const Element* new_row(const Side& side, const Slot& slot, int position) {
    return side.tokens + slot.sequence * side.strides.sequence +
           (position - slot.appended.first) * side.strides.token + side.head * side.strides.head;
  }

  // ---- What is written -------------------------------------------------------------------------------------

  /// Of each slot of the window that a token leaves, the newest token that belongs there. Whoever encodes the old one does
  /// it: nobody else reads or writes the slot.
  VQCC_DEVICE static void fill_window(const Arguments& arguments, const Side& side, int first_sequence, int block) {
    if constexpr (Shape::kWindow > 0) {
      constexpr int kChannels = kGroups * kVectorSize;
      for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kChannels; i += kThreads) {
        const Slot slot = slot_of(arguments, first_sequence, block, i / kChannels);
        if (!slot.present || slot.position >= slot.appended.first) continue;
        const int newest = slot.appended.length - 1;
        const int position = newest - (newest - slot.position) % Shape::kWindow;
        const int channel = side.channel + i % kChannels;
        window_row<Shape>(side.window, slot.sequence, side.head, position)[channel] =
            new_row(side, slot, position)[channel];
      }
    }
  }

  /// A thread for each slot: the words of its codes, and zeros for tokens after it if it is its block's first or last.
  VQCC_DEVICE static void write_keys(const Arguments& arguments, const Pages& pages, const Side& side,
                                     int first_sequence, int block, const uint32* codes) {
    constexpr int kWords = ceil_divide(kGroups * kTokenBits, 32);
    const int first_group = side.channel / kVectorSize;
    const int set = first_group / Pages::KeyCodes::kSetGroups;
    const int in_set = first_group % Pages::KeyCodes::kSetGroups;
    for (int index = static_cast<int>(threadIdx.x); index < kBlockTokens; index += kThreads) {
      const Slot slot = slot_of(arguments, first_sequence, block, index);
      if (!slot.encoded()) continue;
      uint8* streams = const_cast<uint8*>(pages.block_of(slot.sequence, side.head, slot.position / kBlockTokens)) +
                       set * Streams::kBytes;
      const int token = slot.position % kBlockTokens;
      // Rotation keeps runs of a power of two together: their positions are a run, in another order.
      const int rotation = kRotated ? token % kGroups : 0;
      const int first_position = kRotated ? (in_set ^ (token % Pages::KeyCodes::kSetGroups)) & ~(kGroups - 1) : in_set;
      uint32 words[kWords] = {};
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
#pragma unroll
        for (int stage = 0; stage < kStages; ++stage) {
          put(words, i * kTokenBits + stage * Algorithm::kCodeBits,
              codes[(index * kGroups + (i ^ rotation)) * kStages + stage]);
        }
      }
      const int first_word = first_position * kTokenBits / 32;
      const int end = token == 0 ? kBlockTokens : token + 1;
      for (int other = token; other < end; ++other) {
        if (other > token && !kSingle && slot.appended.has(slot.position - token + other)) continue;
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
          const int word = other == token ? first_word + w : words_of_other(in_set, other, w);
          store(reinterpret_cast<uint32*>(streams + Streams::offset_of(other, word)), other == token ? words[w] : 0u);
        }
      }
    }
  }
  /// The same in the order of fragments: a byte for each code.
  VQCC_DEVICE static void write_key_bytes(const Arguments& arguments, const Pages& pages, const Side& side,
                                          int first_sequence, int block, const uint32* codes) {
    using Order = FragmentOrder<Algorithm, Shape::kHeadDim>;
    static_assert(kTokenBits == 8, "a code is a byte, and there is one");
    const int first_group = side.channel / kVectorSize;
    for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kGroups; i += kThreads) {
      const Slot slot = slot_of(arguments, first_sequence, block, i / kGroups);
      if (!slot.encoded()) continue;
      uint8* streams = const_cast<uint8*>(pages.block_of(slot.sequence, side.head, slot.position / kBlockTokens));
      const int token = slot.position % kBlockTokens;
      const int group = first_group + i % kGroups;
      const int end = token == 0 ? kBlockTokens : token + 1;
      for (int other = token; other < end; ++other) {
        if (other > token && !kSingle && slot.appended.has(slot.position - token + other)) continue;
        const int index = Order::index_of(other, group);
        uint8* place = streams + index / (4 * Streams::kChunkWords) * Streams::kBytes +
                       Streams::offset_of(Order::lane_of(other, group), index / 4 % Streams::kChunkWords) + index % 4;
        store(place, static_cast<uint8>(other == token ? codes[i] : 0u));
      }
    }
  }

  VQCC_DEVICE static int words_of_other(int in_set, int token, int w) {
    const int position = kRotated ? (in_set ^ (token % Pages::KeyCodes::kSetGroups)) & ~(kGroups - 1) : in_set;
    return position * kTokenBits / 32 + w;
  }

  /// A thread for each group, of the one token block or of each slot's: the codes before its tokens stay, those after are
  /// zero.
  VQCC_DEVICE static void write_values(const Arguments& arguments, const Pages& pages, const Side& side,
                                       int first_sequence, int block, const uint32* codes) {
    constexpr int kUnits = (kSingle ? kBlockTokens : 1) * kGroups;
    for (int i = static_cast<int>(threadIdx.x); i < kUnits; i += kThreads) {
      const int group = i % kGroups;
      int index = kSingle ? i / kGroups : 0;
      Slot slot = slot_of(arguments, first_sequence, block, index);
      while (!kSingle && !slot.encoded() && ++index < kBlockTokens) {
        slot = slot_of(arguments, first_sequence, block, index);
      }
      if (!slot.encoded()) continue;
      int end = index + 1;
      while (!kSingle && end < kBlockTokens && slot_of(arguments, first_sequence, block, end).encoded()) ++end;
      uint8* streams = const_cast<uint8*>(pages.block_of(slot.sequence, side.head, slot.position / kBlockTokens)) +
                       kOffset;
      const int lane = side.channel / kVectorSize + group;
      const int first_token = slot.position % kBlockTokens;
      const int first_bit = first_token * kTokenBits;
      const int end_bit = (first_token + end - index) * kTokenBits;
#pragma unroll 1
      for (int w = 0; w < Streams::kChunkWords; ++w) {
        // Words before are other tokens'; words after are zero already, unless this is the first token.
        if (w * 32 + 32 <= first_bit || (w * 32 >= end_bit && first_token > 0)) continue;
        uint32* place = reinterpret_cast<uint32*>(streams + Streams::offset_of(lane, w));
        const int kept = first_bit - w * 32;
        uint32 word = kept > 0 ? load_fresh(place) & ((1u << kept) - 1u) : 0u;
        for (int t = 0; t < end - index; ++t) {
#pragma unroll
          for (int stage = 0; stage < kStages; ++stage) {
            const int bit = (first_token + t) * kTokenBits + stage * Algorithm::kCodeBits - w * 32;
            const uint32 code = codes[((index + t) * kGroups + group) * kStages + stage];
            if (bit >= 0 && bit < 32) word |= code << bit;
            else if (bit < 0 && bit > -Algorithm::kCodeBits) word |= code >> -bit;
          }
        }
        store(place, word);
      }
    }
  }

  /// Puts a code at bit `bit` of some words; `bit` is a constant once loops are unrolled.
  template <int kWords>
  VQCC_DEVICE static void put(uint32 (&words)[kWords], int bit, uint32 code) {
    words[bit / 32] |= code << bit % 32;
    if (bit % 32 + Algorithm::kCodeBits > 32) words[smaller(bit / 32 + 1, kWords - 1)] |= code >> (32 - bit % 32);
  }
};

}  // namespace vqcc
