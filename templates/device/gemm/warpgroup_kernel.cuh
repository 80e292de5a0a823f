// gemm on tensor cores whose operand A is decoded into registers and whose operand B, x, lies in shared memory.
#pragma once

#include "../arch_warpgroup.cuh"
#include "../book_copies.cuh"
#include "../gemv/outputs.cuh"

namespace vqcc {

/// y[m, n] = sum over k of x[m, k] W[n, k] (+ bias[n]) by multiplies of a warpgroup (wgmma.m64nNk16).
///
/// A block has kRows rows of W, 32 to each warp, times kBatch rows of x, and a part of the columns. Lane 4 g + t decodes rows
/// g, g + 8, g + 16 and g + 24 of its warp's, as codes are packed in fragments (FragmentLayout): the first two make operand A
/// of one multiply, the others that of a second one. A sum over k may run in any order: of 32 columns, eight of each lane of a
/// quad, a lane's pair p is where operand A has its k 2t or 2t + 8 (p odd) of multiply p / 2. x is stored in that order on
/// its way to shared memory, in stages of kStageBlocks times 64 columns, three of which take turns: one is written while one
/// is multiplied and another may still be. Codes of kAhead rounds are on their way in registers.
template <class Algorithm, class Matrix, class Layout, class Tile>
class WarpgroupGemm {
  static constexpr int kBatch = Tile::kBatch;
  static constexpr int kWarps = 4 * Tile::kWarpgroups;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kQuad = 4;
  static constexpr int kBlockRows = 32;  // of a warp
  static constexpr int kRows = kBlockRows * kWarps;
  static constexpr int kAllRowBlocks = ceil_divide(Matrix::kRows, 2 * kBlockRows) * 2;  // as packed: an even number
  using Books = BookCopies<Algorithm, Tile, kThreads>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;
  static constexpr int kStepVectors = Layout::kStepVectors;
  static constexpr int kStepWords = Layout::kStepWords;
  static constexpr int kStepColumns = kStepVectors * kVectorSize;  // of a lane
  static constexpr int kSpanColumns = Layout::kSpanVectors * kVectorSize;
  static constexpr int kLaneColumns = ceil_divide(Matrix::kColumns, kQuad * kSpanColumns) * kSpanColumns;
  static constexpr int kSteps = ceil_divide(kLaneColumns, kStepColumns);

  /// A stage is blocks of 64 columns of x, sixteen of a lane each: four multiplies deep. A round is what whole steps and
  /// whole stages have in common.
  static constexpr int kBlockColumns = SwizzledRows::kColumns / kQuad;  // of a lane
  static constexpr int kStageBlocks = Tile::kStageBlocks;
  static constexpr int kStageColumns = kBlockColumns * kStageBlocks;
  static constexpr int kAhead = Tile::kAhead;
  static constexpr int kRoundColumns = kStepColumns > kStageColumns ? kStepColumns : kStageColumns;
  static constexpr int kRoundSteps = kRoundColumns / kStepColumns;
  static constexpr int kRoundStages = kRoundColumns / kStageColumns;
  static constexpr int kUnitColumns = 8;  // of a lane: two multiplies
  static constexpr int kRounds = ceil_divide(kLaneColumns, kRoundColumns);
  static constexpr int kParts = Tile::kParts;
  static constexpr int kPartRounds = ceil_divide(kRounds, kParts * Tile::kPartUnit) * Tile::kPartUnit;
  static_assert(kRoundColumns % kStepColumns == 0 && kRoundColumns % kStageColumns == 0, "rounds are whole either way");
  static_assert(kVectorSize <= kUnitColumns, "a unit is made of whole vectors");
  static_assert((kParts - 1) * kPartRounds < kRounds, "every part has columns");

