// gemm for so many rows of x that weights are decoded once, to memory that stays in L2, and multiplied like any others.
#pragma once

#include "dense_decoder.cuh"
#include "dense_outputs.cuh"

namespace vqcc {

/// y[m, n] = sum over k of x[m, k] W[n, k] (+ bias[n]) by multiplies of a warpgroup (wgmma.m64n256k16), both operands in
/// shared memory.
///
/// A launch has as many blocks as the GPU runs at a time; each has three warpgroups, whose warps run free of one another.
///  - Of the first one, kDecodingWarps decode units of pieces of W (DenseDecoder) into a ring of pieces in the workspace.
///  - All others first arrange x in the workspace (ArrangedInputs).
///  - Then a lane of the first warp loads: for each stage of 64 columns of a tile of y, the piece's image and that of 128
///    rows of x, by one copy each, into one of kStages stages in shared memory.
///  - Two warpgroups multiply: 64 rows of x each with all 256 rows of W, whose sums are 128 registers of a thread, and store
///    them. They have one tile together: a stage then serves 128 by 256 products, for which L2 is just fast enough. While
///    they store, the next tile's first stages arrive.
///
/// Groups of x, units and tiles are taken from three counters, each in order. A tile waits for its panel's groups and its
/// piece's units; a unit waits for the tiles of the piece that had its place in the ring before; a group waits for nothing.
/// Nothing else waits for another block, so a launch ends however its blocks are scheduled, one after the other included. A
/// block that asks for a tile has found all groups taken, by warps that are at them and will be done. Of all tiles not yet
/// done take the first, T. Whoever has it has done those that it took before, so is at T, and its block takes units as long
/// as there are some. Of the units that T waits for take the first not yet done: if it is taken, its block is at it, and what
/// that waits for are tiles before T, which are done; if not, T's block takes it. So there is always one that goes on.
///
/// Who decodes writes by ordinary stores what the copy engine of another SM then reads: every thread shows its stores to
/// copies (a proxy fence) before its warps meet and one counts the unit; who starts the copy has seen the count and fences
/// likewise. x is handed over in the same way. The way back of a piece's place, too: a tile's copies have arrived, as its
/// multiplying warps were shown by the stages' barriers, before it is counted, and who then decodes into their place has seen
/// that count.
template <class Algorithm, class Matrix, class Layout, class Tile>
class DenseGemm {
  using Work = DenseWork<Algorithm, Matrix, Layout, Tile>;
  using Decoder = DenseDecoder<Algorithm, Matrix, Layout, Tile>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kGroupWarps = 4;
  static constexpr int kGroupThreads = kGroupWarps * kWarpSize;
  static constexpr int kMultipliers = 2;  // warpgroups
  static constexpr int kWarps = (1 + kMultipliers) * kGroupWarps;
  static constexpr int kFirstDecoder = kGroupWarps - Tile::kDecodingWarps;  // a warp; the first one loads
  static_assert(kFirstDecoder >= 1 && Tile::kDecodingWarps >= 1, "one loads and some decode");
  /// Of a thread; what a launch of so many threads gives each are 168, and no less is compiled for sums of 256 columns.
  static constexpr int kFirstRegisters = 104, kMultiplierRegisters = 200;
  static_assert(kFirstRegisters + kMultipliers * kMultiplierRegisters <= (1 + kMultipliers) * 168, "of all registers");
  enum Barrier { kDecoderBarrier = 1, kGroupBarrier = 2 };  // from there on one of each multiplying warpgroup

  static constexpr int kStages = Tile::kStages;
  static constexpr int kGroupRows = 64;  // of x, of a multiplying warpgroup
  static constexpr int kPanelRows = kMultipliers * kGroupRows;
  static_assert(kPanelRows == Work::kPanelRows, "a tile's rows of x are the warpgroups'");
  using Outputs = DenseOutputs<Matrix, Tile, Work::kPieceRows, kGroupThreads>;
  using Sums = float[Work::kPieceRows / 2];

  /// Shared memory: stages, each an image of W and one of x; what hands them on; terms of outputs, of each warpgroup; books.
  static constexpr int kStageBytes = Work::kImageBytes + Work::Inputs::kStageBytes;
  static constexpr int kControlOffset = kStages * kStageBytes;
  static constexpr int kControlBytes = 256;
  static constexpr int kTermsOffset = kControlOffset + kControlBytes;
  static constexpr int kBooksOffset = kTermsOffset + kMultipliers * Outputs::kTermBytes;
  static_assert(kBooksOffset + Decoder::kBookBytes + 1024 <= Tile::kOwnSharedBytes, "the plan has room for stages and books");

