// gemv over bucketed codes: a block keeps a part of a large codebook, and multiplies the codes that name its entries.
#pragma once

#include "dealing.cuh"

namespace vqcc {

/// Chunks of codes on their way to a warp, in a ring of kAhead in shared memory: each is four slots of every lane, 24
/// bits each, in three words. All lanes call each function.
template <class Layout, int kAhead>
class ChunkStream {
  static constexpr int kWords = Layout::kChunkWords / kWarpSize;  // of a lane
  static constexpr int kCopies = Layout::kChunkWords / 4;         // of 16 bytes
  static constexpr int kChunkBytes = Layout::kChunkWords * 4;
  static_assert(kWords == 3 && kCopies <= kWarpSize && kAhead >= 2, "a lane copies once for a chunk");

 public:
  static constexpr int kSteps = 4;
  static constexpr int kBytes = kAhead * kChunkBytes;

  /// Starts to copy the first of `count` chunks from `source` on to the ring, kBytes at `offset` of `shared`.
  VQCC_DEVICE ChunkStream(uint8* shared, int offset, const uint32* source, int count)
      : shared_(shared),
        words_(offset + lane_index() * 4),
        copies_(offset + lane_index() * 16),
        source_(reinterpret_cast<const uint4*>(source) + lane_index()),
        left_(lane_index() < kCopies ? count : 0) {
#pragma unroll
    for (int i = 0; i < kAhead - 1; ++i) start(i * kChunkBytes);
  }

  /// Takes this lane's slots out of the next chunk.
  VQCC_DEVICE void take(uint32 (&slots)[kSteps]) {
    wait_for_copies_but<kAhead - 2>();
    warp_barrier();  // all lanes' copies of this chunk are there, and all have taken the chunk before
    start(before_);
    before_ = before_ + kChunkBytes == kBytes ? 0 : before_ + kChunkBytes;
    const uint32* words = reinterpret_cast<const uint32*>(shared_ + (words_ + before_));
    uint32 own[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) own[i] = load<Space::kShared>(words + i * kWarpSize);
    slots[0] = own[0];
    slots[1] = funnel_right(own[0], own[1], 24);
    slots[2] = funnel_right(own[1], own[2], 16);
    slots[3] = own[2] >> 8;
  }

 private:
  /// Starts to copy the next chunk to a place of the ring, if there is one.
  VQCC_DEVICE void start(int place) {
    start_copy_if(left_ > 0, reinterpret_cast<uint4*>(shared_ + (copies_ + place)), source_);
    commit_copies();  // empty groups at the end keep the count of those on their way
    source_ += kCopies;
    --left_;
  }

  uint8* shared_;
  int words_;   // where this lane's words of the ring's first chunk are in shared memory, and what it copies of it
  int copies_;
  const uint4* source_;
  int left_;                           // chunks that this lane has not started to copy
  int before_ = kBytes - kChunkBytes;  // place in the ring of the chunk that was taken last
};

/// y[b, n] = sum over k of x[b, k] W[n, k] (+ bias[n]), for books past shared memory: few rows of x.
///
/// The packer has sorted codes by the part of the book that has their entry, and by the panel of x that has their
/// vector: a bucket. A block takes some buckets, one after another, for one part of the rows. For each it loads the part
/// of the book, and for each row of x its panel in eight copies; then a warp takes units of 32 rows, a lane a row. There
/// is no room for the panels of several rows of x, so each has the codes from the start again. In each step a lane
/// has one code: an entry and a vector, 16 bytes each, rows of 8 x 8 matrices. Eight lanes' entries are half of an
/// operand A as they are loaded, their vectors an operand B: the diagonal of the product adds to their rows' sums, and
/// what is beside it never reaches the diagonal. Parts of the buckets are added up as Algorithm 2 does, in a fixed order.
template <class Algorithm, class Matrix, class Layout, class Tile>
class BucketGemv {
  static constexpr int kWarps = Tile::kWarps;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kRowParts = Tile::kRowParts;
  static constexpr int kColumnParts = Tile::kColumnParts;
  static constexpr int kInputRows = Tile::kInputRows;
  using Element = typename ElementTraits<Tile::kElement>::Type;
  using Arguments = GemvArguments<Element>;
  using Stream = ChunkStream<Layout, Tile::kAhead>;

