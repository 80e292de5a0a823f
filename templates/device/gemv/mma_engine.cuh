// Multiplies decoded vectors with activations on tensor cores: entries go into the fragments as they are stored.
#pragma once

#include "../exchange.cuh"
#include "../unpack.cuh"
#include "decode_kernel.cuh"

namespace vqcc {

/// Weights are operand B of m16n8k16 multiplies, x is operand A. Lane 4 g + t decodes for row g of each group of eight
/// rows of W, its four lanes taking four chunks of the row at a time. A multiply's sixteen k are sixteen columns in any
/// order, as long as x is loaded in the same one: kAligned takes the elements where they were decoded, kRegister and
/// kShared first exchange them among the four lanes into the fragment's own order (Sec. VI-B, Fig. 12).
template <class Algorithm, class Matrix, class Layout, class Tile>
class MmaEngine {
  using Shape = Geometry<Algorithm, Matrix, Layout>;
  using Parts = GemvParts<Algorithm, Matrix, Layout, Tile>;
  using Warp = GemvWarp<Tile>;
  using Chunk = CodeChunk<Algorithm, Layout>;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;

  static constexpr int kVectorSize = Algorithm::kVectorSize;
  static constexpr int kPairs = kVectorSize / 2;  // registers of a decoded vector
  static constexpr int kBatch = Tile::kBatch;
  static constexpr int kGroupRows = 8;
  static constexpr int kGroups = Tile::kRowsPerWarp / kGroupRows;
  static constexpr int kQuad = 4;  // lanes that share a row
  static constexpr int kLanes = Layout::kLanes;
  static constexpr int kSegmentUnits = kLanes / kQuad;
  static constexpr int kUnits = Shape::kFullSegments * kSegmentUnits + ceil_divide(Shape::kTailLanes, kQuad);
  static constexpr int kTiles = ceil_divide(kBatch, 16);  // of sixteen rows of x, which share what is decoded
  static constexpr int kHalves = kBatch > 8 ? 2 : 1;      // of operand A's sixteen rows, those that x can fill
  /// A multiply takes two registers of B: two vectors of two elements make one.
  static constexpr int kStepVectors = kPairs == 1 ? 2 : 1;
  static constexpr int kStepPairs = kPairs * kStepVectors;
  static constexpr int kUnroll = Tile::kUnroll;
  using Exchanged = FragmentLayout<kVectorSize>;
  static constexpr bool kExchanged = Tile::kFusion == Fusion::kRegister || Tile::kFusion == Fusion::kShared;
  static_assert(exchanges_as_planned<Tile, Exchanged>(), "the plan's thread mapping is the one of the layout");
  /// Stages with factors of their own are summed apart.
  static constexpr int kStageSums = Algorithm::kStageFactors ? Parts::kStages : 1;
  /// Whether units have vectors past the row's end or in columns that are not resident: at its end only, or anywhere.
  static constexpr bool kRaggedEnd = Shape::kTailVectors > 0;
  static constexpr bool kAllChecked = Parts::kCutSegments || Shape::kFullSegments == 0;
  /// Whether all vectors of a segment have one book.
  static constexpr bool kOneBook = Matrix::kTileColumns % Shape::kSegmentColumns == 0;
  static_assert(kPairs >= 1 && kVectorSize % 2 == 0 && 16 % kVectorSize == 0, "fragments are made of whole vectors");
  static_assert(Layout::kChunkVectors % (kUnroll * kStepVectors) == 0, "a chunk is a whole number of unrolled steps");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "group scales are applied to decoded weights in fp32");

 public:
  /// Sums of a warp: one C fragment per group of rows, and per stage with a factor of its own.
  struct Sums {
    float values[kStageSums][kGroups][kTiles][4];
  };

  /// Shared memory of a warp beside its sums.
  static constexpr int kScratchBytes = Tile::kFusion == Fusion::kShared ? kWarpSize * kPairs * 4 : 0;

  /// Codes that are on their way while others are multiplied: four chunks of each row, one a lane.
  struct Codes {
    Chunk chunks[kGroups];
  };

  /// Starts to load the codes of the first unit of `work`.
  VQCC_DEVICE static void prefetch(const Arguments& arguments, const GemvWork& work, Codes& codes) {
    const int unit = first_unit(work);
    if (unit < end_unit(work)) load_chunks(arguments, work, unit, codes.chunks);
  }

