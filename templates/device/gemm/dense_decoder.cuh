// The warps of DenseGemm that decode.
#pragma once

#include "dense_books.cuh"
#include "dense_work.cuh"

namespace vqcc {

/// Decodes units of pieces of W, in the order in which all blocks take them, into the images that other blocks multiply.
///
/// Lane 4 g + t of a warp has rows g, g + 8, g + 16 and g + 24 of 32, as codes are packed in fragments (FragmentLayout), and
/// writes its columns of them where SwizzledRows has them: eight neighbouring ones at a time, or four of short spans.
template <class Algorithm, class Matrix, class Layout, class Tile>
class DenseDecoder {
  using Work = DenseWork<Algorithm, Matrix, Layout, Tile>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kWarps = Tile::kDecodingWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  using Books = DenseBooks<Algorithm, Tile, kThreads>;
  static constexpr int kBlockRows = 32;
  static constexpr int kLaneRows = 4;
  static constexpr int kBlocks = Work::kPieceRows / kBlockRows;  // of rows
  static constexpr int kAllBlocks = ceil_divide(Matrix::kRows, 2 * kBlockRows) * 2;  // as packed: an even number
  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;
  static constexpr int kStepWords = Layout::kStepWords;
  static constexpr int kStepColumns = Work::kStepColumns;
  static constexpr int kSpanColumns = Work::kSpanColumns;

  /// What is written at once, and what is decoded before it is: whole vectors.
  static constexpr int kStoreColumns = kSpanColumns % 8 == 0 ? 8 : 4;
  static constexpr int kRunColumns = kVectorSize > kStoreColumns ? kVectorSize : kStoreColumns;
  static_assert(kSpanColumns % kRunColumns == 0 && kStepColumns % kRunColumns == 0, "runs end with spans and steps");
  /// Whether steps write columns past the matrix, which are zeros, and past its images, which are left out.
  static constexpr bool kCut = Work::kSteps * kStepColumns * Work::kQuad != Matrix::kColumns;

  /// Warps take a unit's steps of 32 rows in turn; codes of kAhead turns are on their way.
  static constexpr int kAhead = kStepWords > 2 ? 1 : 2;
  static constexpr int kUnitBlocks = Work::kUnitSteps * kBlocks;

  /// Entries that are numbers of x's type go where they are needed as they are; their factor is the tile's of y.
  static constexpr bool kRounds = Tile::kRounds;

  struct StepCodes {
    uint32 words[kStepWords][kLaneRows];

    VQCC_DEVICE PackedCode code(int row, int vector, int stage) const {
      const int bit = (vector * Algorithm::kResiduals + stage) * Algorithm::kCodeBits;
      const int next = smaller(bit / 32 + 1, kStepWords - 1);
      return {words[bit / 32][row], words[next][row], bit % 32, Algorithm::kCodeBits};
    }
  };

 public:
  static constexpr int kBookBytes = Books::kBytes;

  /// What sums of x times decoded weights are still to be multiplied with.
  VQCC_DEVICE static float factor() { return kRounds ? 1.0f : Algorithm::stage_factor(0); }

  /// For warp `warp` of those that decode; `shared_unit` is a word of shared memory for the unit at hand, `barrier` a name
  /// for group_barrier.
  VQCC_DEVICE DenseDecoder(const Arguments& arguments, int warp, uint8* shared_books, uint32* shared_unit, int barrier)
      : arguments_(arguments),
        warp_(warp),
        books_(arguments.books, arguments.stage_scales, shared_books),
        shared_unit_(shared_unit),
        barrier_(barrier) {}

  /// Decodes until there are no more units. The kThreads threads of all decoding warps call it.
  VQCC_DEVICE void run() {
    const auto counters = Work::counters(arguments_.workspace);
    const bool leads = warp_ == 0 && lane_index() == 0;
    uint32 next = 0;
    if (leads) next = take_number(counters.next_unit());
    int held = -1;  // the books
#pragma unroll 1
    for (;;) {
      if (leads) {
        if (next < Work::kUnits) wait_for_room(counters, static_cast<int>(next) / Work::kPieceUnits);
        *shared_unit_ = next;
      }
      group_barrier<kThreads>(barrier_);
      const int unit = static_cast<int>(*shared_unit_);
      if (unit >= Work::kUnits) return;
      if (leads) next = take_number(counters.next_unit());  // on its way meanwhile
      const int piece = unit / Work::kPieceUnits;
      const int first_step = unit % Work::kPieceUnits * Work::kUnitSteps;
      const int books = Work::band_of(piece) * Work::kColumnTiles +
                        (Tile::kQuadTiles == 1 ? 0 : first_step * kStepColumns / kSpanColumns * Work::kQuad);
      if (books != held) {
        held = books;
        const int last = (Work::band_of(piece) + 1) * Work::kColumnTiles - 1;
        // Past the last: any will do.
        books_.use(warp_ * kWarpSize + lane_index(), [&](int tile) { return smaller(books + tile, last); });
        group_barrier<kThreads>(barrier_);
      }
      decode_unit(piece, first_step);
      show_to_copies();
      group_barrier<kThreads>(barrier_);
      if (leads) tell_arrivals(counters.decoded(piece), 1u);
    }
  }

 private:
  /// Waits until nobody reads the piece that had this one's place before.
  VQCC_DEVICE void wait_for_room(const typename Work::Counters& counters, int piece) const {
    if (piece < Work::kRing) return;
    wait_for_arrivals(counters.multiplied(piece - Work::kRing), static_cast<uint32>(Work::panels_of(arguments_.m)));
    show_to_copies();
  }

