// gemv by decoding: an engine multiplies what the codes of its rows stand for.
#pragma once

#include "../codebook_cache.cuh"
#include "outputs.cuh"

namespace vqcc {

/// y[m, n] = sum over k of x[m, k] W[n, k] (+ bias[n]), W dequantized on the way to the multiply-adds (Algorithm 2).
///
/// Work is dealt out by items: a block of rows, and one codebook-centric part of them (Sec. VI-A). Blocks stay
/// resident and take consecutive items, which share codebooks. Sums are fp32 and added in a fixed order.
template <class Algorithm, class Matrix, class Layout, class Tile, template <class, class, class, class> class Engine>
class DecodeGemv {
  using Multiplier = Engine<Algorithm, Matrix, Layout, Tile>;
  using Warp = GemvWarp<Tile>;
  using Shape = Geometry<Algorithm, Matrix, Layout>;
  using Parts = GemvParts<Algorithm, Matrix, Layout, Tile>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kBatch = Tile::kBatch;
  static constexpr int kRowsPerBlock = Tile::kRowsPerWarp * Tile::kWarpsAcrossRows;
  static constexpr int kWarps = Tile::kWarpsAcrossRows * Tile::kWarpsAlongRow;
  static constexpr int kThreads = kWarpSize * kWarps;
  static constexpr int kBlocksPerBand = ceil_divide(smaller(Matrix::kTileRows, Matrix::kRows), kRowsPerBlock);
  static constexpr int kOutputs = kRowsPerBlock * kBatch;  // of an item
  static constexpr int kSumsBytes = ceil_divide(Tile::kWarpsAlongRow * kOutputs * 4, 16) * 16;
  static_assert(kSumsBytes + kWarps * Multiplier::kScratchBytes <= Tile::kOwnSharedBytes, "the plan has room for sums");

  static_assert(PanelsOf<Tile>::kPanels == 1 || Parts::kParts == 1, "blocks of several panels share no outputs");

  using Cache = CodebookCache<Algorithm, Tile, kThreads>;

 public:
  VQCC_DEVICE static void run(const Arguments& launched) {
    allow_next_kernel();
    const int blocks = Panel<Tile>::blocks_of(launched.m);
    const Panel<Tile> panel(blocks);
    const Arguments arguments = panel.of(launched);
    uint8* shared = dynamic_shared();
    float* warp_sums = reinterpret_cast<float*>(shared);
    uint8* scratch = shared + kSumsBytes + warp_index() * Multiplier::kScratchBytes;
    Cache cache(arguments.books, arguments.stage_scales, shared + Tile::kOwnSharedBytes);

    const int end_item = first_item_of(panel.block + 1, blocks);
    int item = first_item_of(panel.block, blocks) - 1;
    int phase = Parts::kPhases;
    GemvWork work;
    int tiles = advance(item, phase, end_item, work);
    if (tiles == 0) return;
    typename Multiplier::Codes codes;
    Multiplier::prefetch(arguments, work, codes);
    wait_for_previous_kernels();  // weights are no kernel's output: only they were asked for so far
    typename Multiplier::Sums sums = {};
    for (bool first = true;; first = false) {
      cache.switch_to(work.first_book, work.first_stage, tiles);
      int next_item = item;
      int next_phase = phase;
      GemvWork next;
      const int next_tiles = advance(next_item, next_phase, end_item, next);
      Multiplier::accumulate(arguments, cache, work, next, next_tiles > 0, scratch, codes, sums);

      if (next_item != item || next_tiles == 0) {
        finish(arguments, work, item, !first, warp_sums, sums);
        if (next_tiles == 0) return;
        sums = {};
      }
      item = next_item;
      phase = next_phase;
      work = next;
      tiles = next_tiles;
    }
  }

 private:
  /// Items are dealt out in order: to each block as many as to the others, or one more to the first ones.
  VQCC_DEVICE static int first_item_of(uint32 block, uint32 blocks) {
    constexpr uint32 kItems = Shape::kBands * Parts::kParts * kBlocksPerBand;
    const uint32 more = kItems % blocks;
    return static_cast<int>(kItems / blocks * block + (block < more ? block : more));
  }

  /// What the block does of phase `phase` of item `item`; the column tiles of that, 0 or less if there is no such phase.
  VQCC_DEVICE static int locate(int item, int phase, GemvWork& work) {
    const int block = item % kBlocksPerBand;
    const int part = item / kBlocksPerBand % Parts::kParts;
    const int band = item / kBlocksPerBand / Parts::kParts;
    work.block_row = band * Matrix::kTileRows + block * kRowsPerBlock;
    work.end_row = smaller(Matrix::kRows, (band + 1) * Matrix::kTileRows);
    const int tiles = Parts::narrow(work, part, phase);
    work.first_book = band * Shape::kColumnTiles + work.first_tile;
    return work.block_row < work.end_row ? tiles : 0;  // the last band may have fewer blocks
  }

  /// Moves on to the block's next phase, of the same item or of the next that has any, and locates it; 0 if none is left.
  VQCC_DEVICE static int advance(int& item, int& phase, int end_item, GemvWork& work) {
    if (++phase < Parts::kPhases) {
      const int tiles = locate(item, phase, work);
      if (tiles > 0) return tiles;
    }
    phase = 0;
    while (++item < end_item) {
      const int tiles = locate(item, 0, work);
      if (tiles > 0) return tiles;
    }
    return 0;
  }

  /// Adds up the sums of the warps that share rows, and stores them or leaves them to the other parts.
  VQCC_DEVICE static void finish(const Arguments& arguments, const GemvWork& work, int item, bool again,
                                 float* warp_sums, typename Multiplier::Sums& sums) {
    if (again) block_barrier();  // the last item's sums have been read
    float* own_sums = warp_sums + Warp::share() * kOutputs + Warp::row();
    Multiplier::store_sums(work, sums, own_sums, kRowsPerBlock);
    block_barrier();
    const auto store = [&](int i, float sum) {
      const int row = work.block_row + i % kRowsPerBlock;
      if (row < work.end_row) store_output<Tile, Matrix>(arguments, row, i / kRowsPerBlock, sum);
    };
    if constexpr (Parts::kParts == 1) {
      for (int i = static_cast<int>(threadIdx.x); i < kOutputs; i += kThreads) store(i, block_sum(warp_sums, i));
    } else {
      // As many as there could be row blocks: kernels of one library then agree on where arrivals end.
      constexpr int kArrivals = Shape::kBands * smaller(Matrix::kTileRows, Matrix::kRows);
      const int part = item / kBlocksPerBand % Parts::kParts;
      const int row_block = item / kBlocksPerBand / Parts::kParts * kBlocksPerBand + item % kBlocksPerBand;
      uint32* flag = reinterpret_cast<uint32*>(warp_sums);
      reduce_parts<kOutputs, kThreads>(
          arrival_of(arguments.workspace, row_block),
          part_sums<kArrivals>(arguments.workspace) + static_cast<int64>(row_block) * Parts::kParts * kOutputs, flag, part,
          Parts::kParts,
          [&](int i) { return block_sum(warp_sums, i); }, store);
    }
  }

  /// Output `index` ([row of x][row of the block]) of the item, summed over the warps that share its row.
  VQCC_DEVICE static float block_sum(const float* warp_sums, int index) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < Tile::kWarpsAlongRow; ++w) sum += warp_sums[w * kOutputs + index];
    return sum;
  }
};

}  // namespace vqcc
