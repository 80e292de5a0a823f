/* Packed weights, as `vqcc pack` writes them, read where they lie (docs/packed-layout.md): an engine needs no Python.
 *
 * C99 and C++17. Nothing here allocates, prints, exits or keeps state. Files are mapped by POSIX functions: with
 * VQCC_WEIGHTS_NO_FILES defined there are none of these, and a file that is in memory is given to vqcc_weights_check.
 *
 *   vqcc_weights weights;
 *   vqcc_weight weight;
 *   vqcc_weights_status status = vqcc_weights_open("packed.safetensors", &weights);
 *   if (status == VQCC_WEIGHTS_OK) {
 *     status = vqcc_weights_find(&weights, "model.layers.0.mlp.up_proj.weight", P_LAYOUT_ID, P_CODES_BYTES,
 *                                P_BOOKS_BYTES, &weight);
 *   }
 *   ... copy weight.codes, weight.books, weight.stage_scales and weight.scales to the device ...
 *   vqcc_weights_close(&weights);
 *
 * A file is checked before anything of it is given out, and nothing outside of it is ever read, whatever its bytes are:
 * its header, its tensors' descriptions, types, shapes and places of arrays, and codes in buckets, which could lead a
 * kernel astray. Other values (codes, books, scales) are not: damaged ones give wrong numbers. What is refused is at least
 * what vqcc refuses. Time is a few passes over the header, and over codes in
 * buckets; a header made for it can take time quadratic in its length, which VQCC_WEIGHTS_MOST_HEADER_BYTES bounds.
 */
#ifndef VQCC_WEIGHTS_H_
#define VQCC_WEIGHTS_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "json.h"
#include "packed_file.h"
#include "weight_description.h"
#ifndef VQCC_WEIGHTS_NO_FILES
#include "mapped_file.h"
#endif

#ifndef VQCC_WEIGHTS_MOST_HEADER_BYTES
#define VQCC_WEIGHTS_MOST_HEADER_BYTES 100000000 /* the format's own limit */
#endif

/* What they mean is in packed_file.h. */
typedef enum vqcc_weights_status {
  VQCC_WEIGHTS_OK = VQCC_PACKED_OK,
  VQCC_WEIGHTS_ERROR_NULL_POINTER = VQCC_PACKED_ERROR_NULL_POINTER,
  VQCC_WEIGHTS_ERROR_FILE = VQCC_PACKED_ERROR_FILE,
  VQCC_WEIGHTS_ERROR_TRUNCATED = VQCC_PACKED_ERROR_TRUNCATED,
  VQCC_WEIGHTS_ERROR_HEADER_BYTES = VQCC_PACKED_ERROR_HEADER_BYTES,
  VQCC_WEIGHTS_ERROR_JSON = VQCC_PACKED_ERROR_JSON,
  VQCC_WEIGHTS_ERROR_NESTING = VQCC_PACKED_ERROR_NESTING,
  VQCC_WEIGHTS_ERROR_DUPLICATE = VQCC_PACKED_ERROR_DUPLICATE,
  VQCC_WEIGHTS_ERROR_ENTRY = VQCC_PACKED_ERROR_ENTRY,
  VQCC_WEIGHTS_ERROR_DTYPE = VQCC_PACKED_ERROR_DTYPE,
  VQCC_WEIGHTS_ERROR_EXTENT = VQCC_PACKED_ERROR_EXTENT,
  VQCC_WEIGHTS_ERROR_PLACES = VQCC_PACKED_ERROR_PLACES,
  VQCC_WEIGHTS_ERROR_NOT_PACKED = VQCC_PACKED_ERROR_NOT_PACKED,
  VQCC_WEIGHTS_ERROR_DESCRIPTION = VQCC_PACKED_ERROR_DESCRIPTION,
  VQCC_WEIGHTS_ERROR_IDENTITY = VQCC_PACKED_ERROR_IDENTITY,
  VQCC_WEIGHTS_ERROR_ARRAY = VQCC_PACKED_ERROR_ARRAY,
  VQCC_WEIGHTS_ERROR_CODES = VQCC_PACKED_ERROR_CODES,
  VQCC_WEIGHTS_ERROR_NAME = VQCC_PACKED_ERROR_NAME,
  VQCC_WEIGHTS_ERROR_LAYOUT = VQCC_PACKED_ERROR_LAYOUT,
  VQCC_WEIGHTS_ERROR_BYTES = VQCC_PACKED_ERROR_BYTES,
  VQCC_WEIGHTS_ERROR_KIND = VQCC_PACKED_ERROR_KIND
} vqcc_weights_status;