  VQCC_DEVICE void decode_unit(int piece, int first_step) const {
    uint8* images = Work::place_of(arguments_.workspace, piece);
    StepCodes ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) load_codes(piece, first_step, warp_ + i * kWarps, ahead[i]);
#pragma unroll 1
    for (int first = warp_; first < kUnitBlocks; first += kAhead * kWarps) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int turn = first + i * kWarps;
        const StepCodes codes = ahead[i];
        load_codes(piece, first_step, turn + kAhead * kWarps, ahead[i]);
        if (i > 0 && turn >= kUnitBlocks) break;
        const int row = turn % kBlocks * kBlockRows + lane_index() / Work::kQuad;
        decode_step(codes, images, row, Work::first_row_of(piece) + row, first_step + turn / kBlocks);
      }
    }
  }

  /// A turn's codes. Past the rows and past the last step it loads others: sums of those are not stored, and columns of these
  /// are zero.
  VQCC_DEVICE void load_codes(int piece, int first_step, int turn, StepCodes& codes) const {
    const int step = smaller(first_step + turn / kBlocks, Work::kPackedSteps - 1);
    const int block = smaller(Work::first_row_of(piece) / kBlockRows + turn % kBlocks, kAllBlocks - 1);
#pragma unroll
    for (int word = 0; word < kStepWords; ++word) {
      const int place = ((step * kAllBlocks + block) * kStepWords + word) * kWarpSize + lane_index();
      to_registers(load_streaming(reinterpret_cast<const uint4*>(arguments_.codes) + place), codes.words[word]);
    }
  }

  /// Decodes a step of this lane's four rows: `row` is the first one of the piece's, `matrix_row` of W's.
  VQCC_DEVICE void decode_step(const StepCodes& codes, uint8* images, int row, int matrix_row, int step) const {
#pragma unroll
    for (int run = 0; run < kStepColumns / kRunColumns; ++run) {
      const int column = column_of(step, run * kRunColumns);
      if (kCut && column >= Work::kPaddedColumns) continue;
      uint8* place = images + place_of(row, column);
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) {
        uint32 pairs[kRunColumns / 2];
        decode_run(codes, i, run, matrix_row + 8 * i, column, pairs);
        store_run(place + 8 * i * SwizzledRows::kRowBytes, column, pairs);
      }
    }
  }

  /// The column of W that is number `own` of a step of this lane.
  VQCC_DEVICE static int column_of(int step, int own) {
    const int t = lane_index() % Work::kQuad;
    if constexpr (kSpanColumns <= kStepColumns) {
      return (step * kStepColumns + own / kSpanColumns * kSpanColumns) * Work::kQuad + t * kSpanColumns + own % kSpanColumns;
    } else {
      const int first = step * kStepColumns;
      return (first / kSpanColumns * Work::kQuad + t) * kSpanColumns + first % kSpanColumns + own;
    }
  }

  VQCC_DEVICE static int place_of(int row, int column) {
    const int own = column % Work::kStageColumns;
    return column / Work::kStageColumns * Work::kImageBytes + SwizzledRows::place(row, own / 8) + own % 8 * 2;
  }

  VQCC_DEVICE void decode_run(const StepCodes& codes, int row, int run, int matrix_row, int column,
                              uint32 (&pairs)[kRunColumns / 2]) const {
    if (kCut && column >= Matrix::kColumns) {
#pragma unroll
      for (int p = 0; p < kRunColumns / 2; ++p) pairs[p] = 0u;
      return;
    }
#pragma unroll
    for (int v = 0; v < kRunColumns / kVectorSize; ++v) {
      uint32 own[kPairs];
      decode_vector(codes, row, run * (kRunColumns / kVectorSize) + v, matrix_row, column + v * kVectorSize, own);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) pairs[v * kPairs + p] = own[p];
    }
  }

  VQCC_DEVICE void decode_vector(const StepCodes& codes, int row, int vector, int matrix_row, int column,
                                 uint32 (&pairs)[kPairs]) const {
    if constexpr (!kRounds) {
      Algorithm::template decode_pairs<Tile::kElement>(books_, 0, 0, codes.code(row, vector, 0), pairs);
    } else {
      // Stages and a group's scale in fp32, rounded once.
      uint32 stages[Algorithm::kResiduals];
#pragma unroll
      for (int stage = 0; stage < Algorithm::kResiduals; ++stage) stages[stage] = codes.code(row, vector, stage).value();
      float weights[kVectorSize];
      Algorithm::decode(books_, 0, stages, weights);
      const float scale = group_scale<Matrix>(arguments_.scales, smaller(matrix_row, Matrix::kRows - 1), column);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        pairs[p] = round_pair<Tile::kElement>(make_float2(scale * weights[2 * p], scale * weights[2 * p + 1]));
      }
    }
  }

  /// Stores a run of one row, whose pieces of 16 bytes are turned by the row.
  VQCC_DEVICE static void store_run(uint8* place, int column, const uint32 (&pairs)[kRunColumns / 2]) {
    if constexpr (kStoreColumns == 4) {
      store(reinterpret_cast<uint2*>(place), make_uint2(pairs[0], pairs[1]));
    } else {
      store(reinterpret_cast<uint4*>(place), make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
      if constexpr (kRunColumns == 16) {
        // The second piece of an even one: its place differs in the lowest bit, whichever way the row turns it.
        const bool even = (lane_index() / Work::kQuad & 1) == 0;
        uint8* other = place + (even ? SwizzledRows::kPieceBytes : -SwizzledRows::kPieceBytes);
        store(reinterpret_cast<uint4*>(other), make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]));
      }
    }
  }

  const Arguments arguments_;
  int warp_;
  Books books_;
  uint32* shared_unit_;
  int barrier_;
};

}  // namespace vqcc
