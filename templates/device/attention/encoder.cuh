// Encoding of keys and values by their nearest entries, and of codes in the kernels' layout.
#pragma once

#include "code_writers.cuh"
#include "nearest.cuh"

namespace vqcc {

/// Encodes kGroups channel groups of one kv-head's keys or values, a turn of 32 slots at a time. Warps find the nearest
/// entries for a group and some of the slots, a slot for each lane; then threads put codes together to words.
template <class Algorithm, class Books, class Pages, class Writer, class Shape, class Tile, int kGroups, bool kSingle>
class Encoder {
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = AppendArguments<Element>;
  using Side = AppendedSide<Element>;
  using Own = Slot<Shape, kSingle>;
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kStages = Algorithm::kResiduals;
  static constexpr int kTeams = kWarps > kGroups ? smaller(kWarps / kGroups, kBlockTokens) : 1;  // that share a group's slots
  static constexpr int kTeamSlots = ceil_divide(kBlockTokens, kTeams);
  using Search = NearestEntries<Algorithm, Tile::kElement, kTeamSlots>;
  static constexpr int kCodesBytes = kBlockTokens * kGroups * kStages * 4;
  static constexpr int kPlacesBytes = kBlockTokens * static_cast<int>(sizeof(CodePlace));

 public:
  static constexpr int kSharedBytes = kCodesBytes + kPlacesBytes + kWarps * Search::kScratchBytes;

  /// A turn: of sequences from `first_sequence` on, or of token block `block` of that sequence, counted from its first.
  VQCC_DEVICE static void turn(const Arguments& arguments, const Pages& pages, const Side& side, int first_sequence,
                               int block) {
    uint32* codes = reinterpret_cast<uint32*>(dynamic_shared());
    CodePlace* places = reinterpret_cast<CodePlace*>(dynamic_shared() + kCodesBytes);
    for (int i = warp_index(); i < kGroups * kTeams; i += kWarps) {
      encode(arguments, pages, side, first_sequence, block, i % kGroups, i / kGroups, codes, places);
    }
    block_barrier();
    fill_window(arguments, side, first_sequence, block);
    Writer::write(places, codes, side.channel / kVectorSize);
    block_barrier();  // codes have been read
  }

 private:
  /// The codes of a group's vectors, by a warp: each stage's nearest entries to what the stages before have left. Lane l has
  /// slot team + l * kTeams. What can be loaded at once is loaded first.
  VQCC_DEVICE static void encode(const Arguments& arguments, const Pages& pages, const Side& side, int first_sequence,
                                 int block, int group, int team, uint32* codes, CodePlace* places) {
    const Search search(dynamic_shared() + kCodesBytes + kPlacesBytes + warp_index() * Search::kScratchBytes);
    const uint8* entries = book_of(side, group);
    typename Search::Sheet sheet;
    search.start(entries, sheet);
    const int index = team + lane_index() * kTeams;
    const Own slot = Own::of(arguments, first_sequence, block, smaller(index, kBlockTokens - 1));
    const bool encoded = index < kBlockTokens && slot.encoded();
    float rest[kVectorSize];
    load_vector(slot.row(side) + side.channel + group * kVectorSize, encoded, rest);
    const bool tells = group == 0 && index < kBlockTokens;
    const int page = tells && encoded ? pages.page_of(slot.sequence, slot.position / kBlockTokens) : 0;
    const uint32 wanted = lanes_where(encoded);
    if (wanted != 0) encode_stages(search, entries, sheet, wanted, rest, codes + (team * kGroups + group) * kStages);
    if (tells) places[index] = place_of(pages, page, side.head, slot);
  }

  /// Code `stage` of lane l's vector goes to codes[l * kLaneCodes + stage].
  static constexpr int kLaneCodes = kTeams * kGroups * kStages;

  VQCC_DEVICE static void encode_stages(const Search& search, const uint8* entries, typename Search::Sheet& sheet,
                                        uint32 wanted, float (&rest)[kVectorSize], uint32* codes) {
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage, entries += Algorithm::kStageBytes) {
      if (stage > 0) search.start(entries, sheet);
      search.take(rest);
      search.find(entries, sheet, wanted, [=](int vector, uint32 code) {
        if (vector < kTeamSlots) codes[vector * kLaneCodes + stage] = code;
      });
      if (kStages == 1) break;
      warp_barrier();
      if ((wanted >> lane_index() & 1u) != 0) subtract(entries, codes[lane_index() * kLaneCodes + stage], rest);
    }
  }

  VQCC_DEVICE static const uint8* book_of(const Side& side, int group) {
    const int first_book = Books::kBooksByHead ? side.head * Books::kHeadBooks : 0;
    const int book = first_book + (Books::kHeadBooks > 1 ? side.channel / kVectorSize + group : 0);
    return side.books + static_cast<int64>(book) * Algorithm::kTableBytes;
  }

  VQCC_DEVICE static void load_vector(const Element* channels, bool wanted, float (&values)[kVectorSize]) {
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) {
      const float value = fresh_element(channels + c);
      values[c] = wanted ? value : 0.0f;
    }
  }

  VQCC_DEVICE static void subtract(const uint8* entries, uint32 code, float (&rest)[kVectorSize]) {
    float values[Algorithm::kEntryStride];
    const uint8* entry = entries + code * static_cast<uint32>(Algorithm::kEntryBytes);
    Algorithm::Entry::template load_from<Space::kGlobal>(entry).to_float(values);
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) rest[c] = rest[c] - values[c];
  }

  VQCC_DEVICE static CodePlace place_of(const Pages& pages, int page, int head, const Own& slot) {
    if (!slot.encoded()) return {nullptr, -1};
    return {const_cast<uint8*>(pages.block_in(page, head, slot.position / kBlockTokens)), slot.position % kBlockTokens};
  }

  /// Of each slot of the window that a token leaves, the newest token that belongs there. Whoever encodes the old one does
  /// it: nobody else reads or writes the slot.
  VQCC_DEVICE static void fill_window(const Arguments& arguments, const Side& side, int first_sequence, int block) {
    if constexpr (Shape::kWindow > 0) {
      constexpr int kChannels = kGroups * kVectorSize;
      for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens * kChannels; i += kThreads) {
        const Own slot = Own::of(arguments, first_sequence, block, i / kChannels);
        if (!slot.present || slot.position >= slot.appended.first) continue;
        const int newest = slot.appended.length - 1;
        const int position = newest - (newest - slot.position) % Shape::kWindow;
        const int channel = side.channel + i % kChannels;
        window_row<Shape>(side.window, slot.sequence, side.head, position)[channel] =
            side.new_row(slot.sequence, position - slot.appended.first)[channel];
      }
    }
  }
};

}  // namespace vqcc