static inline const char* vqcc_weights_status_string(vqcc_weights_status status) {
  switch (status) {
    case VQCC_WEIGHTS_ERROR_NOT_PACKED: return "the file holds no packed weights";
    case VQCC_WEIGHTS_ERROR_DESCRIPTION: return "a tensor is described in a way that is not known";
    case VQCC_WEIGHTS_ERROR_IDENTITY: return "a tensor's layout id is not that of its algorithm, shape and layout";
    case VQCC_WEIGHTS_ERROR_CODES: return "codes in buckets are damaged";
    case VQCC_WEIGHTS_ERROR_NAME: return "the file has no such tensor";
    case VQCC_WEIGHTS_ERROR_LAYOUT: return "the tensor was packed for another layout";
    case VQCC_WEIGHTS_ERROR_BYTES: return "codes or books have another size than the library's";
    case VQCC_WEIGHTS_ERROR_KIND: return "the file holds books of a KV cache, which vqcc/books.h reads";
    default: return vqcc_packed_status_string((vqcc_packed_status)status);
  }
}

/* A file whose header has been checked. Plain data, which no function but open, check and close changes: any number of
 * threads may look things up in it. The bytes stay the caller's, or those of the mapping, and must not change. */
typedef struct vqcc_weights {
  const uint8_t* data;
  size_t bytes;
  size_t count; /* tensors that it holds */
  size_t where; /* after an error: the byte of the file where it was found */
  vqcc_packed_file file;
  int mapped;
} vqcc_weights;

typedef vqcc_packed_array vqcc_weights_array;

/* One tensor [n, k]. */
typedef struct vqcc_weight {
  int64_t n, k;
  vqcc_weights_array codes, books, stage_scales, scales;
  char layout_id[13];
  int32_t by_frequency; /* whether its entries are in the order `frequency` */
  size_t where;         /* as that of vqcc_weights */
  size_t name;          /* places in the file: its name, what follows its description, entries of its arrays */
  size_t next;
  size_t entries[VQCC_WEIGHT_ARRAYS];
} vqcc_weight;

static inline vqcc_weights_status vqcc_weights_fail(size_t* where, size_t at, vqcc_weights_status status) {
  *where = at;
  return status;
}

/* Reads a tensor: `name` is behind the opening quote of its key in `vqcc.packed`, `described` the value. */
static inline vqcc_weights_status vqcc_weights_read(const vqcc_weights* weights, vqcc_json name, vqcc_json described,
                                                    vqcc_weight* weight, vqcc_weight_description* description) {
  static const char endings[VQCC_WEIGHT_ARRAYS][14] = {".codes", ".books", ".stage_scales", ".scales"};
  vqcc_packed_array* const arrays[VQCC_WEIGHT_ARRAYS] = {&weight->codes, &weight->books, &weight->stage_scales,
                                                         &weight->scales};
  weight->where = described.at;
  vqcc_packed_status status = vqcc_packed_described(vqcc_weight_description_read(described, description));
  if (status != VQCC_PACKED_OK) return (vqcc_weights_status)status;
  weight->n = (int64_t)description->n;
  weight->k = (int64_t)description->k;
  weight->by_frequency = description->by_frequency;
  memcpy(weight->layout_id, description->layout_id, sizeof weight->layout_id);
  weight->name = name.at;
  for (int i = 0; i < VQCC_WEIGHT_ARRAYS && status == VQCC_PACKED_OK; ++i) {
    status = vqcc_packed_read_array(&weights->file, name, endings[i], &description->forms[i], &weight->entries[i],
                                    arrays[i], &weight->where);
  }
  return (vqcc_weights_status)status;
}

/* Reads every tensor. */
static inline vqcc_weights_status vqcc_weights_check_tensors(vqcc_weights* weights) {
  vqcc_json packed = vqcc_packed_descriptions(&weights->file), name, described;
  vqcc_weight weight;
  vqcc_weight_description description;
  memset(&weight, 0, sizeof weight);
  for (; vqcc_json_member(&packed, &name, &described); ++weights->count) {
    if (!vqcc_packed_is_name(name)) {
      return vqcc_weights_fail(&weights->where, name.at, VQCC_WEIGHTS_ERROR_DESCRIPTION);
    }
    vqcc_weights_status status = vqcc_weights_read(weights, name, described, &weight, &description);
    vqcc_json heads; /* what only books have */
    if (status == VQCC_WEIGHTS_ERROR_DESCRIPTION && vqcc_json_field(described, "kv_heads", &heads)) {
      status = VQCC_WEIGHTS_ERROR_KIND;
    }
    if (status != VQCC_WEIGHTS_OK) return vqcc_weights_fail(&weights->where, weight.where, status);
    const uint8_t* codes = (const uint8_t*)weight.codes.data;
    if (description.in_buckets && !vqcc_buckets_check(&description, codes, weight.codes.bytes)) {
      return vqcc_weights_fail(&weights->where, (size_t)(codes - weights->data), VQCC_WEIGHTS_ERROR_CODES);
    }
  }
  return VQCC_WEIGHTS_OK;
}

/* Checks a file that is in memory, where it stays until its weights are no longer used. On failure `weights` holds
 * nothing but `where`. */