  /// Rows of one band of codebook tiles have the same books; of column tiles each lane of a quad has one at a time.
  static constexpr int kBandRows = smaller(Matrix::kTileRows, Matrix::kRows);
  static constexpr int kSetsPerBand = ceil_divide(kBandRows, kRows);
  static constexpr int kBands = ceil_divide(Matrix::kRows, kBandRows);
  static constexpr int kSets = kBands * kSetsPerBand;
  static_assert(kParts == 1 || PanelsOf<Tile>::kPanels * kSets <= Tile::kArrivals, "each panel's sets have counters");
  static constexpr int kColumnTiles = ceil_divide(Matrix::kColumns, Matrix::kTileColumns);
  static constexpr int kSpanRounds = kColumnTiles > 1 ? kSpanColumns / kRoundColumns : kRounds;
  static_assert(kBands == 1 || kBandRows % kBlockRows == 0, "a warp's rows have one band's books");
  static_assert(kColumnTiles == 1 || (kSpanColumns == Matrix::kTileColumns && kSpanColumns % kRoundColumns == 0),
                "a round's lanes have one book each");
  static_assert(kColumnTiles == 1 || Tile::kPartUnit == kSpanRounds, "parts are whole column tiles");
  static_assert(Tile::kQuadTiles == (kColumnTiles > 1 ? kQuad : 1), "each lane of a quad has its own column tile");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "group scales are applied to decoded weights in fp32");

  /// Shared memory: books, then stages of x; at the end sums, in place of both.
  static constexpr int kBlockBytes = kBatch * SwizzledRows::kRowBytes;
  static constexpr int kStageBytes = kStageBlocks * kBlockBytes;
  static constexpr int kStages = 3;
  static constexpr int kStagesOffset = ceil_divide(Books::kBytes, 1024) * 1024;
  static constexpr int kSumStride = kRows + Tile::kSumPadding;
  static constexpr int kOutputs = kRows * kBatch;
  static_assert(kStagesOffset + kStages * kStageBytes + 1024 <= Tile::kOwnSharedBytes, "the plan has room for x");
  static_assert(kSumStride * kBatch * 4 + 16 <= Tile::kOwnSharedBytes, "the plan has room for sums");

  /// Stages of residuals are added up before they are multiplied, in float16, or multiplied one after the other.
  static constexpr int kResiduals = Algorithm::kResiduals;
  static constexpr bool kAddsResiduals = kResiduals > 1 && Tile::kElement == ElementType::kFloat16;
  static constexpr int kOperands = kAddsResiduals ? 1 : kResiduals;
  static_assert(kOperands == 1 || !Algorithm::kStageFactors, "what is multiplied apart has one factor");

  static constexpr int kTiles = 2;  // of 64 rows of a warpgroup: 16 of each warp
  struct Sums {
    float values[kTiles][kBatch / 2];
  };

  /// A lane's codes of one round: a word of each of its four rows at a time.
  struct RoundCodes {
    uint32 words[kRoundSteps][kStepWords][4];

    VQCC_DEVICE PackedCode code(int row, int vector, int stage) const {
      const auto& step = words[vector / kStepVectors];
      const int bit = (vector % kStepVectors * kResiduals + stage) * Algorithm::kCodeBits;
      const int next = smaller(bit / 32 + 1, kStepWords - 1);
      return {step[bit / 32][row], step[next][row], bit % 32, Algorithm::kCodeBits};
    }
  };

  /// What this thread brings of x for one stage: of one row, eight columns of each lane of a quad.
  static constexpr int kBlockUnits = kBlockColumns / kUnitColumns;
  static constexpr int kPieces = kBatch * kStageBlocks * kBlockUnits;  // of a stage
  static constexpr int kOwnPieces = ceil_divide(kPieces, kThreads);
  struct StageInputs {
    uint32 words[kOwnPieces][kQuad][4];
  };

 public:
  VQCC_DEVICE static void run(const Arguments& launched) {
    allow_next_kernel();
    const Panel<Tile> panel(kSets * kParts);
    WarpgroupGemm kernel(panel.of(launched), panel.panel, panel.block / kParts, panel.block % kParts);
    kernel.work();
  }

