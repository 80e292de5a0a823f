// gemv by decoding codes that are packed in the order in which tensor cores take what they stand for.
#pragma once

#include "../book_copies.cuh"
#include "fragments.cuh"
#include "outputs.cuh"

namespace vqcc {

/// y[m, n] = sum over k of x[m, k] W[n, k] (+ bias[n]), W decoded straight into an operand of m16n8k16 multiplies.
///
/// Lane 4 g + t decodes for row g of each group of eight rows of W, and its vectors are those of the t-th run of
/// kSpanColumns columns in every four. A warp has kRowBlocks blocks of 32 rows and keeps their sums in registers. The work
/// is dealt out in visits: kVisitSteps steps along k for the rows of a block, with x and books copied to shared memory
/// while the visit before goes on. Blocks take consecutive visits, those along k first; the blocks that share rows are
/// added up in the order of k.
template <class Algorithm, class Matrix, class Layout, class Tile>
class FragmentGemv {
  static constexpr int kWarpsAlongRow = Tile::kWarpsAlongRow;
  static constexpr int kWarps = Tile::kWarpsAcrossRows * kWarpsAlongRow;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kBatch = Tile::kBatch;
  using Books = BookCopies<Algorithm, Tile, kThreads>;
  using Inputs = typename InputsOf<Tile::kElement, Tile::kInputRows>::Type;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;  // registers of a decoded vector
  static constexpr int kQuad = 4;                 // lanes that share a row
  static constexpr int kGroupRows = 8;
  static constexpr int kRowBlockRows = 32;
  static constexpr int kBlockGroups = kRowBlockRows / kGroupRows;
  static constexpr int kRowBlocks = Tile::kRowBlocks;  // of a warp
  static constexpr int kGroups = kRowBlocks * kBlockGroups;
  static constexpr int kAllRowBlocks = ceil_divide(Matrix::kRows, 2 * kRowBlockRows) * 2;  // as packed: an even number
  static_assert(kRowBlocks == 1 || kRowBlocks == 2, "a warp's blocks of rows are all there, or none is");

  /// A step is what one word after the other of each row holds: kStepVectors vectors of each lane of a quad.
  static constexpr int kStepVectors = Layout::kStepVectors;
  static constexpr int kStepWords = Layout::kStepWords;
  static constexpr int kStepColumns = kStepVectors * kVectorSize;  // of a lane
  static constexpr int kSpanColumns = Layout::kSpanVectors * kVectorSize;
  static constexpr int kLaneColumns = ceil_divide(Matrix::kColumns, kQuad * kSpanColumns) * kSpanColumns;
  static constexpr int kSteps = ceil_divide(kLaneColumns, kStepColumns);
  static constexpr int kFragments = kStepColumns / Inputs::kLaneColumns;  // of x in a step
  /// What is decoded before it is multiplied: a fragment's vectors, or a vector that several fragments take.
  static constexpr int kUnitColumns = kVectorSize > Inputs::kLaneColumns ? kVectorSize : Inputs::kLaneColumns;
  static constexpr int kUnitVectors = kUnitColumns / kVectorSize;
  static constexpr int kUnitFragments = kUnitColumns / Inputs::kLaneColumns;
  static constexpr int kUnits = kStepColumns / kUnitColumns;
  static_assert(kPairs >= 1 && 16 % kVectorSize == 0, "fragments are made of whole vectors");
  static_assert(kStepColumns % 8 == 0 && kStepColumns % kVectorSize == 0, "a step is a whole number of either operand");

  /// Visits, and the steps of one that a warp takes; kAhead steps of codes are on their way.
  static constexpr int kVisitSteps = Tile::kVisitSteps;
  static constexpr int kVisits = ceil_divide(kSteps, kVisitSteps);  // of a set of rows
  static constexpr int kTurns = kVisitSteps / kWarpsAlongRow;
  static constexpr int kAhead = Tile::kAhead;
  static_assert(kVisitSteps % kWarpsAlongRow == 0 && kTurns % kAhead == 0, "warps take turns, codes take places");

