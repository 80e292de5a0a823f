/* What a packed file says of the codebooks of a KV cache, and the arrays that kernels then read
 * (docs/packed-layout.md).
 *
 * Algorithms are those of vqcc/algorithms that a cache may have, forms those of vqcc/book_shapes.py.
 */
#ifndef VQCC_BOOK_DESCRIPTION_H_
#define VQCC_BOOK_DESCRIPTION_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "description.h"
#include "json.h"

enum {
  VQCC_BOOK_KEYS,
  VQCC_BOOK_VALUES,
  VQCC_BOOK_APPEND_KEYS,
  VQCC_BOOK_APPEND_VALUES,
  VQCC_BOOK_FACTS,
  VQCC_BOOK_ROTATIONS,
  VQCC_BOOK_ARRAYS
};

typedef struct vqcc_book_description {
  uint64_t kv_heads, head_dim;
  char layout_id[13];
  int by_rows;
  int rotates;
  vqcc_array_form forms[VQCC_BOOK_ARRAYS];
} vqcc_book_description;

/* Codebooks of keys or of values. */
typedef struct vqcc_book_side {
  uint64_t heads;  /* that have their own: all, or 1 */
  uint64_t groups; /* channel groups of a head, each a vector */
  uint64_t entry_bytes;
  vqcc_array_form by_entries;
} vqcc_book_side;

static inline int vqcc_book_side_read(vqcc_json algorithm, uint64_t kv_heads, uint64_t head_dim, vqcc_book_side* side) {
  const uint64_t size = vqcc_description_number(algorithm, "vector_size", 16);
  const uint64_t entries = vqcc_description_number(algorithm, "entries", 65536);
  const uint64_t stages = vqcc_description_number(algorithm, "residuals", 8);
  uint64_t elements = 1, of_head = 1;
  vqcc_json family, type, scales, scope;
  if (size == 0 || entries == 0 || stages == 0 || head_dim % size != 0) return 0;
  if (!vqcc_json_string_field(algorithm, "family", &family) || !vqcc_json_is(family, "kmeans")) return 0;
  if (!vqcc_json_string_field(algorithm, "codebook_dtype", &type) ||
      (!vqcc_json_is(type, "float16") && !vqcc_json_is(type, "bfloat16"))) {
    return 0;
  }
  if (!vqcc_json_string_field(algorithm, "scales", &scales) || !vqcc_json_is(scales, "none")) return 0;
  if (!vqcc_json_field(algorithm, "scope", &scope)) return 0;
  side->heads = kv_heads;
  side->groups = head_dim / size;
  side->entry_bytes = 2 * size;
  if (vqcc_json_peek(&scope) == '{') {
    if (vqcc_description_number(scope, "channels", 16) != size) return 0;
    if (vqcc_description_number(scope, "kv_heads", 1) != 1) return 0;
    of_head = side->groups;
  } else if (!vqcc_json_accept(&scope, '"')) {
    return 0;
  } else if (vqcc_json_is(scope, "layer")) {
    side->heads = 1;
  } else if (!vqcc_json_is(scope, "kv_head")) {
    return 0; /* other scopes are those of weights */
  }
  while (elements < size) elements *= 2;
  const uint64_t bytes = stages * entries * elements * 2;
  side->by_entries = vqcc_form("U8", 2, side->heads * of_head, vqcc_quotient(bytes, 16) * 16, 0);
  return 1;
}

/* Tables of 256 rows of 256 bytes for so many heads: a row has an entry of each of some channel groups, of as many as a
 * warp has lanes, or fewer, several times over where there is room. */
static inline vqcc_array_form vqcc_book_rows(const vqcc_book_side* side, uint64_t heads) {
  const uint64_t held = 256 / side->entry_bytes;
  uint64_t team = held < 32 ? held : 32, copies;
  if (side->groups < team) team = side->groups;
  copies = held / team < 32 / team ? held / team : 32 / team;
  const uint64_t groups = held / (copies * team) * team; /* of a table */
  vqcc_array_form form = vqcc_form("U8", 4, heads, vqcc_quotient(side->groups, groups), 256);
  form.shape[3] = 256;
  return form;
}