static inline vqcc_weights_status vqcc_weights_check(const void* data, size_t bytes, vqcc_weights* weights) {
  if (weights == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  memset(weights, 0, sizeof *weights);
  vqcc_weights_status status =
      (vqcc_weights_status)vqcc_packed_check(data, bytes, VQCC_WEIGHTS_MOST_HEADER_BYTES, &weights->file);
  weights->data = weights->file.data;
  weights->bytes = weights->file.bytes;
  weights->where = weights->file.where;
  if (status == VQCC_WEIGHTS_OK) status = vqcc_weights_check_tensors(weights);
  if (status == VQCC_WEIGHTS_OK) return status;
  const size_t where = weights->where;
  memset(weights, 0, sizeof *weights);
  return vqcc_weights_fail(&weights->where, where, status);
}

/* Finds a tensor by its name, UTF-8, for a library: pass its P_LAYOUT_ID, P_CODES_BYTES and P_BOOKS_BYTES. A null id and
 * sizes of 0 (there is no P_CODES_BYTES for codes in buckets) are not checked. On failure `weight` holds nothing but
 * `where`. */
static inline vqcc_weights_status vqcc_weights_find(const vqcc_weights* weights, const char* name,
                                                    const char* layout_id, int64_t codes_bytes, int64_t books_bytes,
                                                    vqcc_weight* weight) {
  if (weight == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  memset(weight, 0, sizeof *weight);
  if (weights == NULL || weights->data == NULL || name == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  vqcc_json key, described;
  vqcc_weight_description description;
  vqcc_weights_status status = VQCC_WEIGHTS_ERROR_NAME;
  weight->where = weights->file.packed;
  if (vqcc_packed_find(&weights->file, name, &key, &described, &weight->next)) {
    status = vqcc_weights_read(weights, key, described, weight, &description);
  }
  if (status == VQCC_WEIGHTS_OK && layout_id != NULL && strcmp(weight->layout_id, layout_id) != 0) {
    status = VQCC_WEIGHTS_ERROR_LAYOUT;
  }
  if (status == VQCC_WEIGHTS_OK && ((codes_bytes != 0 && (uint64_t)codes_bytes != weight->codes.bytes) ||
                                    (books_bytes != 0 && (uint64_t)books_bytes != weight->books.bytes))) {
    status = VQCC_WEIGHTS_ERROR_BYTES;
  }
  if (status == VQCC_WEIGHTS_OK) return status;
  const size_t where = weight->where;
  memset(weight, 0, sizeof *weight);
  return vqcc_weights_fail(&weight->where, where, status);
}

/* Goes from a tensor to the one that follows it in the file; from a zeroed `weight` to the first. There are
 * weights->count. To load all tensors of a large file this is the way: vqcc_weights_find looks through its header
 * anew. */
static inline vqcc_weights_status vqcc_weights_next(const vqcc_weights* weights, vqcc_weight* weight) {
  if (weights == NULL || weights->data == NULL || weight == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  vqcc_json name, described;
  vqcc_weight_description description;
  if (!vqcc_packed_next(&weights->file, &weight->next, &name, &described)) return VQCC_WEIGHTS_ERROR_NAME;
  return vqcc_weights_read(weights, name, described, weight, &description);
}

/* Copies a tensor's name, UTF-8, with a 0 behind it, cut if it needs more than `capacity` bytes. Returns its length. */
static inline size_t vqcc_weights_name(const vqcc_weights* weights, const vqcc_weight* weight, char* name,
                                       size_t capacity) {
  return vqcc_packed_name(&weights->file, weight->name, name, capacity);
}

#ifndef VQCC_WEIGHTS_NO_FILES
/* Releases the mapping, and with it all that was found in it. Twice is harmless. */
static inline void vqcc_weights_close(vqcc_weights* weights) {
  if (weights == NULL) return;
  if (weights->mapped) vqcc_unmap_file(weights->data, weights->bytes);
  memset(weights, 0, sizeof *weights);
}

/* Maps a file, to be read only, and checks it. On failure nothing stays open, and `weights` holds nothing but `where`.
 * Who makes a mapped file shorter makes its readers fail: replace files, as vqcc does, instead of writing into them. */
static inline vqcc_weights_status vqcc_weights_open(const char* path, vqcc_weights* weights) {
  const void* data;
  size_t bytes;
  if (weights == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  memset(weights, 0, sizeof *weights);
  if (path == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  const vqcc_packed_status mapped = vqcc_map_file(path, &data, &bytes);
  if (mapped != VQCC_PACKED_OK) return (vqcc_weights_status)mapped;
  const vqcc_weights_status status = vqcc_weights_check(data, bytes, weights);
  weights->mapped = status == VQCC_WEIGHTS_OK;
  if (status != VQCC_WEIGHTS_OK) vqcc_unmap_file(data, bytes);
  return status;
}
#endif

#endif /* VQCC_WEIGHTS_H_ */
