// What a launch that appends works on: 32 slots at a time, each a token that gets codes.
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

  /// New token `token` of a sequence.
  VQCC_DEVICE const Element* new_row(int sequence, int token) const {
    return tokens + sequence * strides.sequence + token * strides.token + head * strides.head;
  }
};

/// One of the 32 slots of a turn: a position of a sequence, which has a code if it is not negative. Turns take the slots of
/// a token block, or, if kSingle, the one new position of each of 32 sequences.
template <class Shape, bool kSingle>
struct Slot {
  int sequence;
  int position;
  bool present;
  Appended<Shape> appended;

  /// Slot `index` of sequences from `first_sequence` on, or of token block `block` of that sequence, counted from the first
  /// that gets tokens.
  template <class Arguments>
  VQCC_DEVICE static Slot of(const Arguments& arguments, int first_sequence, int block, int index) {
    const int sequence = kSingle ? first_sequence + index : first_sequence;
    Slot slot;
    // No branch, so that loads need not wait for one another: who has no sequence reads another's.
    slot.sequence = smaller(sequence, arguments.batch - 1);
    slot.appended = Appended<Shape>::of(arguments, slot.sequence);
    slot.position = kSingle ? slot.appended.length - 1 - Shape::kWindow
                            : (slot.appended.first_block() + block) * kBlockTokens + index;
    slot.present = sequence < arguments.batch && slot.appended.has(slot.position);
    return slot;
  }

  VQCC_DEVICE bool encoded() const { return present && position >= 0; }

  /// The key or value to encode: a new one, or one that leaves the window; some row of the sequence if there is none.
  template <class Element>
  VQCC_DEVICE const Element* row(const AppendedSide<Element>& side) const {
    if (kSingle && Shape::kWindow == 0) return side.new_row(sequence, 0);  // whatever the sequence's length
    const int token = encoded() ? position - appended.first : 0;
    if (Shape::kWindow == 0 || token >= 0) return side.new_row(sequence, token);
    return window_row<Shape, const Element>(side.window, sequence, side.head, position);
  }
};

/// Where a slot's codes go, as warps tell each other: the kv-head's token block, and which token of it; -1 if it has none.
struct CodePlace {
  uint8* block;
  int token;
};

}  // namespace vqcc
