#include "layer.hpp"

#include <algorithm>
#include <cmath>

#include "random.hpp"

namespace engine {
namespace {

constexpr std::uint64_t kHalfBytes = sizeof(std::uint16_t);

std::vector<double> frequencies_of(double base, double scaling) {
  std::vector<double> frequencies;
  constexpr int pairs = attention::kHeadDim / 2;
  for (int i = 0; i < pairs; ++i) {
    frequencies.push_back(std::pow(base, -static_cast<double>(i) / static_cast<double>(pairs)) / scaling);
  }
  return frequencies;
}

/// What pairs turn from one position to the next, in 2^-64 of a turn: whole turns, which wrap, change nothing.
std::vector<std::uint64_t> turn_steps_of(const std::vector<double>& frequencies) {
  std::vector<std::uint64_t> steps;
  for (const double frequency : frequencies) {
    const long double turns = static_cast<long double>(frequency) / 6.28318530717958647692528676655900577L;
    steps.push_back(static_cast<std::uint64_t>((turns - std::floor(turns)) * 0x1p64L));
  }
  return steps;
}

Buffer zeroed(std::size_t bytes) {
  Buffer buffer(bytes);
  if (bytes > 0) Driver::get().call("cuMemsetD8_v2", buffer.address(), static_cast<unsigned char>(0), bytes);
  return buffer;
}

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string("the model is no decoder layer of this kind: ") + what);
}

}  // namespace

const char* name_of(Step step) {
  switch (step) {
    case Step::kAttentionNorm: return "attention_norm";
    case Step::kQkv: return "qkv";
    case Step::kRotate: return "rotate";
    case Step::kAppend: return "append";
    case Step::kAttention: return "attention";
    case Step::kO: return "o";
    case Step::kMlpNorm: return "mlp_norm";
    case Step::kGateUp: return "gate_up";
    case Step::kActivation: return "activation";
    case Step::kDown: return "down";
  }
  return "";
}

LayerShape LayerShape::of_model() {
  const LinearFacts qkv = Model::facts(Linear::kQkv), o = Model::facts(Linear::kO);
  const LinearFacts gate_up = Model::facts(Linear::kGateUp), down = Model::facts(Linear::kDown);
  constexpr int query_width = attention::kQueryHeads * attention::kHeadDim;
  constexpr int key_width = attention::kKeyHeads * attention::kHeadDim;
  require(qkv.n == query_width + 2 * key_width, "qkv has other outputs than the queries, keys and values of attention");
  require(o.k == query_width, "o has other inputs than the outputs of attention");
  require(o.n == qkv.k && down.n == qkv.k && gate_up.k == qkv.k, "its layers have different hidden sizes");
  require(gate_up.n == 2 * down.k, "gate_up has other outputs than twice the inputs of down");
  require(qkv.k % 8 == 0 && down.k % 8 == 0, "rows are not multiples of 8 elements");
  require(qkv.k <= Kernels::kMostHidden, "its hidden size is more than the norm's kernel takes");
  return {static_cast<int>(qkv.k), static_cast<int>(down.k), query_width, key_width, static_cast<int>(qkv.n)};
}

Activations::Activations(const LayerShape& shape, const Run& run, int rotated_width)
    : input(0), attention_sum(0), attention_normed(0), qkv(0), rotated(0), attended(0), projected(0),
      mlp_sum(0), mlp_normed(0), gate_up(0), activated(0), down(0), output(0) {
  const auto rows = [&](int width) {
    return Buffer(static_cast<std::size_t>(run.rows()) * static_cast<std::size_t>(width) * kHalfBytes);
  };
  Random random(5);
  input = Buffer(random.halves(static_cast<std::size_t>(run.rows()) * static_cast<std::size_t>(shape.hidden), 1.0));
  for (Buffer* each : {&attention_sum, &attention_normed, &projected, &mlp_sum, &mlp_normed, &down, &output}) {
    *each = rows(shape.hidden);
  }
  qkv = rows(shape.qkv_width);
  rotated = rows(rotated_width);
  attended = rows(shape.query_width);
  gate_up = rows(2 * shape.intermediate);
  activated = rows(shape.intermediate);
}

