// Multiplies decoded vectors with activations on the CUDA cores, in fp32.
#pragma once

#include "../exchange.cuh"
#include "../reduce.cuh"
#include "../unpack.cuh"
#include "decode_kernel.cuh"

namespace vqcc {

/// A warp owns kRowsPerWarp rows of W and walks segments; its 32 lanes take 32 chunks at a time, decode neighbouring
/// vectors, and every decoded vector serves all rows of x. A lane multiplies the vectors it decodes (kNone), or they
/// are exchanged first so that its elements are 32 columns apart (Sec. VI-B).
template <class Algorithm, class Matrix, class Layout, class Tile>
class FmaEngine {
  using Shape = Geometry<Algorithm, Matrix, Layout>;
  using Parts = GemvParts<Algorithm, Matrix, Layout, Tile>;
  using Warp = GemvWarp<Tile>;
  using Chunk = CodeChunk<Algorithm, Layout>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kRows = Tile::kRowsPerWarp;
  static constexpr int kBatch = Tile::kBatch;
  static constexpr int kLanes = Layout::kLanes;
  static constexpr int kSegmentsPerVisit = kWarpSize / kLanes;
  using Exchanged = ElementLayout<kVectorSize>;  // of power-of-two vectors only
  static constexpr bool kExchanged = Tile::kFusion == Fusion::kRegister || Tile::kFusion == Fusion::kShared;
  static_assert(exchanges_as_planned<Tile, Exchanged>(), "the plan's thread mapping is the one of the layout");
  static constexpr bool kAnyChecked =
      Parts::kCutSegments || Shape::kTailVectors > 0 || Shape::kFullSegments % kSegmentsPerVisit != 0 ||
      (Parts::kSteps > 1 && Matrix::kTileColumns % (kSegmentsPerVisit * Shape::kSegmentColumns) != 0);
  static constexpr bool kAnyWhole = !Parts::kCutSegments && Shape::kFullSegments >= kSegmentsPerVisit;
  static_assert(Layout::kChunkVectors % Tile::kUnroll == 0, "a chunk is a whole number of unrolled steps");

 public:
  /// Sums of a warp: [row of W][row of x].
  struct Sums {
    float values[kRows * kBatch];
  };

  /// Shared memory of a warp beside its sums.
  static constexpr int kScratchBytes = Tile::kFusion == Fusion::kShared ? kWarpSize * kVectorSize * 4 : 0;

  /// Codes on their way: none, many warps hide their latency.
  struct Codes {};
  VQCC_DEVICE static void prefetch(const Arguments& /*arguments*/, const GemvWork& /*work*/, Codes& /*codes*/) {}

  /// Adds this warp's share of the resident columns to `sums`.
  template <class Cache>
  VQCC_DEVICE static void accumulate(const Arguments& arguments, const Cache& cache, const GemvWork& work,
                                     const GemvWork& /*next*/, bool /*has_next*/, uint8* scratch, Codes& /*codes*/,
                                     Sums& sums) {
    const int first = work.first_column / Shape::kSegmentColumns;
    const int end = ceil_divide(work.end_column, Shape::kSegmentColumns);
    for (int segment = first + Warp::share() * kSegmentsPerVisit; segment < end;
         segment += Tile::kWarpsAlongRow * kSegmentsPerVisit) {
      const bool whole =
          !kAnyChecked || (kAnyWhole && segment + kSegmentsPerVisit <= smaller(end, Shape::kFullSegments));
      if constexpr (kAnyWhole) {
        if (whole) visit<false>(arguments, cache, work, segment, end, scratch, sums);
      }
      if constexpr (kAnyChecked) {
        if (!whole) visit<true>(arguments, cache, work, segment, end, scratch, sums);
      }
    }
  }

  /// Sums over the lanes of the warp and leaves them in shared memory: those of x's row b and the warp's row r at
  /// [b * stride + r].
  VQCC_DEVICE static void store_sums(const GemvWork& /*work*/, Sums& sums, float* target, int stride) {
    constexpr int kSums = kRows * kBatch;
    const Share share = reduce_scatter(sums.values, lane_index());
#pragma unroll
    for (int i = 0; i < ceil_divide(kSums, kWarpSize); ++i) {
      if (share.owner && i < share.count) {
        const int sum = share.first + i;
        target[sum % kBatch * stride + sum / kBatch] = sums.values[i];
      }
    }
  }

 private:
  /// The chunk of the 32 of a visit that lane `lane` decodes: before an exchange by Algorithm 1's thread mapping.
  VQCC_DEVICE static int chunk_of(int lane) {
    if constexpr (Tile::kFusion == Fusion::kRegister) return Exchanged::vector_of(lane);
    return lane;
  }