  /// Rows of a block; no set of them crosses from one band of codebook tiles to the next.
  static constexpr int kRowsPerBlock = kRowBlockRows * kRowBlocks * Tile::kWarpsAcrossRows;
  static constexpr int kBandRows = smaller(Matrix::kTileRows, Matrix::kRows);
  static constexpr int kSetsPerBand = ceil_divide(kBandRows, kRowsPerBlock);
  static constexpr int kBands = ceil_divide(Matrix::kRows, kBandRows);
  static constexpr int kColumnTiles = ceil_divide(Matrix::kColumns, Matrix::kTileColumns);
  static constexpr int kAllVisits = kBands * kSetsPerBand * kVisits;
  static constexpr int kBlocks = Tile::kBlocks;
  static_assert(kBlocks <= kAllVisits, "every block has a visit");
  static_assert(PanelsOf<Tile>::kPanels == 1 || Tile::kMaxParts == 1, "blocks of several panels share no outputs");
  static_assert(kBands == 1 || kBandRows % kRowBlockRows == 0, "a block of rows has one band's books");
  static_assert(Tile::kQuadTiles == (kColumnTiles > 1 ? kQuad : 1), "each lane of a quad has its own column tile");
  static_assert(kVisitSteps * kStepColumns % kSpanColumns == 0, "a visit's columns are neighbours");
  static_assert(kColumnTiles == 1 || (kSpanColumns == Matrix::kTileColumns && kVisitSteps * kStepColumns == kSpanColumns),
                "a visit's lanes have one book each");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "group scales are applied to decoded weights in fp32");

  /// Shared memory: books, x of two visits, sums of warps, and a word for blocks that share rows.
  static constexpr int kInputBytes = kVisitSteps * kFragments * Inputs::kBytes;
  static constexpr int kInputsOffset = Books::kBytes;
  static constexpr int kSumsOffset = kInputsOffset + Tile::kInputBuffers * kInputBytes;
  static constexpr int kOutputs = kRowsPerBlock * kBatch;  // of a set of rows
  /// Sums of a warp lie in shared memory by rows of x, so far from one another that lanes of different rows of x meet
  /// different banks.
  static constexpr int kSumStride = kRowsPerBlock + (kBatch > 1 ? Tile::kSumPadding : 0);
  static constexpr int kWarpSums = kSumStride * kBatch;
  static constexpr int kFlagOffset = kSumsOffset + kWarpsAlongRow * kWarpSums * 4;
  static_assert(kFlagOffset + 16 <= Tile::kOwnSharedBytes, "the plan has room for books, x and sums");

  /// Stages with factors of their own are summed apart.
  static constexpr int kStageSums = Algorithm::kStageFactors ? Algorithm::kResiduals : 1;
  struct Sums {
    float values[kStageSums][kGroups][Inputs::kTiles][4];
  };

  /// A lane's codes of one step: a word of each of its rows at a time.
  struct StepCodes {
    uint32 words[kRowBlocks][kStepWords][kBlockGroups];

    VQCC_DEVICE PackedCode code(int group, int vector, int stage) const {
      const int bit = (vector * Algorithm::kResiduals + stage) * Algorithm::kCodeBits;
      const auto& own = words[group / kBlockGroups];
      const int next = smaller(bit / 32 + 1, kStepWords - 1);
      return {own[bit / 32][group % kBlockGroups], own[next][group % kBlockGroups], bit % 32, Algorithm::kCodeBits};
    }
  };

  /// Which rows a block works on, and which steps along them.
  struct Visit {
    int set;         // of rows
    int first_row;   // of the block
    int end_row;     // of the band, or of the matrix
    int band;
    int first_step;
  };