  /// A stage is `full` when both images are there, `empty` when each multiplying warp is done with it. With a tile's first
  /// stage come its piece and panel; a piece past all of them says that there are no more.
  struct Control {
    StageBarrier full[kStages];
    StageBarrier empty[kStages];
    int piece[kStages];
    int panel[kStages];
    uint32 unit;
    uint32 last;
  };
  static_assert(sizeof(Control) <= kControlBytes, "barriers and numbers have room");

 public:
  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    const DenseGemm kernel(arguments);
    kernel.begin();
    // The launch before may still be at the workspace, and at x.
    wait_for_previous_kernels();
    const int warp = uniform_warp_index();
    if (warp < kFirstDecoder || warp >= kGroupWarps) kernel.arrange_inputs();
    if (warp < kGroupWarps) {
      give_registers<kFirstRegisters>();
      if (warp >= kFirstDecoder) {
        uint8* books = kernel.shared_ + kBooksOffset;
        Decoder(arguments, warp - kFirstDecoder, books, &kernel.control_->unit, kDecoderBarrier).run();
      } else if (threadIdx.x == 0) {
        kernel.load_tiles();
      }
    } else {
      take_registers<kMultiplierRegisters>();
      kernel.multiply_tiles(warp / kGroupWarps - 1);
    }
    kernel.end();
  }

 private:
  VQCC_DEVICE explicit DenseGemm(const Arguments& arguments)
      : arguments_(arguments),
        shared_(align_shared<1024>(dynamic_shared())),
        control_(reinterpret_cast<Control*>(shared_ + kControlOffset)) {}

