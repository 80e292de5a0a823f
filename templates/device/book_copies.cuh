// Codebooks in shared memory, entries copied so often that the lanes of a warp do not meet in a bank.
#pragma once

#include "elements.cuh"
#include "unpack.cuh"

namespace vqcc {

/// Whole books, at the start of the block's shared memory: all tables of one, or of kQuadTiles neighbouring ones, of
/// which lane l looks up number l % kQuadTiles.
///
/// The kSlots copies of an entry, kCopies of each book's, are neighbours, and lane l looks up slot l % kSlots: where
/// kSlots * kEntryBytes are the 128 bytes of all banks, no two lanes of a wavefront meet, whatever their codes are. Tables
/// indexed by a byte lie in pairs, entry e of either 256 bytes after entry e - 1: the byte then is the second one of the
/// entry's offset, put there in one permutation. `Tile` names kQuadTiles, kCopies and kBookBuffers: with two, other books
/// arrive while these are looked up.
template <class Algorithm, class Tile, int kThreads, int kFirstThread = 0>
class BookCopies {
  using Entry = typename Algorithm::Entry;

  static constexpr int kEntryBytes = Algorithm::kEntryBytes;
  static constexpr int kEntries = Algorithm::kTableEntries;
  static constexpr int kOwnTables = Algorithm::kStagesShareTable ? 1 : Algorithm::kResiduals;
  static constexpr int kTables = kOwnTables + (Algorithm::kConstantEntries > 0 ? 1 : 0);
  static constexpr int kQuadTiles = Tile::kQuadTiles;
  static constexpr int kBuffers = Tile::kBookBuffers;
  static constexpr int kSlots = kQuadTiles * Tile::kCopies;
  static constexpr int kSlotBytes = kSlots * kEntryBytes;
  static constexpr int kBankBytes = 128;
  static constexpr bool kByteCodes = kEntries == 256 && Algorithm::kCodeBits % 8 == 0;
  static constexpr int kEntryStride = kByteCodes ? 2 * kBankBytes : kSlotBytes;
  static constexpr int kTableBytes = kEntries * kEntryStride;
  static constexpr int kBufferOffset = kByteCodes ? kBankBytes : kTableBytes;
  /// Pieces of entries that a thread loads at a time.
  static constexpr int kPieceBytes = smaller(kEntryBytes, 16);
  static constexpr int kParts = kEntryBytes / kPieceBytes;
  static constexpr int kPieces = kTables * kEntries * kParts * kQuadTiles;
  static_assert(kSlotBytes <= kBankBytes || kSlots == 1, "copies past the last bank are of no use");
  static_assert(kBuffers == 1 || kBuffers == 2, "books are looked up in one buffer and arrive in another");
  static_assert(Algorithm::kConstantEntries == 0 || Algorithm::kConstantEntries == kEntries, "tables are alike");

 public:
  /// Shared memory of all buffers, byte-indexed tables in pairs, and of entries before they are copied.
  static constexpr int kBufferBytes =
      kByteCodes ? ceil_divide(kTables * kBuffers, 2) * kTableBytes : kTables * kBuffers * kTableBytes;
  static constexpr int kBytes = kBufferBytes + (kSlots == 1 ? 0 : kPieces * kPieceBytes);

  VQCC_DEVICE BookCopies() { use(0); }

  /// Starts to bring books: for lanes that look up tile t of a quad's, book `book_of(t)` of `books`. Each of kThreads
  /// threads from kFirstThread on calls it, and later finish_loading. One copy of each entry goes to where only this thread
  /// looks for it.
  template <class BookOf>
  VQCC_DEVICE void start_loading(const uint8* books, int buffer, const BookOf& book_of) const {
    for_own_pieces([&](int table, int tile, int entry, int part, int piece) {
      const uint8* book = books + static_cast<int64>(book_of(tile)) * Algorithm::kTableBytes;
      const uint8* source = book + table * Algorithm::kStageBytes + entry * kEntryBytes + part * kPieceBytes;
      start_copy<kPieceBytes>(kSlots == 1 ? place(buffer, table, entry, part) : staged(piece), source, true);
    });
  }

  /// Makes the copies of the entries that this thread has brought, once it has waited for them. They are there for all
  /// when the block has met. Threads next to each other begin with different copies, so as not to meet in a bank.
  VQCC_DEVICE void finish_loading(int buffer) const {
    if constexpr (kSlots > 1) {
      for_own_pieces([&](int table, int tile, int entry, int part, int piece) {
        using Word = typename WordOf<kPieceBytes>::Type;
        const Word word = load<Space::kShared>(reinterpret_cast<const Word*>(staged(piece)));
        uint8* target = place(buffer, table, entry, part) + tile * kEntryBytes;
#pragma unroll
        for (int i = 0; i < Tile::kCopies; ++i) {
          const int copy = (entry + i) % Tile::kCopies;
          store(reinterpret_cast<Word*>(target + copy * kQuadTiles * kEntryBytes), word);
        }
      });
    }
  }

  /// Makes the books in `buffer` those that are looked up.
  VQCC_DEVICE void use(int buffer) {
    own_ = static_cast<uint32>(lane_index() % kSlots * kEntryBytes + buffer * kBufferOffset);
  }

  /// This lane's copy of the entry of stage `stage` that `code` stands for. `book` is 0: a lane has one at a time.
  VQCC_DEVICE Entry access(int /*book*/, int stage, const PackedCode& code) const {
    return entry_at(Algorithm::kStagesShareTable ? 0 : stage, code);
  }

  /// Likewise of the table of constants.
  VQCC_DEVICE Entry constant(int /*book*/, const PackedCode& code) const { return entry_at(kOwnTables, code); }

 private:
  /// Calls `use(table, tile, entry, part, piece)` for the pieces that this thread brings.
  template <class Use>
  VQCC_DEVICE static void for_own_pieces(const Use& use) {
    for (int piece = static_cast<int>(threadIdx.x) - kFirstThread; piece < kPieces; piece += kThreads) {
      const int entry = piece / kParts / kQuadTiles;
      use(entry / kEntries, piece / kParts % kQuadTiles, entry % kEntries, piece % kParts, piece);
    }
  }

  VQCC_DEVICE uint8* staged(int piece) const { return dynamic_shared() + kBufferBytes + piece * kPieceBytes; }

  VQCC_DEVICE uint8* place(int buffer, int table, int entry, int part) const {
    return dynamic_shared() + table_offset(table) + buffer * kBufferOffset + entry * kEntryStride + part * kPieceBytes;
  }

  VQCC_HOST_DEVICE static constexpr int table_offset(int table) {
    if (!kByteCodes || kBuffers == 2) return table * kBuffers * kTableBytes / (kByteCodes ? 2 : 1);
    return table / 2 * kTableBytes + table % 2 * kBankBytes;
  }

  VQCC_DEVICE Entry entry_at(int table, const PackedCode& code) const {
    uint32 offset;
    if constexpr (kByteCodes) {
      // Bytes, lowest first: this lane's own offset, the code, and zeros.
      offset = permute_bytes(own_, code.low, 0x1100u | static_cast<uint32>(4 + code.shift / 8) << 4);
    } else {
      offset = code.value() * static_cast<uint32>(kEntryStride) + own_;
    }
    return Entry::template load_from<Space::kShared>(dynamic_shared() + table_offset(table) + offset);
  }

  uint32 own_;  // offset of this lane's slot, in the buffer in use
};

}  // namespace vqcc
