// gemm on tensor cores whose operand A is decoded into registers and whose operand B, x, lies in shared memory.
#pragma once

#include "../book_copies.cuh"
#include "warpgroup_codes.cuh"
#include "warpgroup_outputs.cuh"

namespace vqcc {

/// y[m, n] = sum over k of x[m, k] W[n, k] (+ bias[n]) by multiplies of a warpgroup (wgmma.m64nNk16).
///
/// A tile is kRows rows of W, 32 to each warp that multiplies, times kBatch rows of x. Blocks stay, and take tiles and parts
/// of tiles (stream_work.cuh). Lane 4 g + t decodes rows g, g + 8, g + 16 and g + 24 of its warp's, as codes are packed in
/// fragments (FragmentLayout): the first two make operand A of one multiply, the others that of a second one. x is stored
/// in the order of decoding (InputOrder).
///
/// First all warps arrange x in the workspace (ArrangedInputs). Then warpgroups run free of one another. The last one of a
/// block helps: one lane brings x, in stages that take turns, and where books change along the work, other warps bring the
/// next ones. Each stage and each buffer of books has a barrier that says it is full and one that says all have read it.
/// Codes of the next round are on their way in registers.
template <class Algorithm, class Matrix, class Layout, class Tile>
class WarpgroupGemm {
  using Shape = WarpgroupShape<Algorithm, Matrix, Layout, Tile>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;
  static constexpr int kBatch = Tile::kBatch;
  static constexpr int kPartUnit = Tile::kPartUnit;
  static constexpr int kMultiplying = Shape::kMultiplying;  // warps
  static constexpr int kHelping = Shape::kHelping;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr bool kBooksChange = Shape::kBooksChange;
  using Work = StreamWork<Tile::kBlocks, Shape::kSets, Shape::kParts, Shape::kPanelGroup>;
  using Parts = WarpParts<kBatch, kMultiplying, Tile::kArrivals>;
  using Outputs = WarpOutputs<Tile, Matrix, Arguments>;
  using Sums = WarpSums<kBatch>;
  using Codes = RoundCodes<Algorithm, Layout, Shape>;
  using Stream = CodeStream<Algorithm, Layout, Shape, Work>;
  using Weights = OperandWeights<Tile::kElement, Shape>;

  /// Who helps: the first warp brings x, the others books, if they change.
  static constexpr int kBringingBooks = kHelping - 1;
  static constexpr bool kGivesRegisters = Tile::kMultiplyingRegisters > 0;
  using Books = BookCopies<Algorithm, Tile, kThreads>;
  using NextBooks = BookCopies<Algorithm, Tile, kBringingBooks * kWarpSize, (kMultiplying + 1) * kWarpSize>;
  using Inputs =
      ArrangedInputs<Tile::kElement, kBatch, Shape::kTileStages, typename Shape::Order, Matrix::kColumns>;

  /// Shared memory: books, stages of x, buffers of outputs, barriers.
  static constexpr int kStages = Tile::kStages;
  static constexpr int kStagesOffset = ceil_divide(Books::kBytes, 1024) * 1024;
  static constexpr int kOutputsOffset = kStages * Inputs::kStageBytes;  // from the stages on
  static constexpr int kBarriersOffset = kOutputsOffset + kMultiplying * Outputs::kBytes;
  static constexpr int kBarriers = 2 * kStages + 4;
  static_assert(kStages >= 3, "a stage is multiplied, one is full and one is filled");
  static_assert(Shape::kStageUnits == 2, "arrivals come between units: multiplies in flight are those of one stretch of code");
  static_assert(kStagesOffset + 1024 + kBarriersOffset + kBarriers * 8 <= Tile::kOwnSharedBytes, "the plan has room");

 public:
  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    WarpgroupGemm(arguments).work();
  }

