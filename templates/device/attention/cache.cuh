// The packed cache: where the codes of a head's tokens lie, for the kernels that read them and the one that appends.
#pragma once

#include "../unpack.cuh"

namespace vqcc {

/// Tokens whose codes lie together; lane l of a warp has token l.
constexpr int kBlockTokens = kWarpSize;

/// A lane's codes of one token block: a little-endian bit stream of kVectors vectors of all stages. Streams are padded to
/// whole words, and pieces of them lie side by side over kLanes lanes, so that a warp reads whole lines.
template <class Codes, int kVectors, int kLanes>
struct StreamLayout {
  static constexpr int kChunkVectors = kVectors;
  static constexpr int kChunkWords = ceil_divide(kVectors * Codes::kResiduals * Codes::kCodeBits, 32);
  static constexpr int kPieceWords = kChunkWords % 4 == 0 ? 4 : kChunkWords % 2 == 0 ? 2 : 1;
  static constexpr int kBytes = kChunkWords * 4 * kLanes;

  /// Word `word` of lane `lane`'s stream in the bytes at `streams`.
  VQCC_HOST_DEVICE static constexpr int offset_of(int lane, int word) {
    return (word / kPieceWords * kLanes + lane) * kPieceWords * 4 + word % kPieceWords * 4;
  }

  /// The words of lane `lane`'s stream; from global memory as what is read once.
  template <Space kSpace>
  VQCC_DEVICE static void take(const uint8* streams, int lane, uint32 (&words)[kChunkWords]) {
    using Word = typename WordOf<kPieceWords * 4>::Type;
#pragma unroll
    for (int w = 0; w < kChunkWords; w += kPieceWords) {
      const Word* address = reinterpret_cast<const Word*>(streams + offset_of(lane, w));
      uint32 piece[kPieceWords];
      if constexpr (kSpace == Space::kShared) to_registers(load<Space::kShared>(address), piece);
      else to_registers(load_streaming(address), piece);
#pragma unroll
      for (int i = 0; i < kPieceWords; ++i) words[w + i] = piece[i];
    }
  }

  /// The stream of lane `lane`.
  VQCC_DEVICE static CodeChunk<Codes, StreamLayout> load_from(const uint8* streams, int lane) {
    CodeChunk<Codes, StreamLayout> chunk;
    take<Space::kGlobal>(streams, lane, chunk.words);
    return chunk;
  }
};

/// In what order a token block's keys lie: position p of token t's stream is channel group p (kPlain), or group p ^ t, so
/// that lanes that look tables of groups up together meet different banks (kRotated); or codes lie as operands of tensor
/// cores want them (kFragment, FragmentOrder).
enum class KeyOrder { kPlain, kRotated, kFragment };

/// Keys as operand B of m16n8k16, columns tokens: lane 4 g + t of a warp has tokens g, g + 8, g + 16 and g + 24, an octet
/// each, and of every kBlockGroups groups, 16 channels or more, group t (and t + 4). Octet after octet, it meets the
/// blocks of a token in the order of step ^ turn, so that no two lanes that look up at a time meet in a bank
/// (entry_rows.cuh).
template <class Codes, int kHeadDim>
struct FragmentOrder {
  static constexpr int kGroups = kHeadDim / Codes::kVectorSize;
  static constexpr int kBlockGroups = Codes::kVectorSize == 2 ? 8 : 4;
  static constexpr int kSteps = kGroups / kBlockGroups;
  static constexpr int kStepLookUps = kBlockGroups / 4;
  static constexpr int kOctets = kBlockTokens / 8;
  /// Turns of tokens: the rows of operand A that are one query's have four; entries of 4 bytes need eight.
  static constexpr int kTurns = smaller(kSteps, Codes::kVectorSize == 2 ? 8 : 4);