static inline int vqcc_book_description_forms(vqcc_json keys, vqcc_json values, vqcc_book_description* books) {
  vqcc_book_side key, value;
  if (!vqcc_book_side_read(keys, books->kv_heads, books->head_dim, &key) ||
      !vqcc_book_side_read(values, books->kv_heads, books->head_dim, &value)) {
    return 0;
  }
  books->forms[VQCC_BOOK_KEYS] = books->forms[VQCC_BOOK_APPEND_KEYS] = key.by_entries;
  books->forms[VQCC_BOOK_VALUES] = books->forms[VQCC_BOOK_APPEND_VALUES] = value.by_entries;
  if (books->by_rows) { /* both sides have tables for each head if one has codebooks for each */
    const uint64_t heads = key.heads > value.heads ? key.heads : value.heads;
    books->forms[VQCC_BOOK_KEYS] = vqcc_book_rows(&key, heads);
    books->forms[VQCC_BOOK_VALUES] = vqcc_book_rows(&value, heads);
    books->forms[VQCC_BOOK_FACTS] = vqcc_form("F32", 2, heads, 2, 0);
  }
  if (books->rotates) books->forms[VQCC_BOOK_ROTATIONS] = vqcc_form("U64", 1, books->head_dim / 2, 0, 0);
  return 1;
}

/* How keys are rotated: a list of a word, and of numbers unless the word is `none`. */
static inline int vqcc_book_description_rope(vqcc_json list, vqcc_book_description* books) {
  vqcc_json word;
  if (vqcc_json_peek(&list) != '[' || !vqcc_json_item(&list, &word) || !vqcc_json_accept(&word, '"')) return 0;
  books->rotates = vqcc_json_is(word, "half") || vqcc_json_is(word, "interleaved");
  return books->rotates || vqcc_json_is(word, "none");
}

/* The algorithms of keys and of values, and nothing beside them. */
static inline int vqcc_book_description_sides(vqcc_json algorithm, vqcc_json* keys, vqcc_json* values) {
  vqcc_json key, value;
  int others = 0;
  if (!vqcc_json_field(algorithm, "key", keys) || !vqcc_json_field(algorithm, "value", values)) return 0;
  while (vqcc_json_member(&algorithm, &key, &value)) others += value.at != keys->at && value.at != values->at;
  return others == 0;
}

/* Reads a description. That its id is the one that vqcc gives to what it says is why kernels with this id can rely on
 * arrays of these forms. */
static inline vqcc_description_error vqcc_book_description_read(vqcc_json described, vqcc_book_description* books) {
  vqcc_json algorithm, id, agreed[5];
  const uint64_t most = VQCC_DESCRIPTION_MOST;
  memset(books, 0, sizeof *books);
  if (!vqcc_json_field(described, "algorithm", &algorithm) ||
      !vqcc_book_description_sides(algorithm, &agreed[0], &agreed[1]) ||
      !vqcc_json_field(described, "layout", &agreed[2]) || !vqcc_json_field(described, "by_rows", &agreed[3]) ||
      !vqcc_json_field(described, "rope", &agreed[4]) || !vqcc_json_string_field(described, "layout_id", &id)) {
    return VQCC_DESCRIPTION_UNKNOWN;
  }
  books->kv_heads = vqcc_description_number(described, "kv_heads", most);
  books->head_dim = vqcc_description_number(described, "head_dim", most);
  books->by_rows = vqcc_json_peek(&agreed[3]) == 't';
  if (books->kv_heads == 0 || books->head_dim == 0 || (!books->by_rows && vqcc_json_peek(&agreed[3]) != 'f') ||
      !vqcc_book_description_rope(agreed[4], books) || !vqcc_book_description_forms(agreed[0], agreed[1], books)) {
    return VQCC_DESCRIPTION_UNKNOWN;
  }
  if (vqcc_description_number(agreed[2], "heads", most) != books->kv_heads ||
      vqcc_description_number(agreed[2], "head_dim", most) != books->head_dim ||
      !vqcc_description_identity(agreed, 5, books->layout_id) || !vqcc_json_is(id, books->layout_id)) {
    return VQCC_DESCRIPTION_IDENTITY;
  }
  return VQCC_DESCRIPTION_OK;
}

#endif /* VQCC_BOOK_DESCRIPTION_H_ */