 private:
  VQCC_DEVICE WarpgroupGemm(const Arguments& arguments, int panel, int set, int part)
      : arguments_(arguments),
        counter_(panel * kSets + set),
        part_(part),
        band_(set / kSetsPerBand),
        first_row_(set / kSetsPerBand * kBandRows + set % kSetsPerBand * kRows),
        end_row_(smaller(Matrix::kRows, (set / kSetsPerBand + 1) * kBandRows)) {
    // The driver's own shared memory lies in front: what a descriptor names is aligned by hand.
    stages_ = align_shared<1024>(dynamic_shared() + kStagesOffset);
  }

  VQCC_DEVICE void work() {
    const int first = part_ * kPartRounds;
    const int end = smaller(kRounds, first + kPartRounds);
    start_books(first, 0);
    RoundCodes codes[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) load_codes(first + i, codes[i]);
    wait_for_previous_kernels();  // weights are no kernel's output: only they were asked for so far
    StageInputs inputs;
    load_inputs(first * kRoundStages, inputs);
    wait_for_copies();
    books_.finish_loading(0);
    store_inputs(inputs, 0);
    load_inputs(first * kRoundStages + 1, inputs);
    show_to_tensor_cores();
    block_barrier();
    Sums sums = {};
    Turn turn = {first, end, 0, 0};
#pragma unroll 1
    while (turn.round < end) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (i == 0 || turn.round < end) multiply_round(turn, codes[i], inputs, sums);
      }
    }
    wait_for_multiplies_but<0>();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < kBatch / 2; ++i) settle(sums.values[tile][i]);
    }
    finish(sums);
  }

  /// Where a block is: at a round of its part, and which stage of x and which books are those of now.
  struct Turn {
    int round;
    int end;
    int buffer;
    int books;
  };

  /// Multiplies a round. `codes` are its own, and then those of kAhead rounds later; `inputs` are x of the stage that comes
  /// after the next one.
  VQCC_DEVICE void multiply_round(Turn& turn, RoundCodes& codes, StageInputs& inputs, Sums& sums) {
    const int round = turn.round++;
    const RoundCodes own = codes;
    load_codes(round + kAhead, codes);
    // Of column tiles: books of the next ones arrive while these are looked up.
    const bool begins = kColumnTiles > 1 && round % kSpanRounds == 0;
    const bool ends = kColumnTiles > 1 && round % kSpanRounds == kSpanRounds - 1 && round + 1 < turn.end;
    if (begins && round + kSpanRounds < turn.end) start_books(round + kSpanRounds, 1 - turn.books);
#pragma unroll
    for (int stage = 0; stage < kRoundStages; ++stage) {
      const int next = turn.buffer == kStages - 1 ? 0 : turn.buffer + 1;
      store_inputs(inputs, next);
      load_inputs(round * kRoundStages + stage + 2, inputs);
      multiply_stage(own, stage, stages_ + turn.buffer * kStageBytes, sums);
      if (ends && stage == kRoundStages - 1) {
        wait_for_copies();
        books_.finish_loading(1 - turn.books);
      }
      show_to_tensor_cores();
      block_barrier();  // x of the next stage and other books are there, and all have begun what comes before it
      turn.buffer = next;
    }
    if (ends) {
      turn.books = 1 - turn.books;
      books_.use(turn.books);
    }
  }

  /// Starts to copy the books of a round's column tiles, or the one that there is.
  VQCC_DEVICE void start_books(int round, int buffer) const {
    const int first_tile = Tile::kQuadTiles == 1 ? 0 : round / kSpanRounds * kQuad;
    books_.start_loading(arguments_.books, buffer, [&](int tile) {
      return band_ * kColumnTiles + smaller(first_tile + tile, kColumnTiles - 1);  // past the last: any will do
    });
  }

  /// This lane's codes of a round. Past the rows, and past the last step, it loads others: sums are not stored, x is zero.
  VQCC_DEVICE void load_codes(int round, RoundCodes& codes) const {
    const int row_block = smaller(first_row_ / kBlockRows + warp_index(), kAllRowBlocks - 1);
#pragma unroll
    for (int s = 0; s < kRoundSteps; ++s) {
      const int step = smaller(round * kRoundSteps + s, kSteps - 1);  // past the last: any will do
#pragma unroll
      for (int word = 0; word < kStepWords; ++word) {
        const int place = ((step * kAllRowBlocks + row_block) * kStepWords + word) * kWarpSize + lane_index();
        to_registers(load_streaming(reinterpret_cast<const uint4*>(arguments_.codes) + place), codes.words[s][word]);
      }
    }
  }

  // ---- x -----------------------------------------------------------------------------------------------------------

  /// The row of x, the block of 64 columns and its unit that piece `piece` of a stage is of.
  VQCC_DEVICE static int row_of(int piece) { return piece % kBatch; }
  VQCC_DEVICE static int block_of(int piece) { return piece / kBatch / kBlockUnits; }
  VQCC_DEVICE static int unit_of(int piece) { return piece / kBatch % kBlockUnits; }

  /// Loads this thread's pieces of a stage: zeros past m and past the columns.
  VQCC_DEVICE void load_inputs(int stage, StageInputs& inputs) const {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      const int piece = static_cast<int>(threadIdx.x) + i * kThreads;
      const int row = row_of(piece);
      const int own = stage * kStageColumns + piece / kBatch * kUnitColumns;  // columns of a lane before it
      const bool present = piece < kPieces && row < arguments_.m;
      const Element* source = arguments_.x + row * arguments_.x_stride;
#pragma unroll
      for (int part = 0; part < kQuad; ++part) {
        // Neighbours of short spans lie together; of others each lane of the quad has its own.
        const int column = kSpanColumns < kUnitColumns
                               ? own * kQuad + part * kUnitColumns
                               : (own / kSpanColumns * kQuad + part) * kSpanColumns + own % kSpanColumns;
        uint4 loaded = {};
        if (present && column < Matrix::kColumns) {
          loaded = load<Space::kGlobal>(reinterpret_cast<const uint4*>(source + column));
        }
        to_registers(loaded, inputs.words[i][part]);
      }
    }
  }

  /// Stores them in the order of operand B: 16 bytes have pair p of each lane of the quad.
  VQCC_DEVICE void store_inputs(const StageInputs& inputs, int buffer) const {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      const int piece = static_cast<int>(threadIdx.x) + i * kThreads;
      if (kPieces % kThreads != 0 && piece >= kPieces) continue;
#pragma unroll
      for (int pair = 0; pair < kQuad; ++pair) {
        uint32 words[kQuad];
#pragma unroll
        for (int t = 0; t < kQuad; ++t) words[t] = pair_of(inputs.words[i], t, pair);
        uint8* place = stages_ + buffer * kStageBytes + block_of(piece) * kBlockBytes +
                       SwizzledRows::place(row_of(piece), unit_of(piece) * kQuad + pair);
        store(reinterpret_cast<uint4*>(place), make_uint4(words[0], words[1], words[2], words[3]));
      }
    }
  }

  /// Pair `pair` of lane t's eight columns of a unit.
  VQCC_DEVICE static uint32 pair_of(const uint32 (&words)[kQuad][4], int t, int pair) {
    if constexpr (kSpanColumns >= kUnitColumns) return words[t][pair];
    static_assert(kSpanColumns >= kUnitColumns || kSpanColumns == 4, "two spans make a unit");
    return words[pair / 2 * 2 + t / 2][t % 2 * 2 + pair % 2];
  }

  // ---- Multiplies --------------------------------------------------------------------------------------------------

  /// Decodes this lane's weights of a stage and starts to multiply them with x in `inputs`. Two operands take turns: one is
  /// decoded while the other is multiplied.
  VQCC_DEVICE void multiply_stage(const RoundCodes& codes, int stage, const uint8* inputs, Sums& sums) const {
    constexpr int kUnits = kStageBlocks * kBlockUnits;
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      const uint8* block = inputs + unit / kBlockUnits * kBlockBytes;
      const int first_vector = (stage * kUnits + unit) * (kUnitColumns / kVectorSize);
#pragma unroll
      for (int operand = 0; operand < kOperands; ++operand) {
        uint32 weights[4][kUnitColumns / 2];  // of four rows
#pragma unroll
        for (int row = 0; row < 4; ++row) {
          decode_unit(codes, row, first_vector, operand, weights[row]);
#pragma unroll
          for (int pair = 0; pair < kUnitColumns / 2; ++pair) settle(weights[row][pair]);
        }
#pragma unroll
        for (int slice = 0; slice < 2; ++slice) {
          begin_multiplies();
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const auto& upper = weights[2 * tile];
            const auto& lower = weights[2 * tile + 1];
            const uint32 a[4] = {upper[2 * slice], lower[2 * slice], upper[2 * slice + 1], lower[2 * slice + 1]};
            start_multiply<Tile::kElement, kBatch>(sums.values[tile], a, block, unit % kBlockUnits * 2 + slice);
          }
          commit_multiplies();
        }
        wait_for_multiplies_but<2>();  // those of the unit before: what they read may be written
      }
    }
  }

  /// This lane's weights of a unit of its row `row`: of one stage of residuals, or all of them added up.
  VQCC_DEVICE void decode_unit(const RoundCodes& codes, int row, int first_vector, int operand,
                               uint32 (&weights)[kUnitColumns / 2]) const {
#pragma unroll
    for (int v = 0; v < kUnitColumns / kVectorSize; ++v) {
      uint32 pairs[kPairs];
      Algorithm::template decode_pairs<Tile::kElement>(books_, 0, operand, codes.code(row, first_vector + v, operand), pairs);
      if constexpr (kAddsResiduals) {
#pragma unroll
        for (int stage = 1; stage < kResiduals; ++stage) {
          uint32 more[kPairs];
          Algorithm::template decode_pairs<Tile::kElement>(books_, 0, stage, codes.code(row, first_vector + v, stage), more);
#pragma unroll
          for (int p = 0; p < kPairs; ++p) pairs[p] = with_residual(pairs[p], more[p], stage);
        }
      }
#pragma unroll
      for (int p = 0; p < kPairs; ++p) weights[v * kPairs + p] = pairs[p];
    }
  }

  VQCC_DEVICE static uint32 with_residual(uint32 sum, uint32 residual, int stage) {
    if constexpr (!Algorithm::kStageFactors) return add_float16_pairs(sum, residual);
    const float factor = Algorithm::stage_factor(stage) / Algorithm::stage_factor(0);
    return multiply_add_float16_pairs(residual, to_float16_pair(make_float2(factor, factor)), sum);
  }

  // ---- The end -----------------------------------------------------------------------------------------------------

  /// Brings sums together in shared memory, and stores them or leaves them to the part that arrives last.
  VQCC_DEVICE void finish(const Sums& sums) const {
    block_barrier();  // books and x have been read
    float* all = reinterpret_cast<float*>(dynamic_shared());
    const int g = lane_index() / kQuad;
    const int t = lane_index() % kQuad;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < kBatch / 2; ++i) {
        const int row = warp_index() * kBlockRows + tile * 16 + g + i % 4 / 2 * 8;
        const int b = i / 4 * 8 + 2 * t + i % 2;
        all[b * kSumStride + row] = Algorithm::stage_factor(0) * sums.values[tile][i];
      }
    }
    block_barrier();
    const auto sum_of = [&](int i) { return all[i / kRows * kSumStride + i % kRows]; };
    const auto store_sum = [&](int i, float sum) {
      const int row = first_row_ + i % kRows;
      if (row < end_row_) store_output<Tile, Matrix>(arguments_, row, i / kRows, sum);
    };
    if constexpr (kParts == 1) {
      for (int i = static_cast<int>(threadIdx.x); i < kOutputs; i += kThreads) store_sum(i, sum_of(i));
    } else {
      reduce_parts<kOutputs, kThreads>(
          arrival_of(arguments_.workspace, counter_),
          part_sums<Tile::kArrivals>(arguments_.workspace) + static_cast<int64>(counter_) * kParts * kOutputs,
          reinterpret_cast<uint32*>(all + kBatch * kSumStride), part_, kParts, sum_of, store_sum);
    }
  }

  const Arguments arguments_;
  int counter_;  // of the parts of this panel's set of rows
  int part_;
  int band_;
  int first_row_;
  int end_row_;
  uint8* stages_;
  Books books_;
};

}  // namespace vqcc