  VQCC_HOST_DEVICE static constexpr int turn_of(int token) { return token % 8 % kTurns; }
  /// Look-up `look_up` of step `step`: tokens of the upper four of eight turns meet the halves of a block the other way
  /// round.
  VQCC_HOST_DEVICE static constexpr int group_of(int turn, int member, int step, int look_up) {
    return (step ^ turn) * kBlockGroups + member + (look_up ^ turn / 4 % kStepLookUps) * 4;
  }
  /// The lane that has a token's channel group, and which of its codes that is.
  VQCC_HOST_DEVICE static constexpr int lane_of(int token, int group) { return token % 8 * 4 + group % 4; }
  VQCC_HOST_DEVICE static constexpr int index_of(int token, int group) {
    const int turn = turn_of(token);
    const int look_up = group % kBlockGroups / 4 ^ turn / 4 % kStepLookUps;
    return (token / 8 * kSteps + (group / kBlockGroups ^ turn)) * kStepLookUps + look_up;
  }
};

/// Codes of keys in a token block: lane = token, but for KeyOrder::kFragment. A token's channel groups come in sets of up
/// to 32, a stream for each.
template <class Codes, int kHeadDim, KeyOrder kOrder>
struct KeyBlock {
  static constexpr bool kRotated = kOrder == KeyOrder::kRotated;
  static constexpr int kGroups = kHeadDim / Codes::kVectorSize;
  static constexpr int kSetGroups = smaller(kGroups, kWarpSize);
  static constexpr int kSets = kGroups / kSetGroups;
  using Streams = StreamLayout<Codes, kSetGroups, kBlockTokens>;
  static constexpr int kBytes = kSets * Streams::kBytes;
  static_assert(kHeadDim % Codes::kVectorSize == 0 && (kGroups & (kGroups - 1)) == 0, "groups are a power of two");

  /// The channel group at position `position` of set `set`, or the position of a group: the map is its own inverse.
  VQCC_HOST_DEVICE static constexpr int group_of(int set, int position, int token) {
    return set * kSetGroups + (kRotated ? (position ^ token) % kSetGroups : position);
  }
};

/// Codes of values in a token block: lane = channel group, a stream of all the block's tokens for each.
template <class Codes, int kHeadDim>
struct ValueBlock {
  static constexpr int kGroups = kHeadDim / Codes::kVectorSize;
  using Streams = StreamLayout<Codes, kBlockTokens, kGroups>;
  static constexpr int kBytes = Streams::kBytes;
};

/// Starts to copy a token block's codes to shared memory, 16 bytes of a lane at a time. One warp.
template <int kBytes>
VQCC_DEVICE void copy_codes(uint8* shared, const uint8* global) {
#pragma unroll
  for (int i = 0; i < kBytes; i += kWarpSize * 16) {
    const int own = i + lane_index() * 16;
    if (kBytes % (kWarpSize * 16) == 0 || own < kBytes) {
      start_copy(reinterpret_cast<uint4*>(shared + own), reinterpret_cast<const uint4*>(global + own));
    }
  }
}

/// The number of the book by rows that kv-head `head` has: its own, or the one of all heads.
template <class Cache>
VQCC_DEVICE int book_of(int head) {
  return Cache::kBooksByHead ? head : 0;
}

/// Pages of token blocks. A page holds, for each kv-head, kPageBlocks token blocks, each the codes of keys, then of values;
/// a contiguous cache (kPageBlocks 0) has one page for each sequence, of as many blocks as a launch says.
template <class Keys, class Values, class Cache>
struct PackedCache {
  static constexpr int kBytes = Keys::kBytes + Values::kBytes;
  static_assert(Keys::kBytes % 16 == 0 && Values::kBytes % 16 == 0, "pieces are aligned");

  const uint8* pages;
  const int* table;   // [sequences, table_stride] of page numbers; null for a contiguous cache
  int table_stride;   // pages of a sequence, at most
  int page_blocks;

  /// Token block `block` of kv-head `head` of sequence `sequence`.
  VQCC_DEVICE const uint8* block_of(int sequence, int head, int block) const {
    return block_in(page_of(sequence, block), head, block);
  }

  /// The same in two steps: the page that has it, which a paged cache loads, and where it is there.
  VQCC_DEVICE int page_of(int sequence, int block) const {
    if constexpr (Cache::kPageBlocks == 0) return sequence;
    else return load<Space::kGlobal>(table + static_cast<int64>(sequence) * table_stride + block / Cache::kPageBlocks);
  }
  VQCC_DEVICE const uint8* block_in(int page, int head, int block) const {
    const int blocks = Cache::kPageBlocks > 0 ? Cache::kPageBlocks : page_blocks;
    const int place = Cache::kPageBlocks > 0 ? block % Cache::kPageBlocks : block;
    return pages + ((static_cast<int64>(page) * Cache::kHeads + head) * blocks + place) * kBytes;
  }
};

}  // namespace vqcc
