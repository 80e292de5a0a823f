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
  /// Warps that share a group's slots.
  static constexpr int kTeams = kWarps > kGroups ? smaller(kWarps / kGroups, kBlockTokens) : 1;
  static constexpr int kTeamSlots = ceil_divide(kBlockTokens, kTeams);
  static constexpr bool kBookEach = Books::kHeadBooks > 1;  // channel group
  using Staged = StagedBooks<Algorithm, kBookEach ? kGroups : 1, kThreads>;
  static constexpr Space kSpace = Staged::kPossible ? Space::kShared : Space::kGlobal;
  using Search = NearestEntries<Algorithm, Tile::kElement, kTeamSlots, kSpace>;
  static constexpr int kCodesBytes = kBlockTokens * kGroups * kStages * 4;
  static constexpr int kPlacesBytes = kBlockTokens * static_cast<int>(sizeof(CodePlace));
  static constexpr int kBooksBytes = Staged::kPossible ? Staged::kBytes : 0;
  static constexpr int kScratch = kBooksBytes + kCodesBytes + kPlacesBytes;

 public:
  static constexpr int kSharedBytes = kScratch + kWarps * Search::kScratchBytes;

  /// Brings the part's books to shared memory, if they fit; all may read them when the block has met.
  VQCC_DEVICE static void stage_books(const Side& side) {
    if constexpr (Staged::kPossible) Staged(first_book(side)).store_to(dynamic_shared());
  }

  /// A turn: of sequences from `first_sequence` on, with the books, or, once they are staged, of token block `block` of that
  /// sequence, counted from its first.
  VQCC_DEVICE static void turn(const Arguments& arguments, const Pages& pages, const Side& side, int first_sequence,
                               int block) {
    uint32* codes = reinterpret_cast<uint32*>(dynamic_shared() + kBooksBytes);
    CodePlace* places = reinterpret_cast<CodePlace*>(dynamic_shared() + kBooksBytes + kCodesBytes);
    Vectors vectors;
    if constexpr (kSingle && Staged::kPossible) {
      const Staged staged(first_book(side));
      vectors = load_vectors(arguments, pages, side, first_sequence, block, warp_index());
      staged.store_to(dynamic_shared());
      block_barrier();
    } else {
      vectors = load_vectors(arguments, pages, side, first_sequence, block, warp_index());
    }
    for (int i = warp_index(); i < kGroups * kTeams; i += kWarps) {
      if (i >= kWarps) vectors = load_vectors(arguments, pages, side, first_sequence, block, i);
      encode(side, i, vectors, codes);
      if (i % kGroups == 0 && vectors.index < kBlockTokens) places[vectors.index] = vectors.place_in(pages, side);
      if constexpr (kGroups * kTeams <= kWarps) break;
    }
    block_barrier();
    fill_window(arguments, side, first_sequence, block);
    Writer::write(places, codes, side.channel / kVectorSize);
    if constexpr (!kSingle) block_barrier();  // codes have been read
  }

 private:
  /// What the warps of a group's team t encode: lane l's slot is t + l * kTeams, if there are as many.
  struct Vectors {
    Own slot;
    int index;
    bool encoded;
    int page;
    float channels[kVectorSize];

    VQCC_DEVICE CodePlace place_in(const Pages& pages, const Side& side) const {
      if (!encoded) return {nullptr, -1};
      const uint8* place = pages.block_in(page, side.head, slot.position / kBlockTokens);
      return {const_cast<uint8*>(place), slot.position % kBlockTokens};
    }
  };

  /// The vectors of work `i`: a team and a group. Only group 0 need know the page.
  VQCC_DEVICE static Vectors load_vectors(const Arguments& arguments, const Pages& pages, const Side& side,
                                          int first_sequence, int block, int i) {
    Vectors own;
    const int group = i % kGroups;
    own.index = i / kGroups + lane_index() * kTeams;
    own.slot = Own::of(arguments, first_sequence, block, smaller(own.index, kBlockTokens - 1));
    own.encoded = own.index < kBlockTokens && own.slot.encoded();
    load_vector(own.slot.row(side) + side.channel + group * kVectorSize, own.encoded, own.channels);
    own.page = group == 0 && own.encoded ? pages.page_of(own.slot.sequence, own.slot.position / kBlockTokens) : 0;
    return own;
  }

  /// The codes of some of a group's vectors, by a warp: each stage's nearest entries to what the stages before have left.
  VQCC_DEVICE static void encode(const Side& side, int i, Vectors& vectors, uint32* codes) {
    constexpr int kLaneCodes = kTeams * kGroups * kStages;  // from a lane's slot to the next lane's
    const int group = i % kGroups;
    const uint32 wanted = lanes_where(vectors.encoded);
    if (wanted == 0) return;
    const Search search(dynamic_shared() + kScratch + warp_index() * Search::kScratchBytes);
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage) {
      const StageEntries<kSpace> entries = stage_entries(side, group, stage);
      uint32* own_codes = codes + (i / kGroups * kGroups + group) * kStages + stage;
      search.take(vectors.channels);
      search.find(entries, wanted, [=](int vector, uint32 code) {
        if (vector < kTeamSlots) own_codes[vector * kLaneCodes] = code;
      });
      if (kStages == 1) break;
      warp_barrier();
      if (vectors.encoded) subtract(entries.entries, own_codes[lane_index() * kLaneCodes], vectors.channels);
    }
  }

  VQCC_DEVICE static const uint8* first_book(const Side& side) {
    const int of_head = Books::kBooksByHead ? side.head * Books::kHeadBooks : 0;
    const int book = of_head + (kBookEach ? side.channel / kVectorSize : 0);
    return side.books + static_cast<int64>(book) * Algorithm::kTableBytes;
  }
  VQCC_DEVICE static StageEntries<kSpace> stage_entries(const Side& side, int group, int stage) {
    const int book = kBookEach ? group : 0;
    if constexpr (Staged::kPossible) return Staged::stage(dynamic_shared(), book, stage);
    else return {first_book(side) + book * Algorithm::kTableBytes + stage * Algorithm::kStageBytes, nullptr};
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
    Algorithm::Entry::template load_from<kSpace>(entry).to_float(values);
#pragma unroll
    for (int c = 0; c < kVectorSize; ++c) rest[c] = rest[c] - values[c];
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
