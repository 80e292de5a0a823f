// Codebooks of a head by rows: entry e of all its channel groups side by side, so that a code is a byte of an address.
#pragma once

#include "cache.cuh"

namespace vqcc {

/// A table of 256 rows of 256 bytes, number `region` of those from `base` on.
constexpr int kTableRegionBytes = 65536;
struct TableRegion {
  uint8* base;
  int region;

  VQCC_DEVICE uint8* begin() const { return base + region * kTableRegionBytes; }
};

/// Tables of 256 rows of 256 bytes. A row holds an entry for each of kTeamLanes lanes in each of some slots, and, if there
/// is room, copies for other teams of lanes. No two lanes that look up together meet in a
/// bank, whatever their codes are: words of 16 bytes of longer entries lie apart, each beside those of the other lanes.
/// Channel group g is lane g % kTeamLanes of slot g / kTeamLanes (docs/packed-layout.md).
template <class Codes, int kHeadDim>
struct EntryRows {
  static constexpr int kVectorSize = Codes::kVectorSize;
  static constexpr int kGroups = kHeadDim / kVectorSize;
  static constexpr int kEntryBytes = Codes::kEntryStride * 2;
  static constexpr int kRowBytes = 256;
  static constexpr int kRows = 256;
  static constexpr int kTableBytes = kRows * kRowBytes;
  static constexpr int kTeamLanes = smaller(smaller(kGroups, kWarpSize), kRowBytes / kEntryBytes);
  static constexpr int kTeams = kWarpSize / kTeamLanes;
  static constexpr int kSlots = kGroups / kTeamLanes;
  static constexpr int kCopies = smaller(kTeams, kRowBytes / (kTeamLanes * kEntryBytes));
  static constexpr int kSlotLanes = kCopies * kTeamLanes;
  static constexpr int kSlotBytes = kSlotLanes * kEntryBytes;
  static constexpr int kTableSlots = kRowBytes / kSlotBytes;
  static constexpr int kTables = ceil_divide(kSlots, kTableSlots);
  static constexpr int kBytes = kTables * kTableBytes;
  static constexpr int kPairs = kVectorSize / 2;
  static_assert(Codes::kCodeBits == 8 && Codes::kResiduals == 1, "a code is a byte, and there is one");
  static_assert(Codes::kEntryType == ElementType::kFloat16 && Codes::kEntryStride == kVectorSize && kVectorSize % 2 == 0,
                "entries are pairs of float16");
  static constexpr int kWordBytes = smaller(16, kEntryBytes);
  static constexpr int kWordStride = kSlotLanes * kWordBytes;  // of an entry of several words
  using Word = typename WordOf<kWordBytes>::Type;

  /// Where the entry of row 0 is for lane `lane` in slot `slot`.
  VQCC_HOST_DEVICE static constexpr int offset_of(int lane, int slot) {
    return slot / kTableSlots * kTableBytes + slot % kTableSlots * kSlotBytes +
           lane % kSlotLanes * kWordBytes;
  }

  /// The entry at `address`, as pairs.
  template <Space kSpace>
  VQCC_DEVICE static void load_from(const uint8* address, uint32 (&pairs)[kPairs]) {
    constexpr int kWordPairs = kWordBytes / 4;
#pragma unroll
    for (int i = 0; i < kPairs; i += kWordPairs) {
      uint32 word[kWordPairs];
      to_registers(load<kSpace>(reinterpret_cast<const Word*>(address + i / kWordPairs * kWordStride)), word);
#pragma unroll
      for (int p = 0; p < kWordPairs; ++p) pairs[i + p] = word[p];
    }
  }

  /// The entry of this lane in slot `slot` for byte `byte` of `codes`: the code is the second byte of its place, put there
  /// in one permutation. `own` is the lane's place in row 0 of a region: its second byte is zero.
  VQCC_DEVICE static void look_up(const uint8* tables, int slot, uint32 own, uint32 codes, int byte,
                                  uint32 (&pairs)[kPairs]) {
    const uint32 place = permute_bytes(own, codes, static_cast<uint32>(4 + byte) << 4 | 0x3200u);
    load_from<Space::kShared>(tables + (offset_of(0, slot) - offset_of(0, 0)) + place, pairs);
  }
  VQCC_DEVICE static uint32 own_place(int region = 0) {
    return static_cast<uint32>(offset_of(lane_index(), 0) + region * kTableRegionBytes);
  }
};

/// Starts to copy a head's books by rows to shared memory. Every thread of the block calls it.
template <int kBytes, int kThreads>
VQCC_DEVICE void copy_rows(const TableRegion& region, const uint8* global) {
  uint8* shared = region.begin();
#pragma unroll 4
  for (int i = computed_anew(static_cast<int>(threadIdx.x)) * 16; i < kBytes; i += kThreads * 16) {
    start_copy(reinterpret_cast<uint4*>(shared + i), reinterpret_cast<const uint4*>(global + i));
  }
}

}  // namespace vqcc
