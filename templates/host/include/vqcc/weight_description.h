/* What a packed file says of a weight, and the arrays that its kernels then read (docs/packed-layout.md).
 *
 * Layouts are those of vqcc/code_layouts.py, algorithms those of vqcc/algorithms: what is not known here is refused.
 */
#ifndef VQCC_WEIGHT_DESCRIPTION_H_
#define VQCC_WEIGHT_DESCRIPTION_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "description.h"

enum { VQCC_WEIGHT_CODES, VQCC_WEIGHT_BOOKS, VQCC_WEIGHT_STAGE_SCALES, VQCC_WEIGHT_SCALES, VQCC_WEIGHT_ARRAYS };

typedef struct vqcc_weight_description {
  uint64_t n, k;
  char layout_id[13];
  int by_frequency;
  int in_buckets;
  vqcc_json layout;
  vqcc_array_form forms[VQCC_WEIGHT_ARRAYS];
} vqcc_weight_description;

static inline int vqcc_weight_description_codes(vqcc_json layout, vqcc_weight_description* tensor) {
  const uint64_t most = VQCC_DESCRIPTION_MOST, vectors = vqcc_description_number(layout, "vectors", most);
  vqcc_array_form* codes = &tensor->forms[VQCC_WEIGHT_CODES];
  vqcc_json kind;
  if (!vqcc_json_string_field(layout, "kind", &kind) || vectors == 0) return 0;
  if (vqcc_json_is(kind, "chunked")) {
    const uint64_t chunk = vqcc_description_number(layout, "chunk_vectors", most);
    const uint64_t words = vqcc_description_number(layout, "chunk_words", most);
    if (chunk == 0 || words == 0) return 0;
    *codes = vqcc_form("U32", 2, tensor->n, vqcc_quotient(vectors, chunk) * words, 0);
  } else if (vqcc_json_is(kind, "rotated")) {
    const uint64_t panels = vqcc_description_number(layout, "panels", most);
    const uint64_t bits = vqcc_description_number(layout, "code_bits", 12);
    if (panels == 0 || (bits != 8 && bits != 12)) return 0;
    *codes = vqcc_form("U32", 3, panels, vqcc_quotient(tensor->n, 32), bits == 8 ? 512 : 192);
  } else if (vqcc_json_is(kind, "fragment")) {
    const uint64_t span = vqcc_description_number(layout, "span_vectors", most);
    const uint64_t step = vqcc_description_number(layout, "step_vectors", most);
    const uint64_t words = vqcc_description_number(layout, "step_words", most);
    if (span == 0 || step == 0 || words == 0) return 0;
    const uint64_t steps = vqcc_quotient(vqcc_quotient(vectors, 4 * span) * span, step);
    *codes = vqcc_form("U32", 3, steps, vqcc_quotient(tensor->n, 64) * 2, words * 128);
  } else {
    tensor->in_buckets = vqcc_json_is(kind, "bucket");
    *codes = vqcc_form("U32", 1, 0, 0, 0);
    return tensor->in_buckets;
  }
  return 1;
}

/* Books of codebooks that were learnt; of int8, with a scale for each stage. */
static inline int vqcc_weight_description_learnt_books(vqcc_json algorithm, uint64_t stages,
                                                       vqcc_weight_description* tensor) {
  const uint64_t most = VQCC_DESCRIPTION_MOST;
  const uint64_t size = vqcc_description_number(algorithm, "vector_size", 16);
  const uint64_t entries = vqcc_description_number(algorithm, "entries", 65536);
  uint64_t books = 1, elements = 1;
  vqcc_json type, scope;
  if (size == 0 || entries == 0 || !vqcc_json_string_field(algorithm, "codebook_dtype", &type)) return 0;
  const int is_int8 = vqcc_json_is(type, "int8");
  if (!is_int8 && !vqcc_json_is(type, "float16") && !vqcc_json_is(type, "bfloat16")) return 0;
  if (!vqcc_json_field(algorithm, "scope", &scope)) return 0;
  if (vqcc_json_peek(&scope) == '{') {
    const uint64_t rows = vqcc_description_number(scope, "rows", most);
    const uint64_t columns = vqcc_description_number(scope, "cols", most);
    if (rows == 0 || columns == 0) return 0;
    books = vqcc_quotient(tensor->n, rows) * vqcc_quotient(tensor->k, columns);
  } else if (!vqcc_json_accept(&scope, '"') || !vqcc_json_is(scope, "tensor")) {
    return 0; /* other scopes are those of a KV cache */
  }
  while (elements < size) elements *= 2;
  const uint64_t bytes = stages * entries * elements * (is_int8 ? 1 : 2);
  tensor->forms[VQCC_WEIGHT_BOOKS] = vqcc_form("U8", 2, books, vqcc_quotient(bytes, 16) * 16, 0);
  if (is_int8) tensor->forms[VQCC_WEIGHT_STAGE_SCALES] = vqcc_form("F32", 2, books, stages, 0);
  return 1;
}