  static constexpr int kVectors = Matrix::kColumns / Algorithm::kVectorSize;
  static constexpr int kPanels = ceil_divide(kVectors, Layout::kPanelVectors);
  static constexpr int kParts = Algorithm::kResiduals * (Algorithm::kTableEntries / Layout::kPartEntries);
  static constexpr int kBuckets = kPanels * kParts;
  static constexpr int kRowBlocks = ceil_divide(Matrix::kRows, Layout::kBlockRows);
  static constexpr int kBlockUnits = Layout::kBlockRows / kWarpSize;
  static constexpr int kUnits = kBuckets * kRowBlocks * kBlockUnits;
  static constexpr int kBlocks = ceil_divide(kRowBlocks, kRowParts);  // of rows, of a part of them, at most
  static constexpr int kRows = kBlocks * Layout::kBlockRows;
  static constexpr int kSums = kRows * kInputRows;
  static_assert(kSums == Tile::kBlockSums, "the plan's workspace has room for as many sums");
  static_assert(Algorithm::kVectorSize == 8 && Algorithm::kEntryBytes == 16, "entries are rows of 8 x 8 matrices");
  static_assert(Matrix::kScaleMode != ScaleMode::kGroup, "products of different groups are added up");

  /// Words of the packed codes: first chunks of units, and the end; their rows; chunks.
  static constexpr int kUnitRowWords = kWarpSize / 4;
  static constexpr int64 kRowOffset = (static_cast<int64>(kUnits) + 1 + 3) / 4 * 4;
  static constexpr int64 kChunkOffset = kRowOffset + static_cast<int64>(kUnits) * kUnitRowWords;

  /// Shared memory: the part of the book, the panel of x and a vector of zeros, chunks on their way, sums of rows.
  static constexpr int kCopies = 8;  // of a vector of x: lane l reads copy l % 8, so eight lanes meet 32 banks
  static constexpr int kVectorBytes = kCopies * 16;
  static constexpr int kPartBytes = Layout::kPartEntries * Algorithm::kEntryBytes;
  static constexpr int kInputOffset = kPartBytes;
  static constexpr int kRingOffset = kInputOffset + (Layout::kPanelVectors + 1) * kVectorBytes;
  static constexpr int kSumOffset = kRingOffset + kWarps * Stream::kBytes;
  static_assert(kSumOffset + kSums * 4 <= Tile::kOwnSharedBytes, "the plan has room for sums");

  /// Of a slot: the entry's number times 16, and the vector's times kVectorBytes.
  static constexpr uint32 kEntryMask = ((1u << Layout::kEntryBits) - 1) * 16u;
  static constexpr uint32 kVectorMask = ((1u << (Layout::kSlotBits - Layout::kEntryBits)) - 1) * kVectorBytes;
  static constexpr int kVectorShift = Layout::kEntryBits - 7;
  static_assert(kVectorBytes == 1 << 7 && kVectorShift >= 0, "a vector's offset is its number, shifted");

  /// Sums of four phases of eight lanes: on the diagonals of the upper half of products 0 and 2, the lower of 1 and 3.
  struct Sums {
    float products[4][4] = {};
  };

 public:
  VQCC_DEVICE static void run(const Arguments& arguments) {
    allow_next_kernel();
    const int row_part = static_cast<int>(blockIdx.x) / kColumnParts;
    const int column_part = static_cast<int>(blockIdx.x) % kColumnParts;
    const int first_block = first_of<kRowBlocks, kRowParts>(row_part);
    const int blocks = first_of<kRowBlocks, kRowParts>(row_part + 1) - first_block;
    const int first_bucket = first_of<kBuckets, kColumnParts>(column_part);
    const int end_bucket = first_of<kBuckets, kColumnParts>(column_part + 1);
    uint8* shared = dynamic_shared();
    float* row_sums = reinterpret_cast<float*>(shared + kSumOffset);
    for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) row_sums[i] = 0.0f;
#pragma unroll 1
    for (int bucket = first_bucket; bucket < end_bucket; ++bucket) {
      start_part(arguments, bucket % kParts, shared);
#pragma unroll 1
      for (int b = 0; b < smaller(arguments.m, kInputRows); ++b) {
        work_on(arguments, bucket, b, first_block, blocks, bucket == first_bucket && b == 0, shared, row_sums + b * kRows);
        block_barrier();  // the part and x have been looked up, and sums are there
      }
    }
    finish_rows<Tile, Matrix, kRows, kInputRows, kThreads>(arguments, row_part, column_part,
                                                           first_block * Layout::kBlockRows,
                                                           blocks * Layout::kBlockRows, row_sums);
  }

 private:
  /// Starts to copy part `part` of the tables, which follow one another stage by stage.
  VQCC_DEVICE static void start_part(const Arguments& arguments, int part, uint8* shared) {
    const uint4* source = reinterpret_cast<const uint4*>(arguments.books + static_cast<int64>(part) * kPartBytes);
    uint4* target = reinterpret_cast<uint4*>(shared);
    for (int i = static_cast<int>(threadIdx.x); i < Layout::kPartEntries; i += kThreads) {
      start_copy(target + i, source + i);
    }
  }