Layers::Layers(const Model& model, const Kernels& kernels, const Run& run, std::vector<LayerWeights> weights,
               std::vector<LayerCache> caches, CacheTable& table)
    : model_(model),
      kernels_(kernels),
      shape_(LayerShape::of_model()),
      run_(run),
      weights_(std::move(weights)),
      caches_(std::move(caches)),
      table_(table),
      frequencies_(frequencies_of(attention::kRope == 0 ? run.rope_base : attention::kRopeBase,
                                  attention::kRope == 0 ? 1.0 : attention::kRopeScaling)),
      activations_(shape_, run, rotated_heads() * attention::kHeadDim),
      turn_steps_(turn_steps_of(frequencies_)),
      workspaces_{Buffer(0), Buffer(0), Buffer(0), Buffer(0)},
      attention_workspace_(zeroed(Model::attention_workspace_bytes())) {
  for (const Linear each : kLinears) {
    workspaces_[static_cast<int>(each)] = zeroed(Model::workspace_bytes(each, run.rows()));
  }
}

/// Keys are rotated too where the cache stores them so, and for the engine's own attention.
int Layers::rotated_heads() const {
  return attention::kQueryHeads + (attention::kRope == 0 || run_.prefill ? attention::kKeyHeads : 0);
}

void Layers::multiply(Linear which, int layer, const Buffer& x, const Buffer& y, void* stream) const {
  const std::uint64_t workspace = workspaces_[static_cast<int>(which)].address();
  model_.multiply(which, weights(layer).of(which).arrays(), x.address(), y.address(), run_.rows(), workspace, stream);
}

void Layers::enqueue(Step step, int layer, void* stream) const {
  const Activations& a = activations_;
  const LayerWeights& own = weights(layer);
  const int rows = run_.rows(), hidden = shape_.hidden;
  // The layer before left mlp_sum and down, to be added; the first has its input as it is.
  const bool first = layer == 0;
  const std::uint64_t residual = first ? a.input.address() : a.attention_sum.address();
  switch (step) {
    case Step::kAttentionNorm:
      kernels_.add_rms_norm(first ? a.input.address() : a.mlp_sum.address(), first ? 0 : a.down.address(),
                            own.attention_norm.address(), a.attention_sum.address(), a.attention_normed.address(), rows, hidden,
                            kEpsilon, stream);
      break;
    case Step::kQkv: multiply(Linear::kQkv, layer, a.attention_normed, a.qkv, stream); break;
    case Step::kRotate:
      kernels_.rotate(a.qkv.address(), shape_.qkv_width, a.rotated.address(), turn_steps_.address(), table_.lengths_address(),
                      rows, run_.new_tokens, rotated_heads(), attention::kHeadDim, attention::kRope == 2, stream);
      break;
    case Step::kAppend: append(layer, stream); break;
    case Step::kAttention: attend(layer, stream); break;
    case Step::kO: multiply(Linear::kO, layer, a.attended, a.projected, stream); break;
    case Step::kMlpNorm:
      kernels_.add_rms_norm(residual, a.projected.address(), own.mlp_norm.address(), a.mlp_sum.address(),
                            a.mlp_normed.address(), rows, hidden, kEpsilon, stream);
      break;
    case Step::kGateUp: multiply(Linear::kGateUp, layer, a.mlp_normed, a.gate_up, stream); break;
    case Step::kActivation:
      kernels_.gated_silu(a.gate_up.address(), a.activated.address(), rows, shape_.intermediate, stream);
      break;
    case Step::kDown: multiply(Linear::kDown, layer, a.activated, a.down, stream); break;
  }
}

void Layers::enqueue_layer(int layer, void* stream) const {
  for (const Step step : kSteps) enqueue(step, layer, stream);
}

void Layers::enqueue_output(void* stream) const {
  const Activations& a = activations_;
  kernels_.add_rms_norm(a.mlp_sum.address(), a.down.address(), 0, a.output.address(), 0, run_.rows(), shape_.hidden, kEpsilon,
                        stream);
}

