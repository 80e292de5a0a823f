// The compiled model, as this program sees it: all that it knows of vqcc's generated headers is in this file. They describe the
// shapes, so that another spec needs no change here or elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "decoder.embedded.h"

#if !defined(DECODER_SHAPE_QKV_N) || !defined(DECODER_SHAPE_GATE_UP_N)
#error "the spec's `fuse` must make one layer, qkv, of q, k and v, and one, gate_up, of gate and up"
#endif
#if !defined(DECODER_SHAPE_O_N) || !defined(DECODER_SHAPE_DOWN_N) || !defined(DECODER_ATTENTION_HEAD_DIM)
#error "the spec must have layers o, down and attention"
#endif

namespace engine {

static_assert(DECODER_RANKS == 1, "this engine runs on one GPU: leave tensor_parallel out of the spec");

/// The linear layers of a decoder layer: queries, keys and values in one, and gate and up in one.
enum class Linear { kQkv, kO, kGateUp, kDown };
inline constexpr Linear kLinears[] = {Linear::kQkv, Linear::kO, Linear::kGateUp, Linear::kDown};

/// What a linear layer's packed weight is. `codes_bytes` is 0 if they differ from weight to weight.
struct LinearFacts {
  const char* name;
  const char* layout_id;
  std::int64_t n, k, codes_bytes, books_bytes, scales_bytes, stage_scales_bytes;
};

/// Device addresses of a packed weight; those that the algorithm lacks are 0.
struct LinearArrays {
  std::uint64_t codes, books, stage_scales, scales;
};

/// Device addresses of the packed codebooks of a KV cache.
struct BookArrays {
  std::uint64_t key_books, value_books, append_key_books, append_value_books, book_facts, rotations;
};

/// Device addresses of a layer's cache, and what the host knows of it. `sequence_blocks` is of a contiguous cache.
struct CacheArrays {
  std::uint64_t pages, page_table, lengths, key_window, value_window;
  std::int32_t table_stride, sequence_blocks;
  const std::int32_t* host_lengths;
  const std::int32_t* host_table;
  std::int64_t page_count;
};

/// The attention library's numbers.
namespace attention {
inline constexpr int kQueryHeads = DECODER_ATTENTION_Q_HEADS, kKeyHeads = DECODER_ATTENTION_KV_HEADS;
inline constexpr int kHeadDim = DECODER_ATTENTION_HEAD_DIM, kMostBatch = DECODER_ATTENTION_MAX_BATCH;
inline constexpr int kMostContext = DECODER_ATTENTION_MAX_CONTEXT, kWindow = DECODER_ATTENTION_WINDOW;
inline constexpr int kSlidingWindow = DECODER_ATTENTION_SLIDING_WINDOW, kPageTokens = DECODER_ATTENTION_PAGE_TOKENS;
inline constexpr int kBlockTokens = DECODER_ATTENTION_BLOCK_TOKENS;
inline constexpr std::int64_t kBlockBytes = DECODER_ATTENTION_BLOCK_BYTES;
/// 0: the cache takes keys that are rotated; 1, 2: kernels rotate them, by halves or by neighbours.
inline constexpr int kRope = DECODER_ATTENTION_ROPE;
inline constexpr double kRopeBase = DECODER_ATTENTION_ROPE_BASE, kRopeScaling = DECODER_ATTENTION_ROPE_SCALING;
inline constexpr bool kBooksByRows = DECODER_ATTENTION_BOOKS_BY_ROWS != 0;
inline constexpr std::int64_t kKeyBooksBytes = DECODER_ATTENTION_KEY_BOOKS_BYTES;
inline constexpr std::int64_t kValueBooksBytes = DECODER_ATTENTION_VALUE_BOOKS_BYTES;
inline constexpr std::int64_t kAppendKeyBooksBytes = DECODER_ATTENTION_APPEND_KEY_BOOKS_BYTES;
inline constexpr std::int64_t kAppendValueBooksBytes = DECODER_ATTENTION_APPEND_VALUE_BOOKS_BYTES;
inline constexpr std::int64_t kBookFactsBytes = DECODER_ATTENTION_BOOK_FACTS_BYTES;
inline constexpr const char* kLayoutId = DECODER_ATTENTION_LAYOUT_ID;
}  // namespace attention

/// All libraries of the model, loaded into the current context. Launches throw what the library says is wrong.
class Model {
 public:
  /// With `overlap` kernels may start while those before them end.
  Model(const vqcc_driver& driver, bool overlap) : overlap_(overlap ? 1 : 0) {
    require(decoder_load_embedded(&handle_, &driver), "loading the model");
  }
  ~Model() { decoder_unload(&handle_); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  static LinearFacts facts(Linear layer) {
    const decoder_layer_facts& own = *decoder_layer_info(number_of(layer));
    return {own.name,        own.layout_id,   own.n,            own.k,
            own.codes_bytes, own.books_bytes, own.scales_bytes, own.stage_scales_bytes};
  }

  static std::size_t workspace_bytes(Linear layer, std::int32_t rows) {
    decoder_linear_args args = {};
    args.m = rows;
    args.type = DECODER_ATTENTION_FLOAT16;
    return decoder_linear_workspace_bytes(number_of(layer), &args);
  }
  static std::size_t attention_workspace_bytes() { return DECODER_ATTENTION_WORKSPACE_BYTES; }

  /// y = x W^T of `rows` rows, next to each other.
  void multiply(Linear layer, const LinearArrays& weight, std::uint64_t x, std::uint64_t y, std::int32_t rows,
                std::uint64_t workspace, void* stream) const {
    const LinearFacts own = facts(layer);
    decoder_linear_args args = {};
    args.codes = weight.codes;
    args.books = weight.books;
    args.stage_scales = weight.stage_scales;
    args.scales = weight.scales;
    args.x = x;
    args.y = y;
    args.workspace = workspace;
    args.x_stride = own.k;
    args.y_stride = own.n;
    args.m = rows;
    args.type = DECODER_ATTENTION_FLOAT16;
    args.overlap = overlap_;
    const decoder_status status = decoder_launch_linear(&handle_, number_of(layer), &args, stream);
    if (status == DECODER_OK) return;
    const char* reason = nullptr;  // the library's own words, of arguments that it does not take
    const bool supported = decoder_supports_linear(number_of(layer), &args, &reason) == DECODER_OK;
    throw std::runtime_error(std::string(own.name) + ": " + (supported ? decoder_status_string(status) : reason));
  }

  /// Attention of one query token of each sequence; rows of queries are `query_stride` elements apart.
  void attend(const BookArrays& books, const CacheArrays& cache, std::int32_t batch, std::uint64_t queries,
              std::int64_t query_stride, std::uint64_t outputs, float scale, std::uint64_t workspace, void* stream) const {
    const decoder_attention_host_view host = host_view(cache);
    decoder_attention_args args = {};
    args.queries = queries;
    args.pages = cache.pages;
    args.key_books = books.key_books;
    args.value_books = books.value_books;
    args.book_facts = books.book_facts;
    args.rotations = books.rotations;
    args.lengths = cache.lengths;
    args.page_table = cache.page_table;
    args.key_window = cache.key_window;
    args.value_window = cache.value_window;
    args.outputs = outputs;
    args.workspace = workspace;
    args.q_sequence_stride = args.q_token_stride = query_stride;
    args.q_head_stride = args.out_head_stride = attention::kHeadDim;
    args.out_sequence_stride = args.out_token_stride = attention::kQueryHeads * attention::kHeadDim;
    args.batch = batch;
    args.query_tokens = 1;
    args.page_table_stride = cache.table_stride;
    args.page_blocks = cache.sequence_blocks;
    args.softmax_scale = scale;
    args.type = DECODER_ATTENTION_FLOAT16;
    args.overlap = overlap_;
    args.host = &host;
    require(decoder_attention_launch(&handle_.attention, &args, stream), "attention");
  }

  /// Appends the last `new_tokens` tokens of each sequence; rows of keys, and of values, are so many elements apart.
  void append(const BookArrays& books, const CacheArrays& cache, std::int32_t batch, std::int32_t new_tokens,
              std::uint64_t keys, std::int64_t key_stride, std::uint64_t values, std::int64_t value_stride,
              void* stream) const {
    const decoder_attention_host_view host = host_view(cache);
    decoder_attention_append_args args = {};
    args.keys = keys;
    args.values = values;
    args.pages = cache.pages;
    args.key_books = books.append_key_books;
    args.value_books = books.append_value_books;
    args.lengths = cache.lengths;
    args.page_table = cache.page_table;
    args.key_window = cache.key_window;
    args.value_window = cache.value_window;
    args.key_token_stride = key_stride;
    args.value_token_stride = value_stride;
    args.key_sequence_stride = new_tokens * key_stride;
    args.value_sequence_stride = new_tokens * value_stride;
    args.key_head_stride = args.value_head_stride = attention::kHeadDim;
    args.batch = batch;
    args.new_tokens = new_tokens;
    args.page_table_stride = cache.table_stride;
    args.page_blocks = cache.sequence_blocks;
    args.type = DECODER_ATTENTION_FLOAT16;
    args.overlap = overlap_;
    args.host = &host;
    require(decoder_attention_append(&handle_.attention, &args, stream), "append");
  }

 private:
  static std::int32_t number_of(Linear layer) {
    constexpr std::int32_t numbers[] = {DECODER_LAYER_QKV, DECODER_LAYER_O, DECODER_LAYER_GATE_UP, DECODER_LAYER_DOWN};
    return numbers[static_cast<int>(layer)];
  }
  static decoder_attention_host_view host_view(const CacheArrays& cache) {
    return {cache.host_lengths, cache.host_table, cache.page_count};
  }
  static void require(decoder_status status, const char* what) {
    if (status != DECODER_OK) throw std::runtime_error(std::string(what) + ": " + decoder_status_string(status));
  }
  static void require(decoder_attention_status status, const char* what) {
    if (status != DECODER_ATTENTION_OK) {
      throw std::runtime_error(std::string(what) + ": " + decoder_attention_status_string(status));
    }
  }

  decoder_handle handle_ = {};
  std::int32_t overlap_;
};

}  // namespace engine
