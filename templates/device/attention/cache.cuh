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

  /// The stream of lane `lane`.
  VQCC_DEVICE static CodeChunk<Codes, StreamLayout> load_from(const uint8* streams, int lane) {
    using Word = typename WordOf<kPieceWords * 4>::Type;
    CodeChunk<Codes, StreamLayout> chunk;
#pragma unroll
    for (int w = 0; w < kChunkWords; w += kPieceWords) {
      uint32 piece[kPieceWords];
      to_registers(load_streaming(reinterpret_cast<const Word*>(streams + offset_of(lane, w))), piece);
#pragma unroll
      for (int i = 0; i < kPieceWords; ++i) chunk.words[w + i] = piece[i];
    }
    return chunk;
  }
};

/// Codes of keys in a token block: lane = token. A token's channel groups come in sets of up to 32, a stream for each. In
/// `kRotated` order position p of lane l is group p ^ l of the set, so that lanes that look tables of groups up together
/// meet different banks (score_table.cuh); else group p.
template <class Codes, int kHeadDim, bool kRotated>
struct KeyBlock {
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

/// Pages of token blocks. A page holds, for each kv-head, kPageBlocks token blocks, each the codes of keys, then of values;
/// a contiguous cache (kPageBlocks 0) has one page for each sequence, of as many blocks as a launch says.
template <class Keys, class Values, class Cache>
struct PackedCache {
  using KeyCodes = Keys;
  static constexpr int kBytes = Keys::kBytes + Values::kBytes;
  static_assert(Keys::kBytes % 16 == 0 && Values::kBytes % 16 == 0, "pieces are aligned");

  const uint8* pages;
  const int* table;   // [sequences, table_stride] of page numbers; null for a contiguous cache
  int table_stride;   // pages of a sequence, at most
  int page_blocks;

  /// Token block `block` of kv-head `head` of sequence `sequence`.
  VQCC_DEVICE const uint8* block_of(int sequence, int head, int block) const {
    int64 page = sequence;
    int place = block;
    if constexpr (Cache::kPageBlocks > 0) {
      page = load<Space::kGlobal>(table + static_cast<int64>(sequence) * table_stride + block / Cache::kPageBlocks);
      place = block % Cache::kPageBlocks;
    }
    const int blocks = Cache::kPageBlocks > 0 ? Cache::kPageBlocks : page_blocks;
    return pages + ((page * Cache::kHeads + head) * blocks + place) * kBytes;
  }
};

}  // namespace vqcc
