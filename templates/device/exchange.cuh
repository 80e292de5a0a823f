// Exchange of decoded elements inside a warp (VQ-LLM, Sec. VI-B, Algorithm 1): from the threads that decode them to the
// threads that multiply them, through registers or through shared memory.
//
// Every lane of the warp calls these functions together. No array is indexed at run time: registers move by selects.
#pragma once

#include "elements.cuh"

namespace vqcc {

/// How decoded elements reach the threads that multiply them (Sec. VI-B): a thread multiplies what it decodes (kNone);
/// they are exchanged into the engine's layout (kRegister, kShared); or they are decoded in that layout because the other
/// operand is read in a permuted order (kAligned).
enum class Fusion { kNone, kRegister, kShared, kAligned };

/// Whether lanes decode for `Layout`, and exchange in it, as the plan's thread mapping says (Algorithm 1): through
/// registers by the mapping, through shared memory in the order of the lanes. `Tile` names kExchangeLanes, kExchangeWidth,
/// kMiniWarp, kShuffles and vector_of_lane(lane) where anything is exchanged.
template <class Tile, class Layout>
VQCC_HOST_DEVICE constexpr bool exchanges_as_planned() {
  if constexpr (Tile::kFusion == Fusion::kRegister || Tile::kFusion == Fusion::kShared) {
    constexpr bool kMapped = Tile::kFusion == Fusion::kRegister;
    if (Tile::kExchangeLanes != Layout::kLanes || Tile::kExchangeWidth != Layout::kWidth) return false;
    if (Tile::kMiniWarp != (kMapped ? Layout::kMiniWarp : 1)) return false;
    if (Tile::kShuffles != (kMapped ? Layout::kShuffles : 0)) return false;
    for (int lane = 0; lane < Layout::kLanes; ++lane) {
      if (Tile::vector_of_lane(lane) != (kMapped ? Layout::vector_of(lane) : lane)) return false;
    }
  }
  return true;
}

/// A 32-bit register is a float or holds packed elements; both are exchanged as bits.
VQCC_DEVICE uint32 bits_of(uint32 word) { return word; }
VQCC_DEVICE uint32 bits_of(float value) { return float_as_bits(value); }
VQCC_DEVICE void set_bits(uint32& word, uint32 bits) { word = bits; }
VQCC_DEVICE void set_bits(float& value, uint32 bits) { value = float_of_bits(bits); }

// ---- Mini-warps --------------------------------------------------------------------------------------------

/// Brings group `member ^ i` of kWords registers to position i, for every i.
template <int kThreads, int kWords, class Register>
VQCC_DEVICE void permute_groups(Register (&data)[kThreads * kWords], int member) {
#pragma unroll
  for (int bit = 1; bit < kThreads; bit *= 2) {
    const bool swap = (member & bit) != 0;
#pragma unroll
    for (int i = 0; i < kThreads * kWords; ++i) {
      const int other = i + bit * kWords;
      if ((i / kWords & bit) != 0) continue;  // it is the other one of a pair
      const Register low = data[i];
      const Register high = data[other];
      data[i] = swap ? high : low;
      data[other] = swap ? low : high;
    }
  }
}

/// Algorithm 1's REG_FUSION inside mini-warps of kThreads lanes that differ in log2(kThreads) bits of the lane index,
/// from kLaneStride on; `member` is the number in these bits. Of this thread's kThreads groups of kWords registers,
/// group i is meant for member i. Afterwards position i holds what member `member ^ i` had for this thread: in another
/// order on each thread, which costs nothing where the other operand can be permuted alike.
/// (kThreads - 1) * kWords shuffles.
template <int kThreads, int kWords, int kLaneStride = 1, class Register>
VQCC_DEVICE void exchange_unordered(Register (&data)[kThreads * kWords], int member) {
  static_assert(kThreads > 0 && kThreads * kLaneStride <= kWarpSize && (kThreads & (kThreads - 1)) == 0 &&
                    (kLaneStride & (kLaneStride - 1)) == 0,
                "members differ in bits of the lane index");
  permute_groups<kThreads, kWords>(data, member);
#pragma unroll
  for (int offset = 1; offset < kThreads; ++offset) {
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      data[offset * kWords + w] = exchange_xor(data[offset * kWords + w], offset * kLaneStride);
    }
  }
}

