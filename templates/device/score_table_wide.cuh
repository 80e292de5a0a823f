// Score tables of 4096 entries: codes of twelve bits, one row of x.
#pragma once

#include "score_table.cuh"

namespace vqcc {

/// Tables of kTables vectors of one row of x, for codes of twelve bits. Scores are scaled float16.
///
/// Entry e of table t lies at e / 4 * 128 + t * 8 + e % 4 * 2: a table has two banks of its own. Lane l looks table
/// (l ^ s) % 16 up at step s, so the two lanes that meet in a table take two wavefronts, or one. Rotation alone, without
/// banks of its own for each table, would leave three.
///
/// A row's sixteen codes are 24 bytes: first the high eight bits of each, then two words of the low four bits. Byte k of
/// such a word has, from the lowest bit, the low two bits of code k; the high two of code 4 + (k - 1) % 4; the low two
/// of code 4 + k; the high two of code k (docs/packed-layout.md). So four codes' low bits are where their offsets want
/// them after one mask, and those of the other four after a rotation and the same mask.
template <class Algorithm, ElementType kType, int kWarps>
class WideScoreTable {
 public:
  static constexpr bool kScaled = true;
  static constexpr int kSetTables = 16;
  static constexpr int kTables = kSetTables;
  static constexpr int kEntries = 4096;
  static constexpr int kRegionBytes = kEntries * kTables * 2;
  static constexpr int kRunBytes = 8;
  static constexpr int kCodeWords = 6;
  static constexpr bool kCodesStaged = false;  // few enough to be on their way in registers, which spares shared memory
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;
  static constexpr int kDepth = ceil_divide(kPairs, 4);
  static_assert(Algorithm::kTableEntries == kEntries && Algorithm::kCodeBits == 12, "codes have twelve bits");
  static_assert(kVectorSize % 2 == 0 && 16 % kVectorSize == 0, "vectors fill whole registers of a fragment");
  static_assert(Algorithm::kEntryBytes == 4 * kPairs, "entries have no padding");
  static constexpr int kEntryTiles = kEntries / 8;
  static constexpr int kTiles = ceil_divide(kEntryTiles, kWarps);  // of a warp, at most

  /// x for all tables as operand A, and tiles of eight entries as operand B.
  struct Operands {
    uint32 x[2 * kDepth];
    uint32 entries[kTiles][kDepth];
  };

  using Scales = ScoreScales<kType, 1>;

  /// Sums of a lane over the codes that it has looked up.
  struct Sums {
    float values[2] = {};

    VQCC_DEVICE float total(int /*row*/) const { return values[0] + values[1]; }
  };

  VQCC_DEVICE static int own_set() { return 0; }

  /// As ByteScoreTable's.
  template <bool kWhole, class RowOf>
  VQCC_DEVICE static void load_operands(Operands& operands, const RowOf& row_of, int vectors, const uint8* entries) {
    const int g = lane_index() / 4;
    const int own_pair = lane_index() % 4;
    const bool own = kPairs % 4 == 0 || own_pair < kPairs;
    const uint32* x = reinterpret_cast<const uint32*>(row_of(0)) + g * kPairs + own_pair;
    const uint32* entry = reinterpret_cast<const uint32*>(entries) + (tile_of(0) * 8 + g) * kPairs + own_pair;
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const bool present = own && (kWhole || g + 8 * upper < vectors);
        operands.x[2 * d + upper] = present ? load<Space::kGlobal>(x + upper * 8 * kPairs + 4 * d) : 0u;
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const bool present = own && (kEntryTiles % kWarps == 0 || tile_of(n) < kEntryTiles);
        operands.entries[n][d] = present ? load<Space::kGlobal>(entry + n * kWarps * 8 * kPairs + 4 * d) : 0u;
      }
    }
  }

  /// Writes this warp's share of a region; the operands are scaled where they are. A multiply leaves entries 2 t and
  /// 2 t + 1 of tables g and g + 8 in a lane, which are two words. Lanes of entries 4 to 7 store those of table g + 8
  /// first: the 32 lanes meet 32 banks.
  VQCC_DEVICE static void build(uint8* region, Operands& operands, const Scales& scales) {
#pragma unroll
    for (uint32& pair : operands.x) pair = scales.up(0, pair);
    const int g = lane_index() / 4;
    const int t = lane_index() % 4;
    const bool upper = t / 2 != 0;
    uint8* place = region + (tile_of(0) * 2 + t / 2) * 128 + (g + (upper ? 8 : 0)) * 8 + t % 2 * 4;
    uint8* other = place + (upper ? -64 : 64);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if (n + 1 == kTiles && kEntryTiles % kWarps != 0 && tile_of(n) >= kEntryTiles) break;
      float scores[4] = {};
      multiply_fragments<kType>(scores, operands.x, operands.entries[n]);
      uint32 pairs[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) pairs[i] = to_float16_pair(make_float2(scores[2 * i], scores[2 * i + 1]));
      store(reinterpret_cast<uint32*>(place + n * kWarps * 256), upper ? pairs[1] : pairs[0]);
      store(reinterpret_cast<uint32*>(other + n * kWarps * 256), upper ? pairs[0] : pairs[1]);
    }
  }

  /// Adds the scores of a lane's sixteen rotated codes in the region at `regions` to `sums`: there is only one.
  VQCC_DEVICE static void look_up(const uint8* regions, int /*region*/, const uint32 (&codes)[kCodeWords], Sums& sums) {
    const uint32 own = static_cast<uint32>(lane_index() % kTables) * 0x04040404u;
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      // Half offsets, without what the high bits add: of codes 4 `group` to 4 `group` + 3, a byte each.
      const uint32 low = codes[4 + group / 2];
      const uint32 entries = (group % 2 == 0 ? low : funnel_right(low, low, 4)) & 0xc3c3c3c3u;
      const uint32 halves = entries | (own ^ rotation_of(group));
      uint32 four[4];
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const uint32 offsets = permute_bytes(halves, codes[group], pair == 0 ? 0x5140u : 0x7362u);
        four[2 * pair] = load_score(regions, offsets << 1 & 0x1fffeu);
        four[2 * pair + 1] = load_score(regions, offsets >> 15 & 0x1fffeu);
      }
      sums.values[group % 2] += float16_pair(add_float16_pairs(four)).x;
    }
  }

 private:
  VQCC_DEVICE static int tile_of(int n) { return warp_index() + n * kWarps; }

  /// One score in the low half of a register, zero in the high half.
  VQCC_DEVICE static uint32 load_score(const uint8* regions, uint32 offset) {
    return load<Space::kShared>(reinterpret_cast<const uint16*>(regions + offset));
  }

  /// What turns a lane's own table into those of steps 4 `group` to 4 `group` + 3, where half offsets have it.
  VQCC_HOST_DEVICE static constexpr uint32 rotation_of(int group) {
    const uint32 step = 4u * static_cast<uint32>(group);
    return step << 2 | (step + 1) << 10 | (step + 2) << 18 | (step + 3) << 26;
  }
};

}  // namespace vqcc
