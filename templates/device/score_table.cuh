// Score tables: the products of every entry of a codebook with a vector of activations, tabulated once, so that a code
// adds one looked-up number instead of decoding a vector.
#pragma once

#include "score_scale.cuh"

namespace vqcc {

/// A score for each of kRows rows of x, side by side: fp32 for one row, scaled float16 for two or four.
template <int kRows>
struct Scores {
  static constexpr bool kScaled = kRows > 1;
  static constexpr int kBytes = smaller(8, 2 * kRows + (kScaled ? 0 : 2));
  static constexpr int kWords = kBytes / 4;
  using Word = typename WordOf<kBytes>::Type;

  uint32 words[kWords];

  VQCC_DEVICE static Scores of(const float (&scores)[kRows]) {
    Scores result;
    if constexpr (kScaled) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        result.words[w] = to_float16_pair(make_float2(scores[2 * w], scores[2 * w + 1]));
      }
    } else {
      result.words[0] = float_as_bits(scores[0]);
    }
    return result;
  }

  VQCC_DEVICE static Scores load_from(const uint8* address) {
    Scores result;
    to_registers(load<Space::kShared>(reinterpret_cast<const Word*>(address)), result.words);
    return result;
  }
  VQCC_DEVICE void store_to(uint8* address) const { store(reinterpret_cast<Word*>(address), from_registers(words)); }

  VQCC_DEVICE static void swap_if(bool swapped, Scores& a, Scores& b) {
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const uint32 first = a.words[w];
      a.words[w] = swapped ? b.words[w] : first;
      b.words[w] = swapped ? first : b.words[w];
    }
  }
};

/// Sums of a lane over the codes that it has looked up, for each row of x: additions to one do not wait for those to
/// another.
template <int kRows>
struct ScoreSums {
  static constexpr int kChains = kRows == 1 ? 4 : 4 / kRows;
  float values[kChains][kRows] = {};

  /// Adds the scores of the codes of group number `group`. float16 ones are added to each other first, two by two: scaled as
  /// they are (ScoreScales) that does not overflow.
  template <int kCodes>
  VQCC_DEVICE void add(const Scores<kRows> (&scores)[kCodes], int group) {
    if constexpr (Scores<kRows>::kScaled) {
#pragma unroll
      for (int w = 0; w < Scores<kRows>::kWords; ++w) {
        uint32 pairs[kCodes];
#pragma unroll
        for (int i = 0; i < kCodes; ++i) pairs[i] = scores[i].words[w];
        const float2 pair = float16_pair(add_float16_pairs(pairs));
        values[group % kChains][2 * w] += pair.x;
        values[group % kChains][2 * w + 1] += pair.y;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCodes; ++i) values[i % kChains][0] += float_of_bits(scores[i].words[0]);
    }
  }

  /// The sum for row `r` of x, scaled as its scores are.
  VQCC_DEVICE float total(int r) const {
    if constexpr (kChains == 4) return (values[0][r] + values[1][r]) + (values[2][r] + values[3][r]);
    else if constexpr (kChains == 2) return values[0][r] + values[1][r];
    else return values[0][r];
  }
};

/// Look-ups by codes of a byte, for kRows rows of x, in tables in a region of kRegionBytes of shared memory.
///
/// Entries are kEntryBytes apart. In an entry lie sets of kSetTables tables, one after the other, a score of
/// Scores<kRows> for each table: 32 tables of 4 bytes have one bank each, of 8 bytes two. Lane l looks table l ^ s of a
/// set up at step s, so in every step the 32 lanes of a warp meet different banks, whatever their codes are: no
/// conflicts, and no copies. The packer has rotated each row's codes alike (docs/packed-layout.md).
///
/// With fewer tables, lanes that many apart look copies up: a set has kColumns tables and copies. Of 8 bytes, 16 of them are
/// enough, for a warp reads them in halves.
///
/// kTogether codes are a group of ScoreSums.
template <int kRows, int kColumns = kWarpSize, int kTogether = 4>
struct RotatedLookUps {
  using Cell = Scores<kRows>;
  using Sums = ScoreSums<kRows>;
  static constexpr int kEntryBytes = 256;  // of all tables: a code is the second byte of its score's offset
  static constexpr int kSetTables = kColumns;
  static constexpr int kSetBytes = kSetTables * Cell::kBytes;
  static constexpr int kSets = kEntryBytes / kSetBytes;
  static constexpr int kRegionBytes = 256 * kEntryBytes;

