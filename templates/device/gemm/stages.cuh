// Stages of x: their order, the kernel's own arrangement of x in the workspace, and the turns that stages take.
#pragma once

#include "../arch_pipeline.cuh"
#include "../arch_warpgroup.cuh"
#include "../gemv/work.cuh"

namespace vqcc {

/// Which of kSlots slots is whose turn, and the parity of the phase that its barriers are in.
template <int kSlots>
struct Turn {
  int slot = 0;
  uint32 parity = 0;

  VQCC_DEVICE void advance() {
    if (++slot == kSlots) {
      slot = 0;
      parity ^= 1u;
    }
  }
};

/// A word of a stage's row: its column in x past the stage's first one, and its place in the row, a piece of 16 bytes and the
/// word in it.
struct InputWord {
  int column;
  int piece;
  int word;
};

/// The columns of W that lane t of a quad has, in the order in which it decodes them: of each kQuad spans of kSpan columns
/// it has span t. A sum over k may run in any order: pair p of a unit of eight is where operand A has k 2t or 2t + 8 (p odd)
/// of multiply p / 2 of the unit. So x has pair p of all lanes of a quad, in the order of lanes, in piece 4 unit + p of a
/// stage of 64 columns.
template <int kSpan>
struct InputOrder {
  static constexpr int kWordBytes = 4;
  static constexpr int kQuad = 4;
  static constexpr int kUnitColumns = 8;                                    // of a lane: two multiplies
  static constexpr int kStageColumns = SwizzledRows::kColumns / kQuad;      // of a lane
  static constexpr int kRun = kSpan < kStageColumns ? kSpan : kStageColumns;  // columns that lie together in x
  static constexpr int kRunWords = kRun / 2;
  static_assert(kStageColumns % kRun == 0 && kSpan % kRun == 0, "stages are of whole runs");

  /// The first column of stage `stage`, of lane 0.
  VQCC_DEVICE static int first_column(int stage) {
    const int own = stage * kStageColumns;
    return own / kSpan * kQuad * kSpan + own % kSpan;
  }

  /// Word `word` of a stage's row, by its address in x.
  VQCC_DEVICE static InputWord word(int word) {
    const int lane = word / kRunWords % kQuad;
    const int own = word / (kQuad * kRunWords) * kRun + word % kRunWords * 2;  // of that lane's columns in the stage
    const int column = (own / kSpan * kQuad + lane) * kSpan + own % kSpan;
    return {column, own / kUnitColumns * kQuad + own % kUnitColumns / 2, lane};
  }
};

/// Columns as they are, in words of 16 bytes: column c of a stage is in its piece c / 8. Rows of x are whole such words, and
/// aligned to them.
struct PlainOrder {
  static constexpr int kWordBytes = SwizzledRows::kPieceBytes;

  VQCC_DEVICE static int first_column(int stage) { return stage * SwizzledRows::kColumns; }

  VQCC_DEVICE static InputWord word(int word) { return {word * kWordBytes / 2, word, 0}; }
};

/// x as an operand in shared memory, stage by stage: for each panel of kRows rows, kStages stages of 64 columns as they lie
/// there (SwizzledRows), so that one copy brings one. `Order` is that of a stage's columns: InputOrder or PlainOrder.
///
/// The kernel arranges x itself, each element once. Warps take groups of kGroupRows rows of a stage in turn, by a counter: a
/// group is waited for only when a warp that runs has taken it, so that blocks may run in any order, and any number of them
/// at a time.
template <ElementType kType, int kRows, int kStages, class Order, int kColumns>
class ArrangedInputs {
  using Element = typename ElementTraits<kType>::Type;
  using Word = typename WordOf<Order::kWordBytes>::Type;
  static constexpr int kRowWords = SwizzledRows::kRowBytes / Order::kWordBytes;
  static constexpr int kWarpRows = kWarpSize / kRowWords;  // that a warp loads at once
  static constexpr int kLoads = 8;                         // that are on their way together
  static constexpr int kGroupRows = kLoads * kWarpRows;
  static_assert(kRows % kGroupRows == 0, "panels are whole groups");
  static constexpr int kGroups = kRows / kGroupRows * kStages;  // of a panel
  static constexpr int kTurns = 4;                              // of each warp, about

