// What blocks that stay work on: whole tiles of outputs, and parts of those that are too few for all blocks.
#pragma once

#include "../matrix.cuh"

namespace vqcc {

/// A tile of outputs, or a part of its columns: units `first_unit` to `end_unit`, of kUnits.
struct WorkPiece {
  int panel;  // of rows of x
  int set;    // of rows of W
  int tile;   // among those that blocks share; -1 for a whole one
  int first_unit;
  int end_unit;

  VQCC_DEVICE bool whole() const { return tile < 0; }
};

/// Deals kSets tiles of each panel to kBlocks blocks. Tiles follow one another by groups of kGroup panels, in each of them set
/// by set: blocks that run together have codes in common, and x of a group stays in L2 while all sets pass. Panels past the
/// last whole group follow one by one. What is left of whole rounds of kBlocks tiles comes first and is dealt by units: each
/// place in the row of blocks has as many, give or take one, of the tiles that follow one another.
///
/// The place that has a tile's first units adds up its parts. It has them last of its units, the others have theirs first,
/// so that it seldom waits. Places go against the numbers of blocks: what a block waits for is of blocks that were started
/// before it. No more are launched than run at a time; where others hold some SMs, blocks have begun in the order of their
/// numbers on every GPU so far, which CUDA does not promise.
template <int kBlocks, int kSets, int kUnits, int kGroup>
struct StreamWork {
  int tiles;         // of all panels
  int whole_rounds;  // of kBlocks tiles each

  VQCC_DEVICE explicit StreamWork(int panels) : tiles(panels * kSets), whole_rounds(tiles / kBlocks) {}

  VQCC_DEVICE static int own_place() { return kBlocks - 1 - static_cast<int>(blockIdx.x); }

  VQCC_DEVICE int shared_units() const { return (tiles - whole_rounds * kBlocks) * kUnits; }

  /// The first of the units of place `place`: those of the next one begin where its own end.
  VQCC_DEVICE int first_of(int place) const {
    const int units = shared_units();
    return place * (units / kBlocks) + smaller(place, units % kBlocks);
  }

  /// The place that has unit `unit`.
  VQCC_DEVICE int place_of(int unit) const {
    const int few = shared_units() / kBlocks;
    const int more = shared_units() % kBlocks;
    const int of_longer = more * (few + 1);
    return unit < of_longer ? unit / (few + 1) : more + (unit - of_longer) / (few > 0 ? few : 1);
  }

  /// The last of the places that have parts of a shared tile.
  VQCC_DEVICE int last_place(int tile) const { return place_of(tile * kUnits + kUnits - 1); }

  /// This block's piece `number`, if there are so many. Nothing of it is kept in registers: it is counted anew where one
  /// begins or ends.
  VQCC_DEVICE bool find(int number, WorkPiece& piece) const {
    const int first = first_of(own_place());
    const int end = first_of(own_place() + 1);
    const int shared_tiles = end > first ? (end - 1) / kUnits - first / kUnits + 1 : 0;
    int tile = first / kUnits + number;
    piece.first_unit = number == 0 ? first % kUnits : 0;
    piece.end_unit = smaller(kUnits, end - tile * kUnits);
    const bool shared = number < shared_tiles;
    if (!shared) {
      if (number - shared_tiles >= whole_rounds) return false;
      tile = tiles - (whole_rounds - (number - shared_tiles)) * kBlocks + static_cast<int>(blockIdx.x);
      piece.first_unit = 0;
      piece.end_unit = kUnits;
    }
    constexpr int kGroupTiles = kGroup * kSets;
    const int group = tile / kGroupTiles;
    const int own = tile - group * kGroupTiles;
    const bool whole_group = (group + 1) * kGroupTiles <= tiles;
    piece.panel = group * kGroup + (whole_group ? own % kGroup : own / kSets);
    piece.set = whole_group ? own / kGroup : own % kSets;
    piece.tile = shared && piece.end_unit - piece.first_unit < kUnits ? tile : -1;
    return true;
  }
};

}  // namespace vqcc