  VQCC_DEVICE void begin() const {
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < kStages; ++stage) {
        make_barrier(control_->full + stage, 1);
        make_barrier(control_->empty + stage, kMultipliers * kGroupWarps);
      }
      show_barriers();
    }
    block_barrier();
  }

  VQCC_DEVICE void arrange_inputs() const {
    const int warps = static_cast<int>(gridDim.x) * (kWarps - Tile::kDecodingWarps);
    Work::inputs(arguments_.workspace).arrange(arguments_.x, arguments_.x_stride, arguments_.m, warps);
  }

  /// The block that is the last to end leaves all counters zero.
  VQCC_DEVICE void end() const {
    warp_barrier();
    block_barrier();
    const auto counters = Work::counters(arguments_.workspace);
    if (threadIdx.x == 0) control_->last = count_arrival(counters.departed());
    block_barrier();
    if (control_->last != gridDim.x - 1) return;
    for (int i = static_cast<int>(threadIdx.x); i < Work::kCounters; i += kWarps * kWarpSize) counters.words[i] = 0u;
  }

  VQCC_DEVICE uint8* weights(int stage) const { return shared_ + stage * kStageBytes; }
  VQCC_DEVICE uint8* inputs(int stage) const { return weights(stage) + Work::kImageBytes; }
  VQCC_DEVICE float2* terms(int group) const {
    return reinterpret_cast<float2*>(shared_ + kTermsOffset + group * Outputs::kTermBytes);
  }

  // ---- Loading -----------------------------------------------------------------------------------------------------

  /// Loads tiles until there are no more; one thread does.
  VQCC_DEVICE void load_tiles() const {
    const auto counters = Work::counters(arguments_.workspace);
    const auto panels = static_cast<uint32>(Work::panels_of(arguments_.m));
    uint32 next = take_number(counters.next_tile());
    if (Tile::kFirstPieces > 0) begin_together();
    Turn<kStages> turn;
#pragma unroll 1
    for (;;) {
      const int piece = static_cast<int>(next / panels);
      const int panel = static_cast<int>(next % panels);
      wait_for_phase(control_->empty + turn.slot, turn.parity ^ 1u);
      control_->piece[turn.slot] = piece;
      control_->panel[turn.slot] = panel;
      if (piece >= Work::kPieces) {
        arrive(control_->full + turn.slot);
        return;
      }
      next = take_number(counters.next_tile());  // on its way meanwhile
      wait_for_arrivals(counters.decoded(piece), Work::kPieceUnits);
      // Later pieces were decoded when others had been multiplied with all of x.
      if (piece < Work::kRing) Work::inputs(arguments_.workspace).wait_for_panel(panel);
      show_to_copies();
      load_tile(piece, panel, turn);
    }
  }

  /// Waits for all that the first tiles of all blocks need: tiles that read the same of W and x then do so at about the same
  /// time, and find it in L2.
  VQCC_DEVICE void begin_together() const {
    const int panels = Work::panels_of(arguments_.m);
    const int pieces = smaller(Tile::kFirstPieces, Work::kPieces);
    wait_for_arrivals(Work::counters(arguments_.workspace).decoded(pieces - 1), Work::kPieceUnits);
    Work::inputs(arguments_.workspace).wait_for_panel(panels - 1);
  }

  VQCC_DEVICE void load_tile(int piece, int panel, Turn<kStages>& turn) const {
    const uint8* weight_images = Work::place_of(arguments_.workspace, piece);
    const uint8* input_images = Work::inputs(arguments_.workspace).stage(panel, 0);
#pragma unroll 1
    for (int i = 0; i < Work::kStages; ++i) {
      StageBarrier* full = control_->full + turn.slot;
      wait_for_phase(control_->empty + turn.slot, turn.parity ^ 1u);
      arrive_expecting(full, kStageBytes);
      start_bulk_copy(weights(turn.slot), weight_images, Work::kImageBytes, full);
      start_bulk_copy(inputs(turn.slot), input_images, Work::Inputs::kStageBytes, full);
      weight_images += Work::kImageBytes;
      input_images += Work::Inputs::kStageBytes;
      turn.advance();
    }
  }

  // ---- Multiplying -------------------------------------------------------------------------------------------------

  /// Multiplies tiles until there are no more, as warpgroup `group` of those that do.
  VQCC_DEVICE void multiply_tiles(int group) const {
    const auto counters = Work::counters(arguments_.workspace);
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    Turn<kStages> turn;
    Sums sums;
#pragma unroll 1
    for (;;) {
      wait_for_phase(control_->full + turn.slot, turn.parity);
      const int piece = told(control_->piece[turn.slot]);
      const int panel = told(control_->panel[turn.slot]);
      // All lanes hold the same. Compilers know it by a vote, and keep what follows in uniform registers: 1 % faster.
      if (any_lane(piece >= Work::kPieces)) return;
      typename Outputs::OwnTerms own;
      own.load(arguments_, Work::first_row_of(piece) + thread);
      multiply_tile(group, turn, own, sums);
      group_barrier<kGroupThreads>(kGroupBarrier + group);  // past which nobody needs the terms of the tile before
      own.put(terms(group) + thread, Decoder::factor());
      group_barrier<kGroupThreads>(kGroupBarrier + group);
      if (group == 0 && thread == 0) tell_arrivals(counters.multiplied(piece), 1u);
      const int first_input = panel * kPanelRows + group * kGroupRows + thread / kWarpSize * 16;
      const Outputs outputs(arguments_, terms(group));
      outputs.store_sums(first_input, Work::first_row_of(piece), Work::end_row_of(piece), sums);
    }
  }

  /// Adds up the stages of a tile, one's multiplies always under way while the next one's start. `own` has been loaded
  /// when it returns.
  VQCC_DEVICE void multiply_tile(int group, Turn<kStages>& turn, typename Outputs::OwnTerms& own, Sums& sums) const {
    constexpr int kHoldingStage = smaller(2, Work::kStages - 1);
#pragma unroll
    for (int i = 0; i < Work::kPieceRows / 2; ++i) sums[i] = 0.0f;
    int before = turn.slot;
#pragma unroll 1
    for (int i = 0; i < Work::kStages; ++i) {
      wait_for_phase(control_->full + turn.slot, turn.parity);
      const uint8* own_inputs = inputs(turn.slot) + group * kGroupRows * SwizzledRows::kRowBytes;
      begin_multiplies();
#pragma unroll
      for (int slice = 0; slice < Work::kStageColumns / 16; ++slice) {
        start_shared_multiply<Tile::kElement>(sums, own_inputs, weights(turn.slot), slice);
      }
      commit_multiplies();
      if (i > 0) {
        wait_for_multiplies_but<1>();
        release(before);
      }
      if (i == kHoldingStage) own.hold();
      before = turn.slot;
      turn.advance();
    }
    wait_for_multiplies_but<0>();
#pragma unroll
    for (int i = 0; i < Work::kPieceRows / 2; ++i) settle(sums[i]);
    release(before);
  }

  /// What the thread that loads left in `word`, read by the lane that later says that its warp has read the stage: racecheck
  /// follows a barrier's order for those that arrive themselves.
  VQCC_DEVICE static int told(const int& word) {
    return static_cast<int>(value_of_lane(lane_index() == 0 ? static_cast<uint32>(word) : 0u, 0));
  }

  /// Says that this warp has read a stage.
  VQCC_DEVICE void release(int stage) const {
    warp_barrier();
    if (lane_index() == 0) arrive(control_->empty + stage);
  }

  const Arguments arguments_;
  uint8* shared_;
  Control* control_;
};

}  // namespace vqcc