static inline int vqcc_weight_description_scales(vqcc_json algorithm, vqcc_weight_description* tensor) {
  vqcc_array_form* form = &tensor->forms[VQCC_WEIGHT_SCALES];
  vqcc_json scales;
  if (!vqcc_json_field(algorithm, "scales", &scales)) return 0;
  if (vqcc_json_peek(&scales) == '{') {
    const uint64_t group = vqcc_description_number(scales, "group", VQCC_DESCRIPTION_MOST);
    if (group != 0) *form = vqcc_form("F16", 2, tensor->n, vqcc_quotient(tensor->k, group), 0);
    return group != 0;
  }
  if (!vqcc_json_accept(&scales, '"')) return 0;
  if (vqcc_json_is(scales, "none")) return 1;
  *form = vqcc_form("F32", 1, vqcc_json_is(scales, "row") ? tensor->n : 1, 0, 0);
  return vqcc_json_is(scales, "row") || vqcc_json_is(scales, "tensor");
}

static inline int vqcc_weight_description_algorithm(vqcc_json algorithm, vqcc_weight_description* tensor) {
  const uint64_t stages = vqcc_description_number(algorithm, "residuals", 8);
  vqcc_json family;
  if (stages == 0 || !vqcc_json_string_field(algorithm, "family", &family)) return 0;
  if (vqcc_json_is(family, "e8p")) {
    tensor->forms[VQCC_WEIGHT_BOOKS] = vqcc_form("U8", 2, 1, 2048, 0);
  } else if (!vqcc_json_is(family, "kmeans") || !vqcc_weight_description_learnt_books(algorithm, stages, tensor)) {
    return 0;
  }
  return vqcc_weight_description_scales(algorithm, tensor);
}

/* Reads a description. That its id is the one that vqcc gives to what it says is why kernels with this id can rely on
 * arrays of these forms. */
static inline vqcc_description_error vqcc_weight_description_read(vqcc_json described,
                                                                  vqcc_weight_description* tensor) {
  vqcc_json agreed[3], id, order;
  uint64_t shape[2];
  memset(tensor, 0, sizeof *tensor);
  if (!vqcc_json_field(described, "algorithm", &agreed[0]) || !vqcc_json_field(described, "shape", &agreed[1]) ||
      !vqcc_json_field(described, "layout", &agreed[2]) || !vqcc_json_string_field(described, "layout_id", &id) ||
      !vqcc_json_string_field(described, "order", &order) || vqcc_json_naturals(agreed[1], shape, 2) != 2) {
    return VQCC_DESCRIPTION_UNKNOWN;
  }
  for (int i = 0; i < 2; ++i) {
    if (shape[i] == 0 || shape[i] > VQCC_DESCRIPTION_MOST) return VQCC_DESCRIPTION_UNKNOWN;
  }
  tensor->n = shape[0];
  tensor->k = shape[1];
  tensor->layout = agreed[2];
  tensor->by_frequency = vqcc_json_is(order, "frequency");
  if ((!tensor->by_frequency && !vqcc_json_is(order, "identity")) ||
      !vqcc_weight_description_algorithm(agreed[0], tensor) || !vqcc_weight_description_codes(agreed[2], tensor)) {
    return VQCC_DESCRIPTION_UNKNOWN;
  }
  if (!vqcc_description_identity(agreed, 3, tensor->layout_id) || !vqcc_json_is(id, tensor->layout_id)) {
    return VQCC_DESCRIPTION_IDENTITY;
  }
  return VQCC_DESCRIPTION_OK;
}