 private:
  VQCC_DEVICE explicit WarpgroupGemm(const Arguments& arguments) : arguments_(arguments) {
    // The driver's own shared memory lies in front: what a descriptor names is aligned by hand.
    stages_ = static_cast<int>(align_shared<1024>(dynamic_shared() + kStagesOffset) - dynamic_shared());
  }

  /// Shared memory from the stages on: of a stage, of a warp's outputs, and the barriers.
  VQCC_DEVICE uint8* from_stages(int offset) const { return dynamic_shared() + stages_ + offset; }
  VQCC_DEVICE uint8* stage_at(int slot) const { return from_stages(slot * Inputs::kStageBytes); }
  VQCC_DEVICE StageBarrier* barrier(int number) const {
    return reinterpret_cast<StageBarrier*>(from_stages(kBarriersOffset + 8 * number));
  }
  VQCC_DEVICE StageBarrier* full(int slot) const { return barrier(slot); }
  VQCC_DEVICE StageBarrier* read(int slot) const { return barrier(kStages + slot); }
  VQCC_DEVICE StageBarrier* books_full(int buffer) const { return barrier(2 * kStages + buffer); }
  VQCC_DEVICE StageBarrier* books_read(int buffer) const { return barrier(2 * kStages + 2 + buffer); }

  VQCC_DEVICE void work() const {
    const int warp = uniform_warp_index();
    WorkPiece first = {};
    dealt().find(0, first);
    start_books(Books(), first.set, first.first_unit * kPartUnit, 0);
    if (warp < kMultiplying) Stream(arguments_.codes, dealt()).prefetch();
    if (threadIdx.x == kThreads - 1) make_barriers();
    wait_for_copies();
    Books().finish_loading(0);
    wait_for_previous_kernels();  // weights are no kernel's output: only they were asked for so far
    inputs().arrange(arguments_.x, arguments_.x_stride, arguments_.m, Tile::kBlocks * (kMultiplying + kHelping));
    block_barrier();
    if (warp < kMultiplying) {
      if constexpr (kGivesRegisters) take_registers<Tile::kMultiplyingRegisters>();
      multiply();
    } else {
      if constexpr (kGivesRegisters) give_registers<Tile::kHelpingRegisters>();
      if (threadIdx.x == kMultiplying * kWarpSize) bring_inputs();
      if (kBooksChange && warp > kMultiplying) bring_books();
    }
  }

  /// Of stages one lane arrives for its warp. Of books, which lanes read and write by ordinary accesses, all do: racecheck
  /// follows a barrier's order for those that arrive themselves, and this costs nothing that can be measured.
  VQCC_DEVICE void make_barriers() const {
    for (int i = 0; i < kStages; ++i) {
      make_barrier(full(i), 1);
      make_barrier(read(i), kMultiplying);
    }
    for (int i = 0; i < 2; ++i) {
      make_barrier(books_full(i), kBringingBooks * kWarpSize);
      make_barrier(books_read(i), kMultiplying * kWarpSize);
    }
    show_barriers();
  }

  /// One lane arrives for its warp: what all its lanes did before is done.
  VQCC_DEVICE static void arrive_for_warp(StageBarrier* barrier) {
    warp_barrier();
    if (lane_index() == 0) arrive(barrier);
  }

  // ---- Warps that help ---------------------------------------------------------------------------------------------

  VQCC_DEVICE Work dealt() const { return Work(ceil_divide(computed_anew(arguments_.m), kBatch)); }

  VQCC_DEVICE Inputs inputs() const {
    return {arguments_.workspace + Tile::kInputsOffset, arrival_of(arguments_.workspace, Tile::kInputCounters)};
  }