  /// Adds the scores of a lane's codes, four to a word, to `sums`: in kCount sets of tables from `first_set` on, of region
  /// number `region` of `regions`. With kSteps codes of a set, lanes that many apart look copies of a table up.
  template <int kCount, int kSteps = kSetTables>
  VQCC_DEVICE static void add(const uint8* regions, int region, int first_set,
                              const uint32 (&codes)[kCount * kSteps / 4], Sums& sums) {
    // Three steps' offsets of this lane in a register, and the region: a score's place is a byte of either about the
    // code, put together in one permutation.
    const uint32 own = static_cast<uint32>(lane_index() % kColumns * Cell::kBytes);
    const uint32 offsets = own | own << 8 | own << 16 | static_cast<uint32>(region) << 24;
#pragma unroll
    for (int set = 0; set < kCount; ++set) {
#pragma unroll
      for (int first = 0; first < kSteps; first += kTogether) {
        Cell scores[kTogether];
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          const int step = first + i;
          const uint32 word = codes[(set * kSteps + step) / 4];
          const uint32 offset = permute_bytes(offsets ^ rotation_of(step / 3), word, selector_of(step % 3, step % 4));
          scores[i] = Cell::load_from(regions + (first_set + set) * kSetBytes + offset);
        }
        sums.add(scores, (set * kSteps + first) / kTogether);
      }
    }
  }

 private:
  /// What turns a lane's own offset into those of steps 3 `group` to 3 `group` + 2; the last byte stays the region.
  VQCC_HOST_DEVICE static constexpr uint32 rotation_of(int group) {
    const uint32 step = 3u * static_cast<uint32>(group);
    const uint32 bytes = Cell::kBytes;
    return (step * bytes & 0xffu) | ((step + 1) * bytes & 0xffu) << 8 | ((step + 2) * bytes & 0xffu) << 16;
  }

  /// Bytes of a place, lowest first: byte `offset` of the rotated ones, byte `code` of the codes, the region, its sign.
  VQCC_HOST_DEVICE static constexpr uint32 selector_of(int offset, int code) {
    return static_cast<uint32>(offset) | static_cast<uint32>(4 + code) << 4 | 3u << 8 | 0xbu << 12;
  }
};

/// Tables of kTables vectors that share a codebook, of kRows rows of x: how they are made, and looked up.
template <class Algorithm, ElementType kType, int kWarps, int kRows>
class ByteScoreTable {
  using Cell = Scores<kRows>;
  using LookUps = RotatedLookUps<kRows>;

 public:
  static constexpr bool kScaled = Cell::kScaled;
  static constexpr int kEntryBytes = LookUps::kEntryBytes;
  static constexpr int kSetTables = LookUps::kSetTables;
  static constexpr int kSetBytes = LookUps::kSetBytes;
  static constexpr int kSets = LookUps::kSets;
  static constexpr int kTables = kSets * kSetTables;
  static constexpr int kRegionBytes = LookUps::kRegionBytes;
  static constexpr int kRunBytes = 16;              // of a row's codes that lie together
  static constexpr int kCodeWords = kTables / 4;    // of a row's codes, four to a word
  static constexpr bool kCodesStaged = true;        // on their way through shared memory
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;              // registers of a vector
  static constexpr int kDepth = ceil_divide(kPairs, 4);       // registers of a lane that hold a vector
  static constexpr int kRowPairs = ceil_divide(kRows, 2);     // multiplies that two rows of x share
  static constexpr int kTableTiles = kRows == 1 ? 2 : 4;      // multiplies that a set's tables take
  static_assert(Algorithm::kTableEntries == 256 && Algorithm::kCodeBits == 8, "codes are bytes");
  static_assert(kVectorSize % 2 == 0 && 16 % kVectorSize == 0, "vectors fill whole registers of a fragment");
  static_assert(Algorithm::kEntryBytes == 4 * kPairs, "entries have no padding");
  static_assert(kWarps % kSets == 0, "a warp makes entries of one set");
  static constexpr int kEntryTiles = Algorithm::kTableEntries / 8;
  static constexpr int kTiles = ceil_divide(kEntryTiles * kSets, kWarps);  // of a warp, at most

  /// What a warp multiplies to make its share of a region: x for the tables of one set as operand A, and tiles of eight
  /// entries as operand B.
  struct Operands {
    uint32 x[kTableTiles][kRowPairs][2 * kDepth];
    uint32 entries[kTiles][kDepth];
  };
  using Sums = ScoreSums<kRows>;
  using Scales = ScoreScales<kType, kRows>;

  /// The set that this warp makes entries of.
  VQCC_DEVICE static int own_set() { return warp_index() % kSets; }

