// From a warpgroup's sums to y, where its rows are neighbours: what DenseGemm does last.
#pragma once

#include "dense_work.cuh"

namespace vqcc {

/// Stores a warp's sums of 16 rows of x times kColumns rows of W, as multiplies of a warpgroup leave them: scaled, biased,
/// rounded; eight neighbours of a row at a time where y is aligned to that and all are stored, else two, or each by itself.
///
/// What sums are multiplied with and what is added, the terms of each row of W, lie in shared memory then: kThreads threads
/// that store together have loaded them, long before sums are there.
template <class Matrix, class Tile, int kColumns, int kThreads>
class DenseOutputs {
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kQuad = 4;
  static constexpr int kGroupColumns = 8;  // two of each lane of a quad
  static constexpr int kTurnColumns = kQuad * kGroupColumns;
  static constexpr int kTurns = kColumns / kTurnColumns;
  static constexpr int kOwnTerms = kColumns / kThreads;  // of a thread
  static_assert(kOwnTerms * kThreads == kColumns, "threads have terms of as many rows each");
  static constexpr bool kRowScales = Matrix::kScaleMode == ScaleMode::kTensor || Matrix::kScaleMode == ScaleMode::kRow;
  using Bias = Elements<Tile::kElement, 1, ElementTraits<Tile::kElement>::kBytes>;

 public:
  static constexpr int kTermBytes = kColumns * static_cast<int>(sizeof(float2));

  /// A thread's terms on their way from global to shared memory: of rows of W that lie kThreads apart.
  struct OwnTerms {
    float scales[kOwnTerms];
    Bias biases[kOwnTerms];

    /// Starts to load terms of row `row` and those that follow.
    VQCC_DEVICE void load(const Arguments& arguments, int row) {
#pragma unroll
      for (int i = 0; i < kOwnTerms; ++i) {
        const int own = smaller(row + i * kThreads, Matrix::kRows - 1);  // past the last: not stored
        scales[i] = row_scale<Matrix>(arguments.scales, own);
        biases[i] = {};
        if (arguments.bias != nullptr) biases[i] = Bias::template load_from<Space::kGlobal>(arguments.bias + own);
      }
    }

    /// Here at the latest they are there: compilers then do not load them where they are needed, and wait.
    VQCC_DEVICE void hold() {
#pragma unroll
      for (int i = 0; i < kOwnTerms; ++i) {
        if (kRowScales) settle(scales[i]);
        settle(biases[i].registers[0]);
      }
    }

    /// Stores them where the first one's place is `place`.
    VQCC_DEVICE void put(float2* place, float factor) const {
#pragma unroll
      for (int i = 0; i < kOwnTerms; ++i) {
        float bias[1];
        biases[i].to_float(bias);
        store(place + i * kThreads, make_float2(factor * scales[i], bias[0]));
      }
    }
  };

  /// `terms` are those of the first row of W on.
  VQCC_DEVICE DenseOutputs(const Arguments& arguments, const float2* terms) : arguments_(arguments), terms_(terms) {}

  /// Sums are of rows `first_input` on of x and `first_row` to `end_row` - 1 of W.
  VQCC_DEVICE void store_sums(int first_input, int first_row, int end_row, const float (&sums)[kColumns / 2]) const {
    // Of all rows: first rows of W are multiples of 32.
    const auto alignment = static_cast<uint32>(reinterpret_cast<unsigned long long>(arguments_.y) | 2 * arguments_.y_stride);
    const int t = lane_index() % kQuad;
    if (alignment % 16 == 0 && end_row - first_row == kColumns) {
      store_turns(first_input, first_row, sums, [&](Element* y, int first_column, uint32 (&words)[kQuad], bool present) {
        exchange_in_quad(words);
        Element* target = y + t * kGroupColumns + first_column;
        if (present) store(reinterpret_cast<uint4*>(target), from_registers(words));
      });
    } else {
      const int left = end_row - first_row - 2 * t;  // columns from this lane's first one on
      store_turns(first_input, first_row, sums, [&](Element* y, int first_column, uint32 (&words)[kQuad], bool present) {
#pragma unroll
        for (int group = 0; group < kQuad; ++group) {
          const int column = first_column + group * kGroupColumns;
          if (present) store_pair(y + 2 * t + column, words[group], left - column, alignment % 4 == 0);
        }
      });
    }
  }

 private:
  /// Calls `store_turn` for each kTurnColumns columns of two rows: with where the row goes, their first one, the words of
  /// this lane's columns of each group, and whether the row is one of x's.
  template <class StoreTurn>
  VQCC_DEVICE void store_turns(int first_input, int first_row, const float (&sums)[kColumns / 2],
                               const StoreTurn& store_turn) const {
    const int input = first_input + lane_index() / kQuad;
    Element* y = arguments_.y + input * arguments_.y_stride + first_row;
    float4 terms[kQuad];
    load_terms(0, terms);
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      uint32 words[2][kQuad];  // of rows g and g + 8, columns 2 t and 2 t + 1 of each group
#pragma unroll
      for (int group = 0; group < kQuad; ++group) {
        round_sums(terms[group], sums + (turn * kQuad + group) * kGroupColumns / 2, words[0][group], words[1][group]);
      }
      if (turn + 1 < kTurns) load_terms(turn + 1, terms);  // on their way while others are stored
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        store_turn(y + 8 * half * arguments_.y_stride, turn * kTurnColumns, words[half], input + 8 * half < arguments_.m);
      }
    }
  }

  /// Terms of a turn's columns 2 t and 2 t + 1 of each group.
  VQCC_DEVICE void load_terms(int turn, float4 (&terms)[kQuad]) const {
#pragma unroll
    for (int group = 0; group < kQuad; ++group) {
      const float2* own = terms_ + (turn * kQuad + group) * kGroupColumns + lane_index() % kQuad * 2;
      terms[group] = load<Space::kShared>(reinterpret_cast<const float4*>(own));
    }
  }

  /// What the sums of two neighbouring columns become, for two rows of x.
  VQCC_DEVICE static void round_sums(float4 terms, const float* sums, uint32& upper, uint32& lower) {
    upper = round_pair<Tile::kElement>(
        make_float2(rounded_product(sums[0], terms.x) + terms.y, rounded_product(sums[1], terms.z) + terms.w));
    lower = round_pair<Tile::kElement>(
        make_float2(rounded_product(sums[2], terms.x) + terms.y, rounded_product(sums[3], terms.z) + terms.w));
  }

  /// Word i of lane t of a quad becomes what word t of its lane i was.
  VQCC_DEVICE static void exchange_in_quad(uint32 (&words)[kQuad]) {
#pragma unroll
    for (int distance = 1; distance < kQuad; distance *= 2) {
      const bool upper = (lane_index() & distance) != 0;
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        if ((i & distance) != 0) continue;
        const uint32 received = exchange_xor(upper ? words[i] : words[i + distance], distance);
        words[i] = upper ? received : words[i];
        words[i + distance] = upper ? words[i + distance] : received;
      }
    }
  }

  /// Stores the first `count` of two elements.
  VQCC_DEVICE static void store_pair(Element* y, uint32 word, int count, bool aligned) {
    if (aligned && count >= 2) {
      store(reinterpret_cast<uint32*>(y), word);
    } else {
      if (count >= 1) store(reinterpret_cast<uint16*>(y), static_cast<uint16>(word));
      if (count >= 2) store(reinterpret_cast<uint16*>(y) + 1, static_cast<uint16>(word >> 16));
    }
  }

  const Arguments& arguments_;
  const float2* terms_;
};

}  // namespace vqcc