  /// Brings x of all rounds, stage by stage; one thread does.
  VQCC_DEVICE void bring_inputs() const {
    const Inputs arranged = inputs();
    Turn<kStages> turn;
    int panel = -1;
    WorkPiece piece;
    for (int number = 0; dealt().find(number, piece); ++number) {
      if (piece.panel != panel) arranged.wait_for_panel(panel = piece.panel);
      const int end = piece.end_unit * kPartUnit * Shape::kRoundStages;
#pragma unroll 1
      for (int stage = piece.first_unit * kPartUnit * Shape::kRoundStages; stage < end; ++stage) {
        wait_for_phase(read(turn.slot), turn.parity ^ 1u);
        arrive_expecting(full(turn.slot), Inputs::kStageBytes);
        start_bulk_copy(stage_at(turn.slot), arranged.stage(panel, stage), Inputs::kStageBytes, full(turn.slot));
        turn.advance();
      }
    }
    arranged.leave(Tile::kBlocks, ceil_divide(arguments_.m, kBatch));
  }

  /// Brings the books of one span after the other's, the first ones being there.
  VQCC_DEVICE void bring_books() const {
    Turn<2> turn;
    bool first = true;
    WorkPiece piece;
    for (int number = 0; dealt().find(number, piece); ++number) {
      const int end = piece.end_unit * kPartUnit;
#pragma unroll 1
      for (int round = piece.first_unit * kPartUnit; round < end; round += Shape::kSpanRounds) {
        if (!first) {
          wait_for_phase(books_read(turn.slot), turn.parity ^ 1u);
          start_books(NextBooks(), piece.set, round, turn.slot);
          wait_for_copies();
          NextBooks().finish_loading(turn.slot);
        }
        first = false;
        arrive(books_full(turn.slot));
        turn.advance();
      }
    }
  }

  /// Starts to copy the books of a round's column tiles, or the one that there is.
  template <class Loader>
  VQCC_DEVICE void start_books(const Loader& loader, int set, int round, int buffer) const {
    const int band = set / Shape::kSetsPerBand;
    const int first_tile = Tile::kQuadTiles == 1 ? 0 : round / Shape::kSpanRounds * Shape::kQuad;
    loader.start_loading(arguments_.books, buffer, [&](int tile) {
      return band * Shape::kColumnTiles + smaller(first_tile + tile, Shape::kColumnTiles - 1);  // past the last: any will do
    });
  }

  // ---- Warps that multiply -----------------------------------------------------------------------------------------

  /// Where a warp that multiplies is.
  struct Progress {
    Turn<kStages> stage;
    Turn<2> books_turn;
    int read_stage = -1;  // multiplies of it are under way: it may not be written yet
    bool books_end = true;  // the next round has other books
    Books books;
  };