/// The same, and afterwards group i is what member i had for this thread.
template <int kThreads, int kWords, int kLaneStride = 1, class Register>
VQCC_DEVICE void exchange(Register (&data)[kThreads * kWords], int member) {
  exchange_unordered<kThreads, kWords, kLaneStride>(data, member);
  permute_groups<kThreads, kWords>(data, member);
}

// ---- Layouts -----------------------------------------------------------------------------------------------
//
// A layout says what lanes decode and what they multiply, as maps over a warp:
//   kWidth, kLanes       columns that lie in one lane, and lanes that a row lies in
//   kRegisters           registers of a lane, before and after the exchange
//   kMiniWarp            neighbouring lanes that exchange with each other if they decode as vector_of says
//   kShuffles            of an exchange through registers
//   vector_of(lane)      the vector that a lane decodes, of those that the lanes of its row decode together
//   word_of(lane, v, r)  where register r of vector v of that row goes: to register word / 32 of lane word % 32
//   kUnit, swizzle(r)    how `exchange_shared` lays out its scratch

/// Width 1 on kRowLanes lanes, for fused multiply-adds: a register is an element, and as many neighbouring lanes decode a
/// vector each of one row; the warp has a row, or several. Afterwards register j of the row's lane l holds column
/// l + kLanes j of their kLanes * kVectorSize columns.
template <int kVectorSize, int kRowLanes = kWarpSize>
struct ElementLayout {
  static_assert(kVectorSize >= 2 && kVectorSize <= 16 && (kVectorSize & (kVectorSize - 1)) == 0, "2, 4, 8 or 16");
  static_assert(kRowLanes >= 2 && kRowLanes <= kWarpSize && (kRowLanes & (kRowLanes - 1)) == 0, "a power of two of lanes");
  static constexpr int kWidth = 1;
  static constexpr int kLanes = kRowLanes;
  static constexpr int kRegisters = kVectorSize;
  static constexpr int kMiniWarp = smaller(kVectorSize, kLanes);
  static constexpr int kShuffles = kRegisters / kMiniWarp * (kMiniWarp - 1);
  static constexpr int kUnit = smaller(kMiniWarp, 4);

  VQCC_HOST_DEVICE static constexpr int vector_of(int lane) {
    return lane % kLanes / kMiniWarp + kLanes / kMiniWarp * (lane % kMiniWarp);
  }
  VQCC_HOST_DEVICE static constexpr int word_of(int lane, int vector, int r) {
    const int column = vector * kVectorSize + r;
    return column / kLanes * kWarpSize + lane / kLanes * kLanes + column % kLanes;
  }
  /// Lanes that store at a time may hold vectors from different rows of scratch, which are shifted against each other. With
  /// 32 lanes these are up to kVectorSize rows: each is shifted by its share. With fewer, in order, a row first moves over
  /// units of a vector that nobody stores at the time, then over lanes of the warp that do not store.
  VQCC_HOST_DEVICE static constexpr int swizzle(int r) {
    constexpr int kLanesAtATime = kWarpSize / kUnit;
    if (kLanes == kWarpSize) return ceil_divide(kLanesAtATime, kVectorSize) * kUnit * r % kWarpSize;
    constexpr int kVectorRows = kVectorSize / kMiniWarp;
    constexpr int kFreeUnits = kMiniWarp / kUnit;
    constexpr int kStoring = kLanes > kLanesAtATime ? kLanes : kLanesAtATime;
    const int step = r / kVectorRows;
    return (step % kFreeUnits * kUnit + step / kFreeUnits * kStoring) % kWarpSize;
  }
};