/// New keys are appended as the cache stores them: as they are where kernels rotate them later, else rotated.
void Layers::append(int layer, void* stream) const {
  const Activations& a = activations_;
  const auto query_bytes = static_cast<std::uint64_t>(shape_.query_width) * kHalfBytes;
  const auto key_bytes = static_cast<std::uint64_t>(shape_.key_width) * kHalfBytes;
  const bool rotated = attention::kRope == 0;
  const std::uint64_t keys = (rotated ? a.rotated : a.qkv).address() + query_bytes;
  const std::int64_t key_stride = rotated ? rotated_heads() * attention::kHeadDim : shape_.qkv_width;
  model_.append(books_of(layer), cache_of(layer), run_.batch, run_.new_tokens, keys, key_stride,
                a.qkv.address() + query_bytes + key_bytes, shape_.qkv_width, stream);
}

void Layers::attend(int layer, void* stream) const {
  const Activations& a = activations_;
  const auto values = static_cast<std::uint64_t>(shape_.query_width + shape_.key_width) * kHalfBytes;
  if (run_.prefill) {
    kernels_.attend(a.rotated.address(), a.qkv.address() + values, shape_.qkv_width, a.attended.address(), run_.batch,
                    run_.new_tokens, attention::kQueryHeads, attention::kKeyHeads, attention::kHeadDim, stream);
    return;
  }
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(attention::kHeadDim)));
  model_.attend(books_of(layer), cache_of(layer), run_.batch, a.rotated.address(), rotated_heads() * attention::kHeadDim,
                a.attended.address(), scale, attention_workspace_.address(), stream);
}

BookArrays Layers::books_of(int layer) const {
  const PackedBooks& books = weights(layer).books;
  return {books.key_books.address(),        books.value_books.address(), books.append_key_books.address(),
          books.append_value_books.address(), books.book_facts.address(),
          attention::kRope == 0 ? 0 : turn_steps_.address()};
}

CacheArrays Layers::cache_of(int layer) const {
  const LayerCache& own = cache(layer);
  return table_.arrays(own.pages.address(), own.key_window.address(), own.value_window.address());
}

void Layers::fill(int tokens, const Stream& stream) {
  constexpr int most = 1024;     // new tokens of a launch
  constexpr int distinct = 61;   // places in the drawn tokens where a launch's may begin
  const int key_width = shape_.key_width;
  const int drawn = std::min(most, tokens) + distinct;
  Random random(23);
  const auto draw = [&] {
    return Buffer(random.halves(static_cast<std::size_t>(run_.batch) * static_cast<std::size_t>(drawn) *
                                    static_cast<std::size_t>(key_width), 1.0));
  };
  const Buffer keys = draw(), values = draw();
  for (int held = 0; held < tokens;) {
    const int count = std::min(most, tokens - held);
    table_.set_length(held + count);
    // The sequences' tokens follow one another, `count` of each: they overlap in what was drawn, and differ all the same.
    const auto first = static_cast<std::uint64_t>(held / most * 7 % distinct);
    const std::uint64_t start = first * static_cast<std::uint64_t>(key_width) * kHalfBytes;
    model_.append(books_of(0), cache_of(0), run_.batch, count, keys.address() + start, key_width, values.address() + start,
                  key_width, stream.get());
    stream.synchronize();  // lengths are written next
    held += count;
  }
  for (int layer = 1; layer < count(); ++layer) cache(layer).copy(cache(0));
  table_.set_length(tokens + run_.new_tokens);
}

std::size_t layer_bytes(const CacheTable& table) {
  auto bytes = static_cast<std::int64_t>(table.page_count() * table.page_bytes());
  bytes += 2 * static_cast<std::int64_t>(table.window_bytes());
  for (const Linear each : kLinears) {
    const LinearFacts facts = Model::facts(each);
    bytes += facts.codes_bytes + facts.books_bytes + facts.scales_bytes + facts.stage_scales_bytes;
  }
  bytes += attention::kKeyBooksBytes + attention::kValueBooksBytes + attention::kAppendKeyBooksBytes +
           attention::kAppendValueBooksBytes + attention::kBookFactsBytes;
  return static_cast<std::size_t>(bytes);
}

std::size_t bytes_read(const Layers& layers, int context) {
  std::size_t bytes = 0;
  for (const Linear each : kLinears) bytes += layers.weights(0).of(each).bytes();
  if (layers.run().prefill) return bytes;
  return bytes + layers.weights(0).books.read_bytes() + cache_bytes_read(layers.run().batch, context);
}

}  // namespace engine