 public:
  static constexpr int kStageBytes = kRows * SwizzledRows::kRowBytes;

  /// What blocks tell each other: groups that are taken, blocks that need them no more, and of each panel groups that are
  /// there.
  struct Counters {
    uint32* taken;
    uint32* done;
    uint32* there;

    static constexpr int kBeforePanels = 2;
    VQCC_DEVICE explicit Counters(uint32* words) : taken(words), done(words + 1), there(words + kBeforePanels) {}
  };

  VQCC_DEVICE ArrangedInputs(uint8* arranged, uint32* words) : arranged_(arranged), counters_(words) {}

  VQCC_DEVICE const uint8* stage(int panel, int stage) const {
    return arranged_ + (static_cast<int64>(panel) * kStages + stage) * kStageBytes;
  }

  /// Arranges what of x, `rows` rows `stride` apart, no other warp has taken; `warps` do so in all.
  VQCC_DEVICE void arrange(const Element* x, int64 stride, int rows, int warps) const {
    const int groups = ceil_divide(rows, kRows) * kGroups;
    const int granted = ceil_divide(groups, kTurns * warps);
    const InputWord word = Order::word(lane_index() % kRowWords);
    for (;;) {
      uint32 turn = 0;
      if (lane_index() == 0) turn = take_number(counters_.taken);
      const int64 first = static_cast<int64>(value_of_lane(turn, 0)) * granted;
      if (first >= groups) return;
      const int end = smaller(static_cast<int>(first) + granted, groups);
      for (int group = static_cast<int>(first); group < end;) {
        const int panel = group / kGroups;
        const int of_panel = smaller(end, (panel + 1) * kGroups);
        const auto count = static_cast<uint32>(of_panel - group);
        for (; group < of_panel; ++group) arrange_group(x, stride, rows, group, word);
        show_to_copies();
        warp_barrier();  // all lanes' words are written
        if (lane_index() == 0) tell_arrivals(counters_.there + panel, count);
      }
    }
  }

  /// Waits until a panel is there, for the copies that this thread starts then.
  VQCC_DEVICE void wait_for_panel(int panel) const {
    wait_for_arrivals(counters_.there + panel, kGroups);
    show_to_copies();
  }

  /// Says that a block has all that it needs; the last of `blocks` leaves the counters as the next launch expects them.
  VQCC_DEVICE void leave(int blocks, int panels) const {
    if (count_arrival(counters_.done) != static_cast<uint32>(blocks - 1)) return;
    *counters_.taken = 0u;
    *counters_.done = 0u;
    for (int panel = 0; panel < panels; ++panel) counters_.there[panel] = 0u;
  }

 private:
  /// A group's rows of one stage: zeros past the rows and columns. Lanes take the words of kWarpRows rows at once, from
  /// neighbouring addresses to neighbouring ones. x may have been written while this kernel already ran.
  VQCC_DEVICE void arrange_group(const Element* x, int64 stride, int rows, int group, InputWord word) const {
    const int panel = group / kGroups;
    const int stage_index = group % kGroups / (kRows / kGroupRows);
    const int first_row = group % (kRows / kGroupRows) * kGroupRows + lane_index() / kRowWords;  // of this lane
    const int column = Order::first_column(stage_index) + word.column;
    const int first = panel * kRows + first_row;
    const Element* source = x + first * stride + column;
    Word words[kLoads] = {};
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const auto* address = reinterpret_cast<const Word*>(source + i * kWarpRows * stride);
      if (first + i * kWarpRows < rows && column < kColumns) words[i] = load_fresh(address);
    }
    uint8* target = arranged_ + (static_cast<int64>(panel) * kStages + stage_index) * kStageBytes;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      uint8* place = target + SwizzledRows::place(first_row + i * kWarpRows, word.piece);
      store(reinterpret_cast<Word*>(place) + word.word, words[i]);
    }
  }

  uint8* arranged_;
  Counters counters_;
};

}  // namespace vqcc