 public:
  VQCC_DEVICE static void run(const Arguments& launched) {
    allow_next_kernel();
    uint8* shared = dynamic_shared();
    Books books;
    const Panel<Tile> panel(kBlocks);
    const Arguments arguments = panel.of(launched);
    const int first = first_visit_of(panel.block);
    const int end = first_visit_of(panel.block + 1);

    Visit visit = locate(first);
    start_books(arguments, books, visit, 0);
    wait_for_previous_kernels();  // weights are no kernel's output: only books were asked for so far
    start_inputs(arguments, visit, shared + kInputsOffset);  // before codes, that x does not wait for those
    CodeSource source = source_of(arguments, visit);
    StepCodes ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) load_codes(source, i, ahead[i]);
    wait_for_copies();
    books.finish_loading(0);
    Sums sums = {};
    int books_at = 0;  // buffer
#pragma unroll 1
    for (int number = first;; ++number) {
      const bool last = number + 1 == end;
      const int buffer = (number - first) % 2;
      block_barrier();  // this visit's x and books are there, the last one's have been read
      const Visit next = locate(last ? number : number + 1);
      // Column tiles have books of their own, and so have bands of rows.
      const bool other_books = Tile::kBookBuffers > 1 && (kColumnTiles > 1 || next.band != visit.band);
      if (!last) {
        start_inputs(arguments, next, shared + kInputsOffset + (1 - buffer) * kInputBytes);
        if (other_books) start_books(arguments, books, next, 1 - books_at);
      }
      books.use(books_at);
      multiply_visit(arguments, books, shared + kInputsOffset + buffer * kInputBytes, next, !last, source, ahead, sums);
      if (last || next.set != visit.set) {
        finish(arguments, visit, shared, sums);
        if (last) return;
        sums = {};
      }
      wait_for_copies();
      if (other_books) {
        books_at = 1 - books_at;
        books.finish_loading(books_at);
      }
      visit = next;
    }
  }

 private:
  /// Visits are dealt out in order: to each block as many as to the others, or one more to the first ones.
  VQCC_DEVICE static int first_visit_of(int block) {
    constexpr int kMore = kAllVisits % kBlocks;
    return kAllVisits / kBlocks * block + smaller(block, kMore);
  }

  /// The block that has a visit.
  VQCC_DEVICE static int block_of(int visit) {
    constexpr int kFew = kAllVisits / kBlocks;
    constexpr int kMore = kAllVisits % kBlocks;
    return visit < kMore * (kFew + 1) ? visit / (kFew + 1) : kMore + (visit - kMore * (kFew + 1)) / kFew;
  }

  VQCC_DEVICE static Visit locate(int number) {
    Visit visit;
    visit.set = number / kVisits;
    visit.band = visit.set / kSetsPerBand;
    visit.first_row = visit.band * kBandRows + visit.set % kSetsPerBand * kRowsPerBlock;
    visit.end_row = smaller(Matrix::kRows, (visit.band + 1) * kBandRows);
    visit.first_step = number % kVisits * kVisitSteps;
    return visit;
  }

  /// Starts to copy the books of a visit.
  VQCC_DEVICE static void start_books(const Arguments& arguments, const Books& books, const Visit& visit, int buffer) {
    const int first_tile = Tile::kQuadTiles == 1 ? 0 : visit.first_step / kVisitSteps * kQuad;
    books.start_loading(arguments.books, buffer, [&](int tile) {
      return visit.band * kColumnTiles + smaller(first_tile + tile, kColumnTiles - 1);  // past the last: any will do
    });
  }

  /// Starts to copy x for a visit's columns, pair by pair: zeros past m and past the columns.
  VQCC_DEVICE static void start_inputs(const Arguments& arguments, const Visit& visit, uint8* inputs) {
    constexpr int kRows = Tile::kInputRows;
    constexpr int kVisitPairs = kVisitSteps * kStepColumns * kQuad / 2;  // of a row
    // Where the block has threads for several rows at a time, a power of two of them: their places are then linear.
    constexpr int kRowStep = smaller(kRows, power_of_two_at_most(kThreads / kVisitPairs));
    const int first_row = kRowStep == 1 ? 0 : static_cast<int>(threadIdx.x) / kVisitPairs;
    const int thread = static_cast<int>(threadIdx.x);
    const int first_pair = kThreads <= kVisitPairs ? thread : thread % kVisitPairs;
    if (kThreads > kVisitPairs && static_cast<int>(threadIdx.x) >= kRowStep * kVisitPairs) return;
    for (int pair = first_pair; pair < kVisitPairs; pair += kThreads) {
      const int column = visit.first_step * kStepColumns * kQuad + 2 * pair;
      const int t = 2 * pair / kSpanColumns % kQuad;
      const int own = 2 * pair / (kQuad * kSpanColumns) * kSpanColumns + 2 * pair % kSpanColumns;
      const int fragment = own / Inputs::kLaneColumns;
      const int fragment_pair = own % Inputs::kLaneColumns / 2;
      const Element* source = arguments.x + first_row * arguments.x_stride + column;
#pragma unroll
      for (int row = 0; row < kRows; row += kRowStep) {
        const int place = kRowStep == 1
                              ? Inputs::place(fragment, row, t, fragment_pair)
                              : Inputs::place(fragment, first_row, t, fragment_pair) + Inputs::place(0, row, 0, 0);
        start_copy<4>(inputs + place, source, first_row + row < arguments.m && column < Matrix::kColumns);
        source += kRowStep * arguments.x_stride;
      }
    }
  }

  VQCC_DEVICE static int row_block_of_warp() { return warp_index() / kWarpsAlongRow * kRowBlocks; }

  /// Where this lane's codes of a visit's first turn are, and how many steps lie from there to the last. Past that step,
  /// and past the rows, it loads others: x is zero there, and sums are not stored.
  struct CodeSource {
    const uint4* words;
    int steps;
  };
  static constexpr int kStepLoads = kAllRowBlocks * kStepWords * kWarpSize;

  VQCC_DEVICE static CodeSource source_of(const Arguments& arguments, const Visit& visit) {
    const int step = visit.first_step + warp_index() % kWarpsAlongRow;
    const int row_block = smaller(visit.first_row / kRowBlockRows + row_block_of_warp(), kAllRowBlocks - kRowBlocks);
    const int place = step * kStepLoads + row_block * kStepWords * kWarpSize + lane_index();
    return {reinterpret_cast<const uint4*>(arguments.codes) + place, kSteps - 1 - step};
  }

  VQCC_DEVICE static void load_codes(const CodeSource& source, int turn, StepCodes& codes) {
    int steps = turn * kWarpsAlongRow;
    if constexpr (kSteps % kVisitSteps != 0) steps = smaller(steps, source.steps);
#pragma unroll
    for (int block = 0; block < kRowBlocks; ++block) {
#pragma unroll
      for (int word = 0; word < kStepWords; ++word) {
        const int place = steps * kStepLoads + (block * kStepWords + word) * kWarpSize;
        to_registers(load_streaming(source.words + place), codes.words[block][word]);
      }
    }
  }

  /// Adds the products of this warp's steps of a visit to `sums`, and loads codes `kAhead` steps ahead: at last those of
  /// `next`, if there is `more`, and `source` then is the next visit's.
  VQCC_DEVICE static void multiply_visit(const Arguments& arguments, const Books& books, const uint8* inputs,
                                         const Visit& next, bool more, CodeSource& source,
                                         StepCodes (&ahead)[kAhead], Sums& sums) {
#pragma unroll 1
    for (int turn = 0; turn < kTurns; turn += kAhead) {
      const bool within = turn + kAhead < kTurns;
      if (!within) source = source_of(arguments, next);
      const int first_ahead = within ? turn + kAhead : 0;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const StepCodes codes = ahead[i];
        if (within || more) load_codes(source, first_ahead + i, ahead[i]);
        const int step = (turn + i) * kWarpsAlongRow + warp_index() % kWarpsAlongRow;
        multiply_step(books, inputs, step * kFragments, codes, sums);
      }
    }
  }

  VQCC_DEVICE static void multiply_step(const Books& books, const uint8* inputs, int first_fragment,
                                        const StepCodes& codes, Sums& sums) {
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      typename Inputs::Fragment x[kUnitFragments];
#pragma unroll
      for (int f = 0; f < kUnitFragments; ++f) {
        x[f] = Inputs::load_fragment(inputs, first_fragment + unit * kUnitFragments + f);
      }
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
#pragma unroll
        for (int stage = 0; stage < Algorithm::kResiduals; ++stage) {
          uint32 weights[kUnitFragments][Inputs::kLaneColumns / 2];
          decode_unit(books, codes, group, unit, stage, weights);
#pragma unroll
          for (int f = 0; f < kUnitFragments; ++f) {
            Inputs::multiply(sums.values[kStageSums == 1 ? 0 : stage][group], x[f], weights[f]);
          }
        }
      }
    }
  }

  /// One stage of this lane's weights of a unit, for its row of a group.
  VQCC_DEVICE static void decode_unit(const Books& books, const StepCodes& codes, int group, int unit, int stage,
                                      uint32 (&weights)[kUnitFragments][Inputs::kLaneColumns / 2]) {
#pragma unroll
    for (int v = 0; v < kUnitVectors; ++v) {
      uint32 pairs[kPairs];
      Algorithm::template decode_pairs<Tile::kElement>(books, 0, stage, codes.code(group, unit * kUnitVectors + v, stage),
                                                       pairs);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const int place = v * kPairs + p;
        weights[place / (Inputs::kLaneColumns / 2)][place % (Inputs::kLaneColumns / 2)] = pairs[p];
      }
    }
  }

  /// Adds up the sums of the warps that share rows, and stores them or leaves them to the block that arrives last.
  VQCC_DEVICE static void finish(const Arguments& arguments, const Visit& visit, uint8* shared, const Sums& sums) {
    float* warp_sums = reinterpret_cast<float*>(shared + kSumsOffset);
    store_sums(sums, warp_sums + warp_index() % kWarpsAlongRow * kWarpSums + row_block_of_warp() * kRowBlockRows);
    block_barrier();
    const auto own_sum = [&](int i) {
      const float* own = warp_sums + i / kRowsPerBlock * kSumStride + i % kRowsPerBlock;
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarpsAlongRow; ++w) sum += own[w * kWarpSums];
      return sum;
    };
    const auto store = [&](int i, float sum) {
      const int row = visit.first_row + i % kRowsPerBlock;
      if (row < visit.end_row) store_output<Tile, Matrix>(arguments, row, i / kRowsPerBlock, sum);
    };
    const int first_block = block_of(visit.set * kVisits);
    const int parts = block_of(visit.set * kVisits + kVisits - 1) - first_block + 1;
    if (Tile::kMaxParts == 1 || parts == 1) {
      for (int i = static_cast<int>(threadIdx.x); i < kOutputs; i += kThreads) store(i, own_sum(i));
    } else {
      uint32* flag = reinterpret_cast<uint32*>(shared + kFlagOffset);
      reduce_parts<kOutputs, kThreads>(
          arrival_of(arguments.workspace, visit.set),
          part_sums<Tile::kArrivals>(arguments.workspace) + static_cast<int64>(visit.set) * Tile::kMaxParts * kOutputs,
          flag, Panel<Tile>(kBlocks).block - first_block, parts, own_sum, store);
    }
  }

  /// Leaves this lane's sums in shared memory: those of x's row b and the warp's row r at [b * kSumStride + r].
  VQCC_DEVICE static void store_sums(const Sums& sums, float* target) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      float whole[Inputs::kTiles][4];
#pragma unroll
      for (int tile = 0; tile < Inputs::kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          whole[tile][i] = Algorithm::stage_factor(0) * sums.values[0][group][tile][i];
#pragma unroll
          for (int stage = 1; stage < kStageSums; ++stage) {
            whole[tile][i] =
                fused_multiply_add(Algorithm::stage_factor(stage), sums.values[stage][group][tile][i], whole[tile][i]);
          }
        }
      }
      Inputs::take_sums(whole, [&](int row, int b, float sum) {
        if (b < kBatch) target[b * kSumStride + group * kGroupRows + row] = sum;
      });
    }
  }
};

}  // namespace vqcc