static inline uint32_t vqcc_word(const uint8_t* codes, uint64_t index) {
  const uint8_t* bytes = codes + 4 * index;
  return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Whether the units of each block of 256 rows name each row once, a byte for each. */
static inline int vqcc_buckets_rows(const uint8_t* rows, uint64_t blocks) {
  for (uint64_t block = 0; block < blocks; ++block, rows += 256) {
    uint8_t seen[256] = {0};
    for (int i = 0; i < 256; ++i) {
      if (seen[rows[i]]++ != 0) return 0;
    }
  }
  return 1;
}

/* Whether each slot of a chunk of 96 words names an entry of its part, and one of the panel's vectors or none. */
static inline int vqcc_buckets_chunk(const uint8_t* chunk, uint64_t entries, uint64_t vectors, uint64_t none) {
  for (uint64_t lane = 0; lane < 32; ++lane) {
    const uint64_t low = vqcc_word(chunk, lane) | (uint64_t)vqcc_word(chunk, 32 + lane) << 32;
    const uint64_t high = vqcc_word(chunk, 32 + lane) >> 16 | (uint64_t)vqcc_word(chunk, 64 + lane) << 16;
    const uint64_t slots[4] = {low, low >> 24, high, high >> 24};
    for (int i = 0; i < 4; ++i) {
      const uint64_t vector = slots[i] >> 13 & 0x7ff;
      if ((vector >= vectors && vector != none) || (slots[i] & 0x1fff) >= entries) return 0;
    }
  }
  return 1;
}

/* Codes in buckets lead kernels from one to the next: whether all that they name is there (vqcc/tensors/buckets.py). */
static inline int vqcc_buckets_check(const vqcc_weight_description* tensor, const uint8_t* codes, size_t bytes) {
  const uint64_t most = VQCC_DESCRIPTION_MOST, words = bytes / 4;
  const uint64_t vectors = vqcc_description_number(tensor->layout, "vectors", most);
  const uint64_t stages = vqcc_description_number(tensor->layout, "residuals", 8);
  const uint64_t bits = vqcc_description_number(tensor->layout, "code_bits", 16);
  const uint64_t entries = vqcc_description_number(tensor->layout, "part_entries", most);
  const uint64_t panel = vqcc_description_number(tensor->layout, "panel_vectors", most);
  if (stages == 0 || bits == 0 || entries == 0 || panel == 0) return 0;
  const uint64_t panels = vqcc_quotient(vectors, panel), parts = stages * ((UINT64_C(1) << bits) / entries);
  const uint64_t units = vqcc_product(panels * parts, vqcc_quotient(tensor->n, 256) * 8);
  if (units == 0 || units >= words) return 0; /* so no sum below is too large */
  const uint64_t rows = vqcc_quotient(units + 1, 4) * 4, first = rows + units * 8;
  if (first > words || vqcc_word(codes, 0) != 0) return 0;
  for (uint64_t unit = 0; unit < units; ++unit) {
    if (vqcc_word(codes, unit) > vqcc_word(codes, unit + 1)) return 0;
  }
  const uint64_t chunks = vqcc_word(codes, units), of_last_panel = vqcc_word(codes, units - units / panels);
  if (first + chunks * 96 != words || !vqcc_buckets_rows(codes + 4 * rows, units / 8)) return 0;
  for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
    const uint64_t there = chunk < of_last_panel ? panel : vectors - (panels - 1) * panel;
    if (!vqcc_buckets_chunk(codes + 4 * (first + chunk * 96), entries, there, panel)) return 0;
  }
  return 1;
}

#endif /* VQCC_WEIGHT_DESCRIPTION_H_ */
