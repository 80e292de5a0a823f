// Score tables: the products of every entry of a codebook with a vector of activations, tabulated once, so that a code
// adds one looked-up number instead of decoding a vector.
#pragma once

#include "elements.cuh"

namespace vqcc {

/// Tables of kTables vectors of one row of x, in a region of kRegionBytes of shared memory. Scores are fp32.
///
/// Entry e of table t lies at e * 256 + (t / 32) * 128 + (t % 32) * 4: 32 tables have one bank each. Lane l looks up
/// table l ^ s of a set of 32 at step s, so in every step the 32 lanes of a warp meet 32 different banks, whatever their
/// codes are: no conflicts, and no copies. The packer has rotated each row's codes alike (docs/packed-layout.md).
template <class Algorithm, ElementType kType, int kWarps>
class ScoreTable {
 public:
  static constexpr int kScoreBytes = 4;
  static constexpr int kSetTables = kWarpSize;
  static constexpr int kSets = 2;
  static constexpr int kTables = kSets * kSetTables;
  static constexpr int kEntryBytes = 256;  // of all tables: a code is the second byte of its score's offset
  static constexpr int kRegionBytes = 256 * kEntryBytes;
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;  // registers of a vector
  static_assert(Algorithm::kTableEntries == 256 && Algorithm::kCodeBits == 8, "codes are bytes");
  static_assert(kVectorSize % 2 == 0 && 16 % kVectorSize == 0, "vectors fill whole registers of a fragment");
  static_assert(kWarps % kSets == 0, "a warp makes entries of one set");
  static constexpr int kEntryTiles = Algorithm::kTableEntries / 8;
  static constexpr int kTiles = ceil_divide(kEntryTiles * kSets, kWarps);  // of a warp, at most

  /// What a warp multiplies to make its share of a region: x for the tables of one set as operand A, and tiles of eight
  /// entries as operand B of m16n8k16.
  struct Operands {
    uint32 x[2][4];
    uint32 entries[kTiles][2];
  };

  /// Sums of a lane over the codes that it has looked up: additions to one do not wait for those to another.
  struct Sums {
    float values[4] = {};

    VQCC_DEVICE float total() const { return (values[0] + values[1]) + (values[2] + values[3]); }
  };

  /// The set that this warp makes entries of.
  VQCC_DEVICE static int own_set() { return warp_index() % kSets; }

  /// Loads the operands of this warp. `x_of(table, pair)` is a pair of elements of x for a table of its set,
  /// `entry_of(entry, pair)` one of a codebook entry that those tables tabulate.
  template <class XOf, class EntryOf>
  VQCC_DEVICE static void load_operands(Operands& operands, const XOf& x_of, const EntryOf& entry_of) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        // Rows g and g + 8 of two tiles are the tables of `table_of(i)`.
        const int pair = own_pair() + 4 * upper;
        operands.x[i / 2][i % 2 + 2 * upper] = pair < kPairs ? x_of(table_of(i), pair) : 0u;
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int entry = tile_of(n) * 8 + lane_index() / 4;
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const int pair = own_pair() + 4 * upper;
        const bool present = pair < kPairs && tile_of(n) < kEntryTiles;
        operands.entries[n][upper] = present ? entry_of(entry, pair) : 0u;
      }
    }
  }

  /// Writes this warp's share of a region. The fragments of a multiply hold, for each entry, four lanes' worth of
  /// tables in one order: lane t of the four stores table (step ^ t) at each step, so that a warp's stores meet 32
  /// banks too.
  VQCC_DEVICE static void build(uint8* region, const Operands& operands) {
    const int t = lane_index() % 4;
    int place[4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      place[step] = own_set() * 128 + (tile_of(0) * 8 + 2 * t) * kEntryBytes + table_of(step ^ t) * kScoreBytes;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if (tile_of(n) >= kEntryTiles) break;
      float scores[2][4];  // of entries 2 t and 2 t + 1
      multiply(operands, n, scores);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        swap_if((t & 1) != 0, scores[e][0], scores[e][1]);
        swap_if((t & 1) != 0, scores[e][2], scores[e][3]);
        swap_if((t & 2) != 0, scores[e][0], scores[e][2]);
        swap_if((t & 2) != 0, scores[e][1], scores[e][3]);
        uint8* entry = region + (n * (kWarps / kSets) * 8 + e) * kEntryBytes;
#pragma unroll
        for (int step = 0; step < 4; ++step) store(reinterpret_cast<float*>(entry + place[step]), scores[e][step]);
      }
    }
  }

  /// Adds the scores of a lane's kTables rotated codes, four to a word, in region number `region` of `regions`, to `sums`.
  VQCC_DEVICE static void look_up(const uint8* regions, int region, const uint32 (&codes)[kTables / 4], Sums& sums) {
    // Three steps' offsets of this lane in a register, and the region: a score's place is a byte of either about the
    // code, put together in one permutation.
    const uint32 own = static_cast<uint32>(lane_index() * kScoreBytes);
    const uint32 offsets = own | own << 8 | own << 16 | static_cast<uint32>(region) << 24;
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
#pragma unroll
      for (int step = 0; step < kSetTables; ++step) {
        const uint32 rotated = offsets ^ rotation_of(step / 3);
        const int word = (set * kSetTables + step) / 4;
        const uint32 offset = permute_bytes(rotated, codes[word], selector_of(step % 3, step % 4));
        const uint8* score = regions + set * 128 + offset;
        sums.values[step % 4] += load<Space::kShared>(reinterpret_cast<const float*>(score));
      }
    }
  }

 private:
  VQCC_DEVICE static int tile_of(int n) { return warp_index() / kSets + n * (kWarps / kSets); }
  VQCC_DEVICE static int own_pair() { return lane_index() % 4; }

  /// The table in a set whose scores the multiply leaves in register `index` of this lane.
  VQCC_DEVICE static int table_of(int index) {
    const int g = lane_index() / 4;
    return g % 4 + 4 * index + g / 4 * 16;
  }

  /// Scores of entries 2 t and 2 t + 1 of tile number `n`, for tables `table_of(0)` to `table_of(3)`.
  VQCC_DEVICE static void multiply(const Operands& operands, int n, float (&scores)[2][4]) {
    float tiles[2][4] = {};
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      multiply_fragments<kType>(tiles[tile], operands.x[tile], operands.entries[n]);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[e][i] = tiles[i / 2][i % 2 * 2 + e];
    }
  }

  VQCC_DEVICE static void swap_if(bool swapped, float& a, float& b) {
    const float first = a;
    a = swapped ? b : first;
    b = swapped ? first : b;
  }

  /// What turns a lane's own offset into those of steps 3 `group` to 3 `group` + 2; the last byte stays the region.
  VQCC_HOST_DEVICE static constexpr uint32 rotation_of(int group) {
    const uint32 step = 3u * static_cast<uint32>(group);
    return (step * kScoreBytes & 0xffu) | ((step + 1) * kScoreBytes & 0xffu) << 8 |
           ((step + 2) * kScoreBytes & 0xffu) << 16;
  }

  /// Bytes of a place, lowest first: byte `offset` of the rotated ones, byte `code` of the codes, the region, its sign.
  VQCC_HOST_DEVICE static constexpr uint32 selector_of(int offset, int code) {
    return static_cast<uint32>(offset) | static_cast<uint32>(4 + code) << 4 | 3u << 8 | 0xbu << 12;
  }
};

}  // namespace vqcc