  /// Segments `segment` on, one chunk a lane. `kChecked`: some vectors lie past `end` or the row's end, or in columns
  /// that are not resident.
  template <bool kChecked, class Cache>
  VQCC_DEVICE static void visit(const Arguments& arguments, const Cache& cache, const GemvWork& work, int segment,
                                int end, uint8* scratch, Sums& sums) {
    constexpr int kUnroll = kChecked ? 1 : Tile::kUnroll;  // ragged segments are not worth the code
    const int chunk = kChecked ? lane_index() : chunk_of(lane_index());
    const int own_segment = segment + chunk / kLanes;
    const int lanes = kChecked ? Shape::lanes_of(own_segment) : kLanes;
    if (kChecked && (own_segment >= end || chunk % kLanes >= lanes)) return;

    Chunk chunks[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32* row = arguments.codes + static_cast<int64>(Warp::row_of(work, r)) * Shape::kRowWords;
      chunks[r] = Chunk::load_from(row, segment * kLanes + chunk);
      if constexpr (Tile::kSplitStages > 1) chunks[r].skip_stages(work.first_stage);
    }
    int vector = own_segment * Shape::kSegmentVectors + chunk % kLanes;
#pragma unroll 1
    for (int step = 0; step < Layout::kChunkVectors; step += kUnroll) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u, vector += lanes) {
        const int column = vector * kVectorSize;
        if (kChecked && (column < work.first_column || column >= work.end_column)) continue;
        float weights[kRows][kVectorSize];
        decode(arguments, cache, work, chunks, u, column, weights);
        if constexpr (kExchanged && !kChecked) {
          multiply_exchanged(arguments, scratch, segment, step + u, weights, sums);
        } else {
          multiply(arguments, column, weights, sums);
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) chunks[r].template advance<kUnroll>();
    }
  }

  /// Decodes vector `index` of each row's chunk.
  template <class Cache>
  VQCC_DEVICE static void decode(const Arguments& arguments, const Cache& cache, const GemvWork& work,
                                 const Chunk (&chunks)[kRows], int index, int column,
                                 float (&weights)[kRows][kVectorSize]) {
    const int book = resident_book<Matrix, Shape>(work, column);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      uint32 codes[Parts::kStages];
      chunks[r].codes_of(index, codes);
      Algorithm::decode(cache, book, codes, weights[r]);
      if constexpr (Matrix::kScaleMode == ScaleMode::kGroup) {
        const float scale = group_scale<Matrix>(arguments.scales, Warp::row_of(work, r), column);
#pragma unroll
        for (int i = 0; i < kVectorSize; ++i) weights[r][i] *= scale;
      }
    }
  }

  /// Multiplies each row's vector at `column` with every row of x.
  VQCC_DEVICE static void multiply(const Arguments& arguments, int column, const float (&weights)[kRows][kVectorSize],
                                   Sums& sums) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      using Vector = Elements<Tile::kElement, kVectorSize, Tile::kActivationAlignment>;
      // Rows past m repeat the last one; their sums are never stored.
      const Element* x = arguments.x + smaller(b, arguments.m - 1) * arguments.x_stride + column;
      float activations[kVectorSize];
      Vector::template load_from<Space::kGlobal>(x).to_float(activations);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kVectorSize; ++i) {
          sums.values[r * kBatch + b] = fused_multiply_add(weights[r][i], activations[i], sums.values[r * kBatch + b]);
        }
      }
    }
  }

  /// Exchanges vectors number `step` of the visit's chunks, so that a lane's elements are 32 columns apart where the
  /// 32 vectors are neighbours, and multiplies them with every row of x.
  VQCC_DEVICE static void multiply_exchanged(const Arguments& arguments, uint8* scratch, int segment, int step,
                                             float (&weights)[kRows][kVectorSize], Sums& sums) {
    const int lane = lane_index();
    int columns[kVectorSize];
#pragma unroll
    for (int j = 0; j < kVectorSize; ++j) {
      // Register j holds element lane + 32 j of the elements of the 32 vectors.
      const int chunk = (lane + kWarpSize * j) / kVectorSize;
      const int vector = (segment + chunk / kLanes) * Shape::kSegmentVectors + step * kLanes + chunk % kLanes;
      columns[j] = vector * kVectorSize + lane % kVectorSize;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if constexpr (Tile::kFusion == Fusion::kRegister) {
        exchange_registers<Exchanged>(weights[r], lane);
      } else {
        exchange_shared<Exchanged>(weights[r], lane, chunk_of(lane), reinterpret_cast<uint32*>(scratch));
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const Element* x = arguments.x + smaller(b, arguments.m - 1) * arguments.x_stride;
#pragma unroll
      for (int j = 0; j < kVectorSize; ++j) {
        const float activation = load_element<Tile::kElement>(x, columns[j]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          sums.values[r * kBatch + b] = fused_multiply_add(weights[r][j], activation, sums.values[r * kBatch + b]);
        }
      }
    }
  }
};

template <class Algorithm, class Matrix, class Layout, class Tile>
using FmaGemv = DecodeGemv<Algorithm, Matrix, Layout, Tile, FmaEngine>;

}  // namespace vqcc