  /// Adds this warp's share of the resident columns to `sums`. A unit is four chunks of each row; its codes have been
  /// prefetched, and the next one's, at last those of the first unit of `next` if there is more, are while it is
  /// multiplied.
  template <class Cache>
  VQCC_DEVICE static void accumulate(const Arguments& arguments, const Cache& cache, const GemvWork& work,
                                     const GemvWork& next, bool has_next, uint8* scratch, Codes& codes,
                                     Sums& sums) {
    const int end = end_unit(work);
    for (int unit = first_unit(work); unit < end; unit += Tile::kWarpsAlongRow) {
      Chunk chunks[kGroups];
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        chunks[g] = codes.chunks[g];
        if constexpr (Tile::kSplitStages > 1) chunks[g].skip_stages(work.first_stage);
      }
      const auto load_next = [&] {
        if (unit + Tile::kWarpsAlongRow < end) {
          load_chunks(arguments, work, unit + Tile::kWarpsAlongRow, codes.chunks);
        } else if (has_next) {
          prefetch(arguments, next, codes);
        }
      };
      if (kAllChecked || (kRaggedEnd && unit >= Shape::kFullSegments * kSegmentUnits)) {
        multiply_unit<true>(arguments, cache, work, unit, scratch, load_next, chunks, sums);
      } else if constexpr (!kAllChecked) {
        multiply_unit<false>(arguments, cache, work, unit, scratch, load_next, chunks, sums);
      }
    }
    if (first_unit(work) >= end && has_next) prefetch(arguments, next, codes);
  }

  /// Leaves the sums in shared memory: those of x's row b and the warp's row r at [b * stride + r].
  VQCC_DEVICE static void store_sums(const GemvWork& work, const Sums& sums, float* target, int stride) {
    const int row = lane_index() % kQuad * 2;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int half = 0; half < kTiles * kHalves; ++half) {
        const int b = lane_index() / kQuad + half * 8;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (b < kBatch) target[b * stride + g * kGroupRows + row + i] = sum_of(work, sums, g, half, i);
        }
      }
    }
  }

 private:
  /// The sum of a row of x, number `half` in turn of those of this lane, and the lane's row `i` of the group.
  VQCC_DEVICE static float sum_of(const GemvWork& work, const Sums& sums, int group, int half, int i) {
    const int first_stage = Tile::kSplitStages == 1 ? 0 : work.first_stage;
    const int tile = half / kHalves;
    const int index = half % kHalves * 2 + i;
    float sum = Algorithm::stage_factor(first_stage) * sums.values[0][group][tile][index];
#pragma unroll
    for (int stage = 1; stage < kStageSums; ++stage) {
      sum = fused_multiply_add(Algorithm::stage_factor(first_stage + stage), sums.values[stage][group][tile][index], sum);
    }
    return sum;
  }

  /// The chunk of a unit's four that this lane decodes: before an exchange by Algorithm 1's thread mapping.
  VQCC_DEVICE static int own_chunk() {
    if constexpr (Tile::kFusion == Fusion::kRegister) return Exchanged::vector_of(lane_index());
    return lane_index() % kQuad;
  }

  VQCC_DEVICE static int first_unit(const GemvWork& work) {
    return work.first_column / Shape::kSegmentColumns * kSegmentUnits + Warp::share();
  }

  VQCC_DEVICE static int end_unit(const GemvWork& work) {
    return smaller(kUnits, ceil_divide(work.end_column, Shape::kSegmentColumns) * kSegmentUnits);
  }

  VQCC_DEVICE static void load_chunks(const Arguments& arguments, const GemvWork& work, int unit,
                                      Chunk (&chunks)[kGroups]) {
    // The last unit may lack chunks; its lanes repeat the last one, whose vectors are then past the row's end.
    constexpr int kLastChunk = Shape::kFullSegments * kLanes + Shape::kTailLanes - 1;
    const int chunk = smaller(unit * kQuad + own_chunk(), kLastChunk);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int row = Warp::row_of(work, g * kGroupRows + lane_index() / kQuad);
      chunks[g] = Chunk::load_from(arguments.codes + static_cast<int64>(row) * Shape::kRowWords, chunk);
    }
  }

  /// First column of vector 0 of chunk `chunk` of a unit, and columns from one vector of a chunk to the next.
  template <bool kChecked>
  VQCC_DEVICE static int first_column_of(int unit, int chunk) {
    const int segment = unit / kSegmentUnits;
    const int lane = unit % kSegmentUnits * kQuad + chunk;
    if (kChecked && lane >= Shape::lanes_of(segment)) return Matrix::kColumns;  // there is no such chunk
    return (segment * Shape::kSegmentVectors + lane) * kVectorSize;
  }
  template <bool kChecked>
  VQCC_DEVICE static int column_step(int unit) {
    return (kChecked ? Shape::lanes_of(unit / kSegmentUnits) : kLanes) * kVectorSize;
  }

  /// Whether the vector at `column` exists and is this phase's.
  template <bool kChecked>
  VQCC_DEVICE static bool resident(const GemvWork& work, int column) {
    return !kChecked || (column >= work.first_column && column < work.end_column);
  }

  /// Multiplies a unit. `load_next` is called once on the way, when some of the chunks' registers are free again.
  template <bool kChecked, class Cache, class LoadNext>
  VQCC_DEVICE static void multiply_unit(const Arguments& arguments, const Cache& cache, const GemvWork& work, int unit,
                                        uint8* scratch, const LoadNext& load_next, Chunk (&chunks)[kGroups],
                                        Sums& sums) {
    constexpr int kSteps = Layout::kChunkVectors / kStepVectors;
    constexpr int kUnrolled = kChecked ? 1 : kUnroll;  // ragged units are not worth the code
    const int step_columns = column_step<kChecked>(unit);
    int own_column = first_column_of<kChecked>(unit, own_chunk());
    const int unit_book = resident_book<Matrix, Shape>(work, own_column);
    const Element* x[kTiles * kHalves];
#pragma unroll
    for (int half = 0; half < kTiles * kHalves; ++half) {
      x[half] = arguments.x + (lane_index() / kQuad + 8 * half) * arguments.x_stride;
    }
    const uint32 nothing = static_cast<uint32>(arguments.m) >> 31;  // 0, which the compiler does not know
    int columns[kLoads];                                            // of what this lane loads of x
#pragma unroll
    for (int i = 0; i < kLoads; ++i) columns[i] = load_column<kChecked>(unit, i);
#pragma unroll 1
    for (int step = 0; step < kSteps; step += kUnrolled) {
#pragma unroll
      for (int u = 0; u < kUnrolled; ++u) {
        if (u == kUnrolled / 4 && step == 0) load_next();
        uint32 activations[kTiles * kHalves][kStepPairs];
        load_activations<kChecked>(x, arguments.m, work, columns, step_columns, activations);
        Operand operands[kTiles][kStepPairs / 2];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
          for (int i = 0; i < kStepPairs / 2; ++i) operands[tile][i] = operand(activations, tile, 2 * i, nothing);
        }
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          uint32 weights[Parts::kStages][kStepPairs];
#pragma unroll
          for (int v = 0; v < kStepVectors; ++v) {
            const int column = own_column + v * step_columns;
            const int book = kOneBook ? unit_book : resident_book<Matrix, Shape>(work, column);
            uint32 codes[Parts::kStages];
            chunks[g].codes_of(u * kStepVectors + v, codes);
#pragma unroll
            for (int stage = 0; stage < Parts::kStages; ++stage) {
              uint32 pairs[kPairs] = {};
              if (resident<kChecked>(work, column)) {
                Algorithm::template decode_pairs<Tile::kElement>(cache, book, stage, codes[stage], pairs);
              }
              exchange(pairs, scratch);
#pragma unroll
              for (int p = 0; p < kPairs; ++p) weights[stage][v * kPairs + p] = pairs[p];
            }
          }
#pragma unroll
          for (int stage = 0; stage < Parts::kStages; ++stage) {
#pragma unroll
            for (int p = 0; p < kStepPairs; p += 2) {
              const uint32 b[2] = {weights[stage][p], weights[stage][p + 1]};
#pragma unroll
              for (int tile = 0; tile < kTiles; ++tile) {
                multiply_fragments<Tile::kElement>(sums.values[kStageSums == 1 ? 0 : stage][g][tile],
                                                   operands[tile][p / 2].registers, b);
              }
            }
          }
        }
        own_column += kStepVectors * step_columns;
#pragma unroll
        for (int i = 0; i < kLoads; ++i) columns[i] += kStepVectors * step_columns;
      }