/// Width 2 on 4 lanes, the B operand of `multiply_fragments`: a register is a pair of 16-bit elements, and lanes 4 g to
/// 4 g + 3 decode 4 vectors of row g, which is a column of B. Afterwards register u of lane 4 g + t holds columns
/// 8 u + 2 t and 8 u + 2 t + 1 of their 4 * kVectorSize columns: registers 2 s, 2 s + 1 are b for the s-th 16 columns.
template <int kVectorSize>
struct FragmentLayout {
  static_assert(kVectorSize >= 2 && kVectorSize <= 16 && (kVectorSize & (kVectorSize - 1)) == 0, "2, 4, 8 or 16");
  static constexpr int kWidth = 2;
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = kVectorSize / 2;
  static constexpr int kMiniWarp = smaller(kRegisters, 4);
  static constexpr int kShuffles = kRegisters / kMiniWarp * (kMiniWarp - 1);
  static constexpr int kUnit = smaller(kRegisters, 4);

  VQCC_HOST_DEVICE static constexpr int vector_of(int lane) {
    return lane % 4 / kMiniWarp + 4 / kMiniWarp * (lane % kMiniWarp);
  }
  VQCC_HOST_DEVICE static constexpr int word_of(int lane, int vector, int r) {
    const int word = vector * kRegisters + r;  // of the row
    return word / 4 * kWarpSize + lane / 4 * 4 + word % 4;
  }
  /// Lanes that store at a time have kWarpSize / kUnit words of a row of scratch, and as much of each other row.
  VQCC_HOST_DEVICE static constexpr int swizzle(int r) {
    return r / ceil_divide(kRegisters, 4) * (kWarpSize / kUnit) % kWarpSize;
  }
};

// ---- Exchange into a layout --------------------------------------------------------------------------------

/// Through registers. Lane l has decoded vector Layout::vector_of(l); Layout::kShuffles shuffles.
template <class Layout, class Register>
VQCC_DEVICE void exchange_registers(Register (&data)[Layout::kRegisters], int lane) {
  constexpr int kThreads = Layout::kMiniWarp;
  constexpr int kWords = Layout::kRegisters / kThreads;
  // Registers go to the members of a mini-warp in turn: those for one member are brought together.
  Register groups[Layout::kRegisters];
#pragma unroll
  for (int i = 0; i < Layout::kRegisters; ++i) groups[i] = data[i / kWords + kThreads * (i % kWords)];
  exchange<kThreads, kWords>(groups, lane % kThreads);
#pragma unroll
  for (int i = 0; i < Layout::kRegisters; ++i) data[i] = groups[i];
}

/// 32-bit words of scratch that `exchange_shared` needs for each warp.
template <class Layout>
VQCC_HOST_DEVICE constexpr int exchange_words() {
  return Layout::kRegisters * kWarpSize;
}

/// Through `scratch`: exchange_words() words of shared memory of this warp alone, 16-byte aligned. `vector` is the one
/// that the lane has decoded; in order (lane % kLanes), or with the vector_of of a Layout of 32 lanes or of fragments, no
/// access has a bank conflict: kRegisters wavefronts to store and kRegisters to load.
///
/// Row r of scratch is register r of all lanes, in the order of the lanes xor swizzle(r).
template <class Layout, class Register>
VQCC_DEVICE void exchange_shared(Register (&data)[Layout::kRegisters], int lane, int vector, uint32* scratch) {
  constexpr int kUnit = Layout::kUnit;
  using Word = typename WordOf<kUnit * 4>::Type;
#pragma unroll
  for (int r = 0; r < Layout::kRegisters; r += kUnit) {
    uint32 unit[kUnit];
#pragma unroll
    for (int i = 0; i < kUnit; ++i) unit[i] = bits_of(data[r + i]);
    const int word = Layout::word_of(lane, vector, r);
    store(reinterpret_cast<Word*>(scratch + (word ^ Layout::swizzle(word / kWarpSize))), from_registers(unit));
  }
  warp_barrier();
#pragma unroll
  for (int r = 0; r < Layout::kRegisters; ++r) {
    set_bits(data[r], load<Space::kShared>(scratch + r * kWarpSize + (lane ^ Layout::swizzle(r))));
  }
  warp_barrier();  // all have read: the next exchange may overwrite
}

}  // namespace vqcc
