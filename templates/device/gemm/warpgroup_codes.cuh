// A lane's codes of WarpgroupGemm: on their way a round ahead, and decoded into operand A.
#pragma once

#include "stream_work.cuh"
#include "warpgroup_shape.cuh"

namespace vqcc {

/// A lane's codes of one round: a word of each of its four rows at a time.
template <class Algorithm, class Layout, class Shape>
struct RoundCodes {
  uint32 words[Shape::kRoundSteps][Layout::kStepWords][4];

  VQCC_DEVICE PackedCode code(int row, int vector, int stage) const {
    const auto& step = words[vector / Layout::kStepVectors];
    const int bit = (vector % Layout::kStepVectors * Algorithm::kResiduals + stage) * Algorithm::kCodeBits;
    const int next = smaller(bit / 32 + 1, Layout::kStepWords - 1);
    return {step[bit / 32][row], step[next][row], bit % 32, Algorithm::kCodeBits};
  }
};

/// Where a lane's codes of the next round are: those of all rounds of all pieces of a block, one after the other.
template <class Algorithm, class Layout, class Shape, class Work>
class CodeStream {
  using Codes = RoundCodes<Algorithm, Layout, Shape>;
  static constexpr int kStepPlaces = Shape::kAllRowBlocks * Layout::kStepWords * kWarpSize;  // 16 bytes of all rows in a step
  /// Whether rounds are of more steps than there are.
  static constexpr bool kPadded = Shape::kParts * Shape::kPartUnit * Shape::kRoundSteps != Shape::kSteps;

 public:
  VQCC_DEVICE CodeStream(const uint32* codes, const Work& work) : codes_(reinterpret_cast<const uint4*>(codes)) {
    take_piece(work);
  }

  /// Loads the next round's. Past the rows, and past the last step, it loads others: sums are not stored, x is zero.
  VQCC_DEVICE void load(const Work& work, Codes& codes) {
    if (end_ == 0) return;
#pragma unroll
    for (int s = 0; s < Shape::kRoundSteps; ++s) {
      const uint4* step = next_ + s * kStepPlaces;
      if (kPadded && round_ * Shape::kRoundSteps + s >= Shape::kSteps) step = codes_ + lane_index();
#pragma unroll
      for (int word = 0; word < Layout::kStepWords; ++word) {
        to_registers(load_words(step + word * kWarpSize), codes.words[s][word]);
      }
    }
    next_ += Shape::kRoundSteps * kStepPlaces;
    if (++round_ == end_) take_piece(work);
  }

  /// Has what `load` takes first brought near.
  VQCC_DEVICE void prefetch() const {
    for (int s = 0; s < smaller(Shape::kRoundSteps, Shape::kSteps - round_ * Shape::kRoundSteps); ++s) {
      for (int word = 0; word < Layout::kStepWords; ++word) prefetch_line(next_ + s * kStepPlaces + word * kWarpSize);
    }
  }

 private:
  /// Codes of a group of panels are read by so many blocks, and stay in the caches until then; those of one are read once.
  VQCC_DEVICE static uint4 load_words(const uint4* place) {
    return Shape::kPanelGroup > 1 ? vqcc::load<Space::kGlobal>(place) : load_streaming(place);
  }

  VQCC_DEVICE void take_piece(const Work& work) {
    WorkPiece piece = {};
    const bool found = work.find(++number_, piece);
    round_ = piece.first_unit * Shape::kPartUnit;
    end_ = found ? piece.end_unit * Shape::kPartUnit : 0;
    next_ = codes_ + round_ * Shape::kRoundSteps * kStepPlaces +
            Shape::row_block(piece.set) * Layout::kStepWords * kWarpSize + lane_index();
  }

  const uint4* codes_;
  const uint4* next_;
  int number_ = -1;  // of the piece
  int round_;
  int end_;  // 0: there are no more
};

/// A lane's weights of a unit, operand A of four multiplies: of its four rows, pairs of eight columns.
template <ElementType kType, class Shape>
struct OperandWeights {
  static constexpr int kPairs = Shape::kUnitColumns / 2;
  uint32 pairs[4][kPairs];

  /// Decodes operand `i` of a round: a unit's weights, of one stage of residuals where these are multiplied apart, or of all
  /// added up.
  template <class Algorithm, class Books, class Codes>
  VQCC_DEVICE void decode(const Books& books, const Codes& codes, int i) {
    constexpr int kVectors = Shape::kUnitColumns / Algorithm::kVectorSize;
    constexpr int kVectorPairs = Algorithm::kVectorSize / 2;
#pragma unroll
    for (int row = 0; row < 4; ++row) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int vector = i / Shape::kOperands * kVectors + v;
        uint32 own[kVectorPairs];
        decode_vector<Algorithm>(books, codes, row, vector, i % Shape::kOperands, own);
#pragma unroll
        for (int p = 0; p < kVectorPairs; ++p) pairs[row][v * kVectorPairs + p] = own[p];
      }
    }
  }

 private:
  template <class Algorithm, class Books, class Codes, int kVectorPairs>
  VQCC_DEVICE static void decode_vector(const Books& books, const Codes& codes, int row, int vector, int operand,
                                        uint32 (&sums)[kVectorPairs]) {
    Algorithm::template decode_pairs<kType>(books, 0, operand, codes.code(row, vector, operand), sums);
    if constexpr (Shape::kAddsResiduals) {
#pragma unroll
      for (int stage = 1; stage < Algorithm::kResiduals; ++stage) {
        uint32 more[kVectorPairs];
        Algorithm::template decode_pairs<kType>(books, 0, stage, codes.code(row, vector, stage), more);
#pragma unroll
        for (int p = 0; p < kVectorPairs; ++p) sums[p] = with_residual<Algorithm>(sums[p], more[p], stage);
      }
    }
  }

  template <class Algorithm>
  VQCC_DEVICE static uint32 with_residual(uint32 sum, uint32 residual, int stage) {
    if constexpr (!Algorithm::kStageFactors) return add_float16_pairs(sum, residual);
    const float factor = Algorithm::stage_factor(stage) / Algorithm::stage_factor(0);
    return multiply_add_float16_pairs(residual, to_float16_pair(make_float2(factor, factor)), sum);
  }
};

}  // namespace vqcc