#pragma unroll
      for (int g = 0; g < kGroups; ++g) chunks[g].template advance<kUnrolled * kStepVectors>();
    }
  }

  /// Operand A of one multiply: pairs `pair` and `pair + 1` of a tile's rows g and g + 8 of x.
  struct Operand {
    uint32 registers[4];
  };
  VQCC_DEVICE static Operand operand(const uint32 (&activations)[kTiles * kHalves][kStepPairs], int tile, int pair,
                                     uint32 nothing) {
    const auto& upper = activations[tile * kHalves];
    const auto& lower = activations[tile * kHalves + kHalves - 1];
    // Vector loads leave a row's pairs side by side, a multiply wants the rows': new registers are made once, here, for
    // all groups. Told of a plain copy, the compiler makes it again before each multiply.
    return {{upper[pair] | nothing, (kHalves == 2 ? lower[pair] : 0u) | nothing, upper[pair + 1] | nothing,
             (kHalves == 2 ? lower[pair + 1] : 0u) | nothing}};
  }

  /// The four lanes of a row swap pairs so that each ends up with its fragment's; see `load_activations` for the order.
  VQCC_DEVICE static void exchange(uint32 (&pairs)[kPairs], uint8* scratch) {
    if constexpr (Tile::kFusion == Fusion::kRegister) {
      exchange_registers<Exchanged>(pairs, lane_index());
    } else if constexpr (Tile::kFusion == Fusion::kShared) {
      exchange_shared<Exchanged>(pairs, lane_index(), own_chunk(), reinterpret_cast<uint32*>(scratch));
    }
  }

  /// Loads of x that make a lane's pairs of one vector: a whole vector where it was decoded, or pair by pair.
  static constexpr int kLoads = kExchanged && kPairs > 1 ? kPairs : 1;
  static constexpr int kLoadPairs = kPairs / kLoads;
  static constexpr int kLoadAlignment = kLoads == 1 ? Tile::kActivationAlignment : 4;

  /// First column of load `index`, for vector 0 of the unit's chunks; kColumns where there is no such chunk.
  template <bool kChecked>
  VQCC_DEVICE static int load_column(int unit, int index) {
    if constexpr (kLoads == 1) return first_column_of<kChecked>(unit, own_chunk());
    // Exchanged, register p holds the pair at 8 p + 2 t of the columns of the four vectors.
    const int offset = 8 * index + 2 * (lane_index() % kQuad);
    return first_column_of<kChecked>(unit, offset / kVectorSize) + offset % kVectorSize;
  }

  /// x at the columns that the lane's registers of B stand for, rows g and g + 8: zero past m and past the columns.
  template <bool kChecked>
  VQCC_DEVICE static void load_activations(const Element* const (&x)[kTiles * kHalves], int m, const GemvWork& work,
                                           const int (&columns)[kLoads], int step_columns,
                                           uint32 (&activations)[kTiles * kHalves][kStepPairs]) {
    using Load = Elements<Tile::kElement, 2 * kLoadPairs, kLoadAlignment>;
#pragma unroll
    for (int half = 0; half < kTiles * kHalves; ++half) {
      const int b = lane_index() / kQuad + 8 * half;
#pragma unroll
      for (int i = 0; i < kLoads * kStepVectors; ++i) {
        const int column = columns[i % kLoads] + i / kLoads * step_columns;
        Load loaded = {};
        if (b < m && resident<kChecked>(work, column)) {
          loaded = Load::template load_from<Space::kGlobal>(x[half] + column);
        }
#pragma unroll
        for (int p = 0; p < kLoadPairs; ++p) activations[half][i * kLoadPairs + p] = loaded.registers[p];
      }
    }
  }
};

template <class Algorithm, class Matrix, class Layout, class Tile>
using MmaGemv = DecodeGemv<Algorithm, Matrix, Layout, Tile, MmaEngine>;

}  // namespace vqcc