  VQCC_DEVICE void multiply() const {
    Stream later(arguments_.codes, dealt());
    Codes codes;
    later.load(dealt(), codes);
    Progress progress;
    WorkPiece piece;
    for (int number = 0; dealt().find(number, piece); ++number) {
      Sums sums = {};
      const int end = piece.end_unit * kPartUnit;
#pragma unroll 1
      for (int round = piece.first_unit * kPartUnit; round < end; ++round) {
        multiply_round(round, end, later, codes, progress, sums);
      }
      wait_for_multiplies_but<0>();
#pragma unroll
      for (int tile = 0; tile < Sums::kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < Sums::kValues; ++i) settle(sums.values[tile][i]);
      }
      arrive_for_warp(read(progress.read_stage));
      progress.read_stage = -1;
      // What only the end needs is counted anew there.
      dealt().find(computed_anew(number), piece);
      finish(piece, sums);
    }
  }

  /// Multiplies a round. `codes` are its own, and then those of the next.
  VQCC_DEVICE void multiply_round(int round, int end, Stream& later, Codes& codes, Progress& progress,
                                  Sums& sums) const {
    const Codes own = codes;
    later.load(dealt(), codes);
    if (kBooksChange && progress.books_end) {
      wait_for_phase(books_full(progress.books_turn.slot), progress.books_turn.parity);
      progress.books.use(progress.books_turn.slot);
    }
    multiply_units(own, progress, sums);
    progress.books_end = round % Shape::kSpanRounds == Shape::kSpanRounds - 1 || round + 1 == end;
    if (kBooksChange && progress.books_end) {
      arrive(books_read(progress.books_turn.slot));
      progress.books_turn.advance();
    }
  }

  /// Decodes this lane's weights of a round and multiplies them with x: an operand is decoded while the one before is
  /// multiplied. Compilers keep multiplies in flight past what is decoded for later ones only where something branches
  /// between them: the arrivals at barriers, after the first unit of each stage and before it.
  VQCC_DEVICE void multiply_units(const Codes& codes, Progress& progress, Sums& sums) const {
    constexpr int kStageOperands = Shape::kStageUnits * Shape::kOperands;
#pragma unroll
    for (int i = 0; i < Shape::kRoundStages * kStageOperands; ++i) {
      Weights weights;
      weights.template decode<Algorithm>(progress.books, codes, i);
      const bool begins_stage = i % kStageOperands == 0;
      if (begins_stage) wait_for_phase(full(progress.stage.slot), progress.stage.parity);
      start_multiplies(weights, stage_at(progress.stage.slot), i / Shape::kOperands % Shape::kStageUnits, sums);
      wait_for_multiplies_but<2>();  // those of the operand before: what they read may be written
      if (begins_stage && progress.read_stage >= 0) arrive_for_warp(read(progress.read_stage));
      if ((i + 1) % kStageOperands == 0) {
        progress.read_stage = progress.stage.slot;
        progress.stage.advance();
      }
    }
  }

  /// Starts the multiplies of a unit: two slices of sixteen columns, by the rows of x in `inputs`.
  VQCC_DEVICE static void start_multiplies(Weights& weights, const uint8* inputs, int unit, Sums& sums) {
#pragma unroll
    for (int row = 0; row < 4; ++row) {
#pragma unroll
      for (int pair = 0; pair < Weights::kPairs; ++pair) settle(weights.pairs[row][pair]);
    }
#pragma unroll
    for (int slice = 0; slice < 2; ++slice) {
      begin_multiplies();
#pragma unroll
      for (int tile = 0; tile < Sums::kTiles; ++tile) {
        const auto& upper = weights.pairs[2 * tile];
        const auto& lower = weights.pairs[2 * tile + 1];
        const uint32 a[4] = {upper[2 * slice], lower[2 * slice], upper[2 * slice + 1], lower[2 * slice + 1]};
        start_multiply<Tile::kElement, kBatch>(sums.values[tile], a, inputs, unit * 2 + slice);
      }
      commit_multiplies();
    }
  }

  /// Stores the sums of a piece, or leaves them to the block that has the tile's first part.
  VQCC_DEVICE void finish(const WorkPiece& piece, Sums& sums) const {
    const int warp = computed_anew(warp_index());
    if (!piece.whole()) {
      const Parts parts(arguments_.workspace, piece.tile, warp);
      if (piece.first_unit > 0) {
        parts.leave(Work::own_place(), sums);
        return;
      }
      parts.add_up(Work::own_place() + 1, dealt().last_place(piece.tile), sums);
    }
    Arguments own = arguments_;
    own.x += piece.panel * kBatch * arguments_.x_stride;
    own.y += piece.panel * kBatch * arguments_.y_stride;
    own.m -= piece.panel * kBatch;
    const int band = piece.set / Shape::kSetsPerBand;
    const int own_block = piece.set % Shape::kSetsPerBand * kMultiplying + warp;
    const int first_row = band * Shape::kBandRows + own_block * Shape::kBlockRows;
    const int end_row = smaller(Matrix::kRows, (band + 1) * Shape::kBandRows);
    if (first_row >= end_row) return;
    uint8* shared = from_stages(kOutputsOffset + warp * Outputs::kBytes);
    Outputs(own, first_row, end_row, shared).store(sums, Algorithm::stage_factor(0));
  }

  const Arguments arguments_;
  int stages_;  // where they begin, from the block's dynamic shared memory on
};

}  // namespace vqcc
