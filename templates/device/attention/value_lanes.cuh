// Which lanes decode values, and which channels they add up: those that they decode, or, exchanged, single ones.
#pragma once

#include "../exchange.cuh"
#include "window.cuh"

namespace vqcc {

/// Lanes that decode kOwnGroups neighbouring channel groups of a token: up to 32 of them are a team, which has a token block
/// of its own; lane l of it decodes a group in each of kSlots slots.
///
/// Without an exchange a lane adds up the channels that it decodes. With one (`Tile::kFusion`, Sec. VI-B) its element i of a
/// slot is channel l + kTeamLanes * i of the slot's, which some lane of the team has decoded: all lanes of a warp then go
/// through token blocks together.
template <class Codes, int kOwnGroups, class Tile>
struct ValueLanes {
  static constexpr int kVectorSize = Codes::kVectorSize;
  static constexpr int kGroups = kOwnGroups;
  static constexpr int kTeamLanes = smaller(kGroups, kWarpSize);
  static constexpr int kTeams = kWarpSize / kTeamLanes;
  static constexpr int kSlots = kGroups / kTeamLanes;
  static constexpr bool kExchanged = Tile::kFusion == Fusion::kRegister || Tile::kFusion == Fusion::kShared;
  using Layout = ElementLayout<kVectorSize, kTeamLanes>;  // of what is exchanged only
  static_assert(exchanges_as_planned<Tile, Layout>(), "the plan's thread mapping is the one of the layout");

  /// Whether a lane's elements are neighbouring channels; and whether teams whose token blocks end early must go along.
  static constexpr bool kNeighbours = !kExchanged;
  static constexpr bool kTogether = kExchanged && kTeams > 1;
  /// Shared memory of a warp that exchanges.
  static constexpr int kScratchBytes = Tile::kFusion == Fusion::kShared ? kWarpSize * kVectorSize * 4 : 0;

  VQCC_DEVICE static int team() { return lane_index() / kTeamLanes; }

  /// The channel group that this lane decodes in slot `slot`.
  VQCC_DEVICE static int group_of(int slot) {
    const int lane = lane_index() % kTeamLanes;
    if constexpr (Tile::kFusion == Fusion::kRegister) return slot * kTeamLanes + Layout::vector_of(lane);
    else return slot * kTeamLanes + lane;
  }

  /// The channel that this lane's element `i` of slot `slot` is.
  VQCC_DEVICE static int channel_of(int slot, int i) {
    const int lane = lane_index() % kTeamLanes;
    if constexpr (kExchanged) return slot * kTeamLanes * kVectorSize + lane + kTeamLanes * i;
    else return (slot * kTeamLanes + lane) * kVectorSize + i;
  }

  /// Turns what this lane has decoded into its elements. Every lane of the warp calls it; `scratch` is the warp's.
  VQCC_DEVICE static void exchange(float (&value)[kVectorSize], uint8* scratch) {
    if constexpr (Tile::kFusion == Fusion::kRegister) {
      exchange_registers<Layout>(value, lane_index());
    } else if constexpr (Tile::kFusion == Fusion::kShared) {
      exchange_shared<Layout>(value, lane_index(), lane_index() % kTeamLanes, reinterpret_cast<uint32*>(scratch));
    }
  }

  /// This lane's elements of a value in full precision.
  struct Row {
    float values[kSlots][kVectorSize];
  };
  template <ElementType kType, class Element>
  VQCC_DEVICE static Row load_row(const Element* values) {
    Row row;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if constexpr (kExchanged) {
#pragma unroll
        for (int i = 0; i < kVectorSize; ++i) row.values[s][i] = load_element<kType>(values, channel_of(s, i));
      } else {
        Channels<kType, kVectorSize>::template load_from<Space::kGlobal>(values + channel_of(s, 0)).to_float(row.values[s]);
      }
    }
    return row;
  }
};

}  // namespace vqcc