  /// Copies the vectors of panel `panel` of row `b` of x, and a vector of zeros behind them: thread 8 v + r makes copy r
  /// of vector v.
  VQCC_DEVICE static void load_inputs(const Arguments& arguments, int b, int panel, uint8* shared) {
    const int first_vector = panel * Layout::kPanelVectors;
    const uint4* source = reinterpret_cast<const uint4*>(arguments.x + b * arguments.x_stride) + first_vector;
    uint4* target = reinterpret_cast<uint4*>(shared + kInputOffset);
    for (int i = static_cast<int>(threadIdx.x); i < (Layout::kPanelVectors + 1) * kCopies; i += kThreads) {
      const int vector = i / kCopies;
      const bool present = vector < Layout::kPanelVectors && first_vector + vector < kVectors;
      store(target + i, present ? load<Space::kGlobal>(source + vector) : make_uint4(0u, 0u, 0u, 0u));
    }
  }

  /// Adds what one bucket has for row `b` of x and some blocks of rows to their sums, as soon as its part of the book is
  /// there.
  VQCC_DEVICE static void work_on(const Arguments& arguments, int bucket, int b, int first_block, int blocks, bool first,
                                  uint8* shared, float* row_sums) {
    const int first_unit = (bucket * kRowBlocks + first_block) * kBlockUnits;
    const int units = blocks * kBlockUnits;
    const int begin = first_unit + units * warp_index() / kWarps;
    const int end = first_unit + units * (warp_index() + 1) / kWarps;
    const uint32* rows = arguments.codes + kRowOffset + lane_index() / 4;
    int chunk = chunk_of(arguments, begin);
    int end_chunk = chunk_of(arguments, smaller(begin + 1, end));
    uint32 unit_rows = load<Space::kGlobal>(rows + static_cast<int64>(smaller(begin, kUnits - 1)) * kUnitRowWords);
    Stream stream(shared, kRingOffset + warp_index() * Stream::kBytes,
                  arguments.codes + kChunkOffset + static_cast<int64>(chunk) * Layout::kChunkWords,
                  chunk_of(arguments, end) - chunk);
    if (first) wait_for_previous_kernels();  // x may be theirs; books and codes are not
    const bool several = kInputRows > 1 && arguments.m > 1;  // rows of x, one after another in the same place
    if (several || first || bucket % kParts == 0) load_inputs(arguments, b, bucket / kParts, shared);
    wait_for_copies();
    block_barrier();
#pragma unroll 1
    for (int unit = begin; unit < end; ++unit) {
      // What the next unit needs is on its way meanwhile.
      const int next = smaller(unit + 1, end - 1);
      const int next_end = chunk_of(arguments, next + 1);
      const uint32 next_rows = load<Space::kGlobal>(rows + static_cast<int64>(next) * kUnitRowWords);
      Sums sums;
#pragma unroll 1
      for (; chunk < end_chunk; ++chunk) {
        uint32 slots[Stream::kSteps];
        stream.take(slots);
        add(shared, slots, sums);
      }
      add_to_rows(sums, unit_rows, row_sums + (unit - first_unit) / kBlockUnits * Layout::kBlockRows);
      end_chunk = next_end;
      unit_rows = next_rows;
    }
  }

  /// The first chunk of a unit, which is the end of the one before.
  VQCC_DEVICE static int chunk_of(const Arguments& arguments, int unit) {
    return static_cast<int>(load<Space::kGlobal>(arguments.codes + unit));
  }

  /// Multiplies the entries and the vectors that a chunk's slots name.
  VQCC_DEVICE static void add(const uint8* shared, const uint32 (&slots)[Stream::kSteps], Sums& sums) {
    const uint32 copy = static_cast<uint32>(lane_index() % kCopies) * 16u;
#pragma unroll
    for (int step = 0; step < Stream::kSteps; ++step) {
      uint32 entries[4], vectors[4];
      load_matrices(entries, shared + (slots[step] << 4 & kEntryMask));
      load_matrices(vectors, shared + kInputOffset + ((slots[step] >> kVectorShift & kVectorMask) | copy));
#pragma unroll
      for (int phase = 0; phase < 4; ++phase) {
        const uint32(&pair)[2] = {entries[phase / 2 * 2], entries[phase / 2 * 2 + 1]};
        multiply_fragments<Tile::kElement>(sums.products[phase], pair, {vectors[phase]});
      }
    }
  }

  /// Adds a unit's sums to those of its rows in a block of them: byte i of `rows` of lane 4 g + t names that of lane
  /// 8 i + g, whose sum is on the diagonal, at row g and column g.
  VQCC_DEVICE static void add_to_rows(const Sums& sums, uint32 rows, float* block_sums) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    if (t != g / 2) return;
#pragma unroll
    for (int phase = 0; phase < 4; ++phase) {
      const float(&product)[4] = sums.products[phase];
      const int half = phase % 2 * 2;
      block_sums[rows >> 8 * phase & 0xffu] += g % 2 == 0 ? product[half] : product[half + 1];
    }
  }
};

}  // namespace vqcc