  /// Loads the operands of this warp. `row_of(r)` points to the vectors of its set's tables in row r of x, of which there
  /// are `vectors`, at least all if kWhole; those past them are zero. `entries` is the table of the codebook.
  template <bool kWhole, class RowOf>
  VQCC_DEVICE static void load_operands(Operands& operands, const RowOf& row_of, int vectors, const uint8* entries) {
    const bool own = kPairs % 4 == 0 || own_pair() < kPairs;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32* x = reinterpret_cast<const uint32*>(row_of(r)) + table_of(0) * kPairs + own_pair();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool present = own && (kWhole || table_of(i) < vectors);
        // Rows g and g + 8 of a tile are two tables, or the same table for two rows of x.
        uint32(&tile)[2 * kDepth] = kRows == 1 ? operands.x[i / 2][0] : operands.x[i % kTableTiles][r / 2];
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
          uint32& pair = tile[2 * d + (kRows == 1 ? i : r) % 2];
          pair = present ? load<Space::kGlobal>(x + (table_of(i) - table_of(0)) * kPairs + 4 * d) : 0u;
        }
      }
    }
    const int first_pair = (tile_of(0) * 8 + lane_index() / 4) * kPairs + own_pair();
    const uint32* entry = reinterpret_cast<const uint32*>(entries) + first_pair;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const bool present = own && (kEntryTiles * kSets % kWarps == 0 || tile_of(n) < kEntryTiles);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        operands.entries[n][d] = present ? load<Space::kGlobal>(entry + n * kWarps / kSets * 8 * kPairs + 4 * d) : 0u;
      }
    }
  }

  /// Writes this warp's share of a region; the operands are scaled where they are. The fragments of a multiply hold, for
  /// each entry, four lanes' worth of tables in one order: lane t of the four stores table (step ^ t) at each step, so that
  /// a warp's stores meet different banks too.
  VQCC_DEVICE static void build(uint8* region, Operands& operands, const Scales& scales) {
    if constexpr (kScaled) scale(operands, scales);
    const int t = lane_index() % 4;
    int place[4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      place[step] = own_set() * kSetBytes + (tile_of(0) * 8 + 2 * t) * kEntryBytes + table_of(step ^ t) * Cell::kBytes;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if (n + 1 == kTiles && kEntryTiles * kSets % kWarps != 0 && tile_of(n) >= kEntryTiles) break;
      Cell cells[2][4];  // of entries 2 t and 2 t + 1
      multiply(operands, n, cells);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        Cell::swap_if((t & 1) != 0, cells[e][0], cells[e][1]);
        Cell::swap_if((t & 1) != 0, cells[e][2], cells[e][3]);
        Cell::swap_if((t & 2) != 0, cells[e][0], cells[e][2]);
        Cell::swap_if((t & 2) != 0, cells[e][1], cells[e][3]);
        uint8* entry = region + (n * (kWarps / kSets) * 8 + e) * kEntryBytes;
#pragma unroll
        for (int step = 0; step < 4; ++step) cells[e][step].store_to(entry + place[step]);
      }
    }
  }

  /// Adds the scores of a lane's kTables rotated codes, four to a word, in region number `region` of `regions`, to `sums`.
  VQCC_DEVICE static void look_up(const uint8* regions, int region, const uint32 (&codes)[kCodeWords], Sums& sums) {
    LookUps::template add<kSets>(regions, region, 0, codes, sums);
  }

 private:
  VQCC_DEVICE static int tile_of(int n) { return warp_index() / kSets + n * (kWarps / kSets); }
  VQCC_DEVICE static int own_pair() { return lane_index() % 4; }

  /// The table in a set whose scores the multiplies leave in cell `index` of this lane.
  VQCC_DEVICE static int table_of(int index) {
    const int g = lane_index() / 4;
    return g % 4 + 4 * index + g / 4 * 16;
  }

  VQCC_DEVICE static void scale(Operands& operands, const Scales& scales) {
#pragma unroll
    for (int tile = 0; tile < kTableTiles; ++tile) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
          uint32& pair = operands.x[tile][r / 2][2 * d + r % 2];
          pair = scales.up(r, pair);
        }
      }
    }
  }

  /// Scores of entries 2 t and 2 t + 1 of tile number `n`, for tables `table_of(0)` to `table_of(3)`.
  VQCC_DEVICE static void multiply(const Operands& operands, int n, Cell (&cells)[2][4]) {
#pragma unroll
    for (int tile = 0; tile < kTableTiles; ++tile) {
      float products[kRowPairs][4] = {};
#pragma unroll
      for (int r = 0; r < kRowPairs; ++r) {
        multiply_fragments<kType>(products[r], operands.x[tile][r], operands.entries[n]);
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if constexpr (kRows == 1) {  // rows g and g + 8 are two tables
          cells[e][2 * tile] = Cell::of({products[0][e]});
          cells[e][2 * tile + 1] = Cell::of({products[0][2 + e]});
        } else {
          float scores[kRows];
#pragma unroll
          for (int r = 0; r < kRows; ++r) scores[r] = products[r / 2][r % 2 * 2 + e];
          cells[e][tile] = Cell::of(scores);
        }
      }
    }
  }
};

}  // namespace vqcc
