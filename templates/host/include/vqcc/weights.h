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
 * A file is checked in full before anything of it is given out, and nothing outside of it is ever read, whatever its
 * bytes are. What is refused is at least what vqcc refuses. Time is a few passes over the header, and over codes in
 * buckets; a header made for it can take time quadratic in its length, which VQCC_WEIGHTS_MOST_HEADER_BYTES bounds.
 */
#ifndef VQCC_WEIGHTS_H_
#define VQCC_WEIGHTS_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef VQCC_WEIGHTS_NO_FILES
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "description.h"
#include "json.h"

#ifndef VQCC_WEIGHTS_MOST_HEADER_BYTES
#define VQCC_WEIGHTS_MOST_HEADER_BYTES 100000000 /* the format's own limit */
#endif

typedef enum vqcc_weights_status {
  VQCC_WEIGHTS_OK = 0,
  VQCC_WEIGHTS_ERROR_NULL_POINTER = 1, /* a required pointer is null, or the file is not open */
  VQCC_WEIGHTS_ERROR_FILE = 2,         /* it cannot be opened or mapped, or is no file: errno may say why */
  VQCC_WEIGHTS_ERROR_TRUNCATED = 3,    /* it ends before its header does */
  VQCC_WEIGHTS_ERROR_HEADER_BYTES = 4, /* a header of more bytes than are allowed */
  VQCC_WEIGHTS_ERROR_JSON = 5,         /* the header, or `vqcc.packed` in it, is not JSON in UTF-8 */
  VQCC_WEIGHTS_ERROR_NESTING = 6,      /* it is nested too deep */
  VQCC_WEIGHTS_ERROR_DUPLICATE = 7,    /* a key stands twice in it */
  VQCC_WEIGHTS_ERROR_ENTRY = 8,        /* an entry lacks type, shape or offsets, or has others than there are */
  VQCC_WEIGHTS_ERROR_DTYPE = 9,        /* an element type that is not known */
  VQCC_WEIGHTS_ERROR_EXTENT = 10,      /* offsets that are not as far apart as type and shape need */
  VQCC_WEIGHTS_ERROR_PLACES = 11,      /* arrays overlap, leave bytes out, or end past the file's end */
  VQCC_WEIGHTS_ERROR_NOT_PACKED = 12,  /* no packed weights: there is no `vqcc.packed`, or it is no object */
  VQCC_WEIGHTS_ERROR_DESCRIPTION = 13, /* a tensor's description is not one that this reader knows */
  VQCC_WEIGHTS_ERROR_IDENTITY = 14,    /* its layout_id is not that of its algorithm, shape and layout */
  VQCC_WEIGHTS_ERROR_ARRAY = 15,       /* an array is missing, or not of the type and shape that these give it */
  VQCC_WEIGHTS_ERROR_CODES = 16,       /* codes in buckets would lead a kernel past their end */
  VQCC_WEIGHTS_ERROR_NAME = 17,        /* no tensor of this name, or none that follows */
  VQCC_WEIGHTS_ERROR_LAYOUT = 18,      /* the tensor was packed for another layout than the library reads */
  VQCC_WEIGHTS_ERROR_BYTES = 19        /* its codes or books have another size than the library's */
} vqcc_weights_status;

static inline const char* vqcc_weights_status_string(vqcc_weights_status status) {
  switch (status) {
    case VQCC_WEIGHTS_OK: return "ok";
    case VQCC_WEIGHTS_ERROR_NULL_POINTER: return "a required pointer is null, or the file is not open";
    case VQCC_WEIGHTS_ERROR_FILE: return "the file cannot be read";
    case VQCC_WEIGHTS_ERROR_TRUNCATED: return "the file ends before its header does";
    case VQCC_WEIGHTS_ERROR_HEADER_BYTES: return "the header is too long";
    case VQCC_WEIGHTS_ERROR_JSON: return "the header is not JSON";
    case VQCC_WEIGHTS_ERROR_NESTING: return "the header is nested too deep";
    case VQCC_WEIGHTS_ERROR_DUPLICATE: return "a key stands twice in the header";
    case VQCC_WEIGHTS_ERROR_ENTRY: return "an entry of the header is malformed";
    case VQCC_WEIGHTS_ERROR_DTYPE: return "an element type is not known";
    case VQCC_WEIGHTS_ERROR_EXTENT: return "shape and size of an array disagree";
    case VQCC_WEIGHTS_ERROR_PLACES: return "arrays overlap, leave bytes out or end past the file's end";
    case VQCC_WEIGHTS_ERROR_NOT_PACKED: return "the file holds no packed weights";
    case VQCC_WEIGHTS_ERROR_DESCRIPTION: return "a tensor is described in a way that is not known";
    case VQCC_WEIGHTS_ERROR_IDENTITY: return "a tensor's layout id is not that of its algorithm, shape and layout";
    case VQCC_WEIGHTS_ERROR_ARRAY: return "an array is missing, or has another type or shape than it should";
    case VQCC_WEIGHTS_ERROR_CODES: return "codes in buckets are damaged";
    case VQCC_WEIGHTS_ERROR_NAME: return "the file has no such tensor";
    case VQCC_WEIGHTS_ERROR_LAYOUT: return "the tensor was packed for another layout";
    case VQCC_WEIGHTS_ERROR_BYTES: return "codes or books have another size than the library's";
  }
  return "unknown status";
}

/* A file whose header has been checked. Plain data, which no function but open, check and close changes: any number of
 * threads may look things up in it. The bytes stay the caller's, or those of the mapping, and must not change. */
typedef struct vqcc_weights {
  const uint8_t* data;
  size_t bytes;
  size_t count; /* tensors that it holds */
  size_t where; /* after an error: the byte of the file where it was found */
  size_t header_end;
  size_t packed, packed_end; /* the text of `vqcc.packed` */
  size_t entries;            /* what follows the metadata: entries of arrays, mostly all of them */
  int mapped;
} vqcc_weights;

/* An array as it lies in the file, at any alignment; null and 0 if the algorithm has none. */
typedef struct vqcc_weights_array {
  const void* data;
  size_t bytes;
} vqcc_weights_array;

/* One tensor [n, k]. */
typedef struct vqcc_weight {
  int64_t n, k;
  vqcc_weights_array codes, books, stage_scales, scales;
  char layout_id[13];
  int32_t by_frequency; /* whether its entries are in the order `frequency` */
  size_t where;         /* as that of vqcc_weights */
  size_t name;          /* places in the file: its name, what follows its description, entries of its arrays */
  size_t next;
  size_t entries[VQCC_ARRAYS];
} vqcc_weight;

/* An entry of the header; offsets are from the first byte behind the header. */
typedef struct vqcc_weights_entry {
  char dtype[5];
  int axes;
  uint64_t shape[32];
  uint64_t begin, end;
} vqcc_weights_entry;

static inline vqcc_weights_status vqcc_weights_fail(size_t* where, size_t at, vqcc_weights_status status) {
  *where = at;
  return status;
}

static inline vqcc_json vqcc_weights_header(const vqcc_weights* weights) {
  const vqcc_json header = {weights->data, 8, weights->header_end, 0};
  return header;
}

/* What the file says of its tensors: an object by name, itself the contents of a string. */
static inline vqcc_json vqcc_weights_packed(const vqcc_weights* weights) {
  const vqcc_json packed = {weights->data, weights->packed, weights->packed_end, 1};
  return packed;
}

static inline vqcc_weights_status vqcc_weights_read_entry(const vqcc_weights* weights, vqcc_json value,
                                                          vqcc_weights_entry* entry) {
  static const struct {
    char name[5];
    uint8_t bytes;
  } types[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"U32", 4}, {"I32", 4},
               {"U64", 8},  {"I64", 8}, {"F16", 2}, {"BF16", 2}, {"F32", 4}, {"F64", 8}};
  vqcc_json dtype, shape, offsets;
  uint64_t places[2], bytes = 0;
  if (!vqcc_json_string_field(value, "dtype", &dtype) || !vqcc_json_field(value, "shape", &shape) ||
      !vqcc_json_field(value, "data_offsets", &offsets) || vqcc_json_naturals(offsets, places, 2) != 2) {
    return VQCC_WEIGHTS_ERROR_ENTRY;
  }
  entry->axes = vqcc_json_naturals(shape, entry->shape, 32);
  if (entry->axes < 0) return VQCC_WEIGHTS_ERROR_ENTRY;
  for (size_t i = 0; i < sizeof types / sizeof types[0] && bytes == 0; ++i) {
    if (!vqcc_json_is(dtype, types[i].name)) continue;
    memcpy(entry->dtype, types[i].name, sizeof types[i].name);
    bytes = types[i].bytes;
  }
  if (bytes == 0) return VQCC_WEIGHTS_ERROR_DTYPE;
  for (int i = 0; i < entry->axes; ++i) bytes = vqcc_product(bytes, entry->shape[i]);
  entry->begin = places[0];
  entry->end = places[1];
  if (entry->begin > entry->end || entry->end - entry->begin != bytes) return VQCC_WEIGHTS_ERROR_EXTENT;
  if (entry->end > weights->bytes - weights->header_end) return VQCC_WEIGHTS_ERROR_PLACES;
  return VQCC_WEIGHTS_OK;
}

/* Whether arrays follow one another from the header's end to the file's, each of them, whatever their entries' order:
 * each pass over the header goes on from byte `reached`, and collects the next arrays that it cannot place yet. Empty
 * arrays, which could lie anywhere and hold no weights, are refused. */
static inline vqcc_weights_status vqcc_weights_check_places(vqcc_weights* weights) {
  struct {
    uint64_t begin, end;
  } next[256]; /* in order; those with the least offsets past `reached` that the pass has met */
  const int most = (int)(sizeof next / sizeof next[0]);
  const uint64_t all = weights->bytes - weights->header_end;
  uint64_t reached = 0, arrays = 0, placed = 0;
  for (int pass = 0;; ++pass) {
    const uint64_t placed_before = placed;
    int held = 0;
    vqcc_weights_entry entry;
    vqcc_json header = vqcc_weights_header(weights), key, value;
    while (vqcc_json_member(&header, &key, &value)) {
      if (vqcc_json_is(key, "__metadata__")) continue;
      const vqcc_weights_status status = vqcc_weights_read_entry(weights, value, &entry);
      if (status != VQCC_WEIGHTS_OK) return vqcc_weights_fail(&weights->where, value.at, status);
      if (entry.begin == entry.end) return vqcc_weights_fail(&weights->where, value.at, VQCC_WEIGHTS_ERROR_PLACES);
      if (pass == 0) ++arrays;
      if (entry.begin == reached) {
        reached = entry.end;
        ++placed;
      } else if (entry.begin > reached) {
        int i = held;
        while (i > 0 && next[i - 1].begin > entry.begin) --i;
        if (i == most) continue;
        if (held < most) ++held;
        memmove(next + i + 1, next + i, (size_t)(held - 1 - i) * sizeof next[0]);
        next[i].begin = entry.begin;
        next[i].end = entry.end;
      }
    }
    for (int i = 0; i < held; ++i) {
      if (next[i].begin != reached) continue;
      reached = next[i].end;
      ++placed;
    }
    if (placed != arrays && placed != placed_before) continue;
    /* Arrays that overlap cannot all be placed. */
    if (placed == arrays && reached == all) return VQCC_WEIGHTS_OK;
    return vqcc_weights_fail(&weights->where, weights->header_end + (size_t)reached, VQCC_WEIGHTS_ERROR_PLACES);
  }
}

/* Checks the JSON text at `text`, and that nothing but white space follows it. */
static inline vqcc_weights_status vqcc_weights_check_json(vqcc_weights* weights, vqcc_json text) {
  vqcc_json_error error = vqcc_json_skip(&text, 1);
  if (error == VQCC_JSON_OK && vqcc_json_peek(&text) != VQCC_JSON_END) error = VQCC_JSON_MALFORMED;
  if (error == VQCC_JSON_OK) return VQCC_WEIGHTS_OK;
  return vqcc_weights_fail(&weights->where, text.at,
                           error == VQCC_JSON_NESTING     ? VQCC_WEIGHTS_ERROR_NESTING
                           : error == VQCC_JSON_DUPLICATE ? VQCC_WEIGHTS_ERROR_DUPLICATE
                                                          : VQCC_WEIGHTS_ERROR_JSON);
}

/* Finds the header and checks its text: the format has it begin with a brace, and nothing but spaces behind it. */
static inline vqcc_weights_status vqcc_weights_check_header(vqcc_weights* weights) {
  uint64_t length = 0;
  size_t end;
  if (weights->bytes < 8) return vqcc_weights_fail(&weights->where, weights->bytes, VQCC_WEIGHTS_ERROR_TRUNCATED);
  for (int i = 0; i < 8; ++i) length |= (uint64_t)weights->data[i] << 8 * i;
  if (length > weights->bytes - 8) {
    return vqcc_weights_fail(&weights->where, weights->bytes, VQCC_WEIGHTS_ERROR_TRUNCATED);
  }
  if (length > VQCC_WEIGHTS_MOST_HEADER_BYTES) {
    return vqcc_weights_fail(&weights->where, 0, VQCC_WEIGHTS_ERROR_HEADER_BYTES);
  }
  weights->header_end = 8 + (size_t)length;
  if (length == 0 || weights->data[8] != '{') {
    return vqcc_weights_fail(&weights->where, 8, VQCC_WEIGHTS_ERROR_JSON);
  }
  for (end = weights->header_end; weights->data[end - 1] == ' ';) --end;
  if (weights->data[end - 1] != '}') return vqcc_weights_fail(&weights->where, end - 1, VQCC_WEIGHTS_ERROR_JSON);
  return vqcc_weights_check_json(weights, vqcc_weights_header(weights));
}

/* Finds and checks the text of `vqcc.packed`, a string of the metadata like all others. */
static inline vqcc_weights_status vqcc_weights_check_metadata(vqcc_weights* weights) {
  vqcc_json metadata, key, value;
  if (!vqcc_json_field(vqcc_weights_header(weights), "__metadata__", &metadata)) {
    return vqcc_weights_fail(&weights->where, 8, VQCC_WEIGHTS_ERROR_NOT_PACKED);
  }
  if (vqcc_json_peek(&metadata) != '{') {
    return vqcc_weights_fail(&weights->where, metadata.at, VQCC_WEIGHTS_ERROR_ENTRY);
  }
  weights->where = metadata.at;
  value = metadata;
  (void)vqcc_json_skip(&value, 0);
  weights->entries = value.at;
  while (vqcc_json_member(&metadata, &key, &value)) {
    if (!vqcc_json_accept(&value, '"')) {
      return vqcc_weights_fail(&weights->where, value.at, VQCC_WEIGHTS_ERROR_ENTRY);
    }
    if (!vqcc_json_is(key, "vqcc.packed")) continue;
    weights->packed = value.at;
    weights->packed_end = metadata.at - 1; /* its closing quote */
  }
  if (weights->packed == 0) return VQCC_WEIGHTS_ERROR_NOT_PACKED;
  const vqcc_weights_status status = vqcc_weights_check_json(weights, vqcc_weights_packed(weights));
  if (status != VQCC_WEIGHTS_OK) return status;
  value = vqcc_weights_packed(weights);
  if (vqcc_json_peek(&value) == '{') return VQCC_WEIGHTS_OK;
  return vqcc_weights_fail(&weights->where, value.at, VQCC_WEIGHTS_ERROR_NOT_PACKED);
}

/* Finds NAME and `ending` in the header, first behind `hint`, where it is put for the next time: entries mostly stand in
 * the order of names. */
static inline int vqcc_weights_find_entry(const vqcc_weights* weights, vqcc_json name, const char* ending,
                                          size_t* hint, vqcc_json* value) {
  const vqcc_json begin = vqcc_weights_header(weights);
  const size_t first = *hint > begin.at && *hint < begin.end ? *hint : weights->entries;
  vqcc_json header = begin, key;
  for (int turn = 0; turn < 2; ++turn) {
    header.at = turn == 0 ? first : begin.at;
    while ((turn == 0 || header.at < first) && vqcc_json_member(&header, &key, value)) {
      if (!vqcc_json_same(key, name, ending)) continue;
      *hint = header.at;
      return 1;
    }
  }
  return 0;
}

static inline int vqcc_weights_has_form(const vqcc_weights_entry* entry, const vqcc_array_form* form) {
  if (entry->axes != form->axes || strcmp(entry->dtype, form->dtype) != 0) return 0;
  for (int i = 0; i < form->axes; ++i) {
    if (entry->shape[i] != form->shape[i] && form->shape[i] != 0) return 0;
  }
  return 1;
}

/* Reads a tensor: `name` is behind the opening quote of its key in `vqcc.packed`, `described` the value. */
static inline vqcc_weights_status vqcc_weights_read(const vqcc_weights* weights, vqcc_json name, vqcc_json described,
                                                    vqcc_weight* weight, vqcc_description* description) {
  static const char endings[VQCC_ARRAYS][14] = {".codes", ".books", ".stage_scales", ".scales"};
  vqcc_weights_array* const arrays[VQCC_ARRAYS] = {&weight->codes, &weight->books, &weight->stage_scales,
                                                   &weight->scales};
  weight->where = described.at;
  const vqcc_description_error error = vqcc_description_read(described, description);
  if (error == VQCC_DESCRIPTION_IDENTITY) return VQCC_WEIGHTS_ERROR_IDENTITY;
  if (error != VQCC_DESCRIPTION_OK) return VQCC_WEIGHTS_ERROR_DESCRIPTION;
  weight->n = (int64_t)description->n;
  weight->k = (int64_t)description->k;
  weight->by_frequency = description->by_frequency;
  memcpy(weight->layout_id, description->layout_id, sizeof weight->layout_id);
  weight->name = name.at;
  for (int i = 0; i < VQCC_ARRAYS; ++i) {
    vqcc_weights_entry entry;
    vqcc_json value;
    arrays[i]->data = NULL;
    arrays[i]->bytes = 0;
    if (description->forms[i].axes == 0) continue;
    if (!vqcc_weights_find_entry(weights, name, endings[i], &weight->entries[i], &value)) {
      return VQCC_WEIGHTS_ERROR_ARRAY;
    }
    if (vqcc_weights_read_entry(weights, value, &entry) != VQCC_WEIGHTS_OK ||
        !vqcc_weights_has_form(&entry, &description->forms[i])) {
      return vqcc_weights_fail(&weight->where, value.at, VQCC_WEIGHTS_ERROR_ARRAY);
    }
    arrays[i]->data = weights->data + weights->header_end + entry.begin;
    arrays[i]->bytes = (size_t)(entry.end - entry.begin);
  }
  return VQCC_WEIGHTS_OK;
}

/* Reads every tensor. A name with a 0 in it, which vqcc_weights_find could not be asked for, is refused. */
static inline vqcc_weights_status vqcc_weights_check_tensors(vqcc_weights* weights) {
  vqcc_json packed = vqcc_weights_packed(weights), name, described;
  vqcc_weight weight;
  vqcc_description description;
  memset(&weight, 0, sizeof weight);
  for (; vqcc_json_member(&packed, &name, &described); ++weights->count) {
    vqcc_json string = name;
    int32_t character;
    do character = vqcc_json_in_string(&string);
    while (character > 0);
    if (character == 0) return vqcc_weights_fail(&weights->where, name.at, VQCC_WEIGHTS_ERROR_DESCRIPTION);
    const vqcc_weights_status status = vqcc_weights_read(weights, name, described, &weight, &description);
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
  if (data == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  weights->data = (const uint8_t*)data;
  weights->bytes = bytes;
  vqcc_weights_status status = vqcc_weights_check_header(weights);
  if (status == VQCC_WEIGHTS_OK) status = vqcc_weights_check_metadata(weights);
  if (status == VQCC_WEIGHTS_OK) status = vqcc_weights_check_places(weights);
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
  vqcc_json packed = vqcc_weights_packed(weights), key, described;
  vqcc_description description;
  int found = 0;
  while (!found && vqcc_json_member(&packed, &key, &described)) found = vqcc_json_is(key, name);
  vqcc_weights_status status = VQCC_WEIGHTS_ERROR_NAME;
  weight->where = weights->packed;
  if (found) status = vqcc_weights_read(weights, key, described, weight, &description);
  weight->next = packed.at;
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
 * weights->count. To load all tensors of a large file this is the way: vqcc_weights_find looks through its header anew. */
static inline vqcc_weights_status vqcc_weights_next(const vqcc_weights* weights, vqcc_weight* weight) {
  if (weights == NULL || weights->data == NULL || weight == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  vqcc_json packed = vqcc_weights_packed(weights), name, described;
  vqcc_description description;
  if (weight->next > packed.at && weight->next < packed.end) packed.at = weight->next;
  if (!vqcc_json_member(&packed, &name, &described)) return VQCC_WEIGHTS_ERROR_NAME;
  weight->next = packed.at;
  return vqcc_weights_read(weights, name, described, weight, &description);
}

/* Copies a tensor's name, UTF-8, with a 0 behind it, cut if it needs more than `capacity` bytes. Returns its length. */
static inline size_t vqcc_weights_name(const vqcc_weights* weights, const vqcc_weight* weight, char* name,
                                       size_t capacity) {
  vqcc_json string = vqcc_weights_packed(weights);
  string.at = weight->name;
  return vqcc_json_copy(string, name, capacity);
}

#ifndef VQCC_WEIGHTS_NO_FILES
/* Releases the mapping, and with it all that was found in it. Twice is harmless. */
static inline void vqcc_weights_close(vqcc_weights* weights) {
  if (weights == NULL) return;
  if (weights->mapped) (void)munmap((void*)(uintptr_t)weights->data, weights->bytes);
  memset(weights, 0, sizeof *weights);
}

/* Maps a file, to be read only, and checks it. On failure nothing stays open, and `weights` holds nothing but `where`.
 * Who makes a mapped file shorter makes its readers fail: replace files, as vqcc does, instead of writing into them. */
static inline vqcc_weights_status vqcc_weights_open(const char* path, vqcc_weights* weights) {
  struct stat status_of_file;
  if (weights == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
  memset(weights, 0, sizeof *weights);
  if (path == NULL) return VQCC_WEIGHTS_ERROR_NULL_POINTER;
#ifdef O_CLOEXEC
  const int file = open(path, O_RDONLY | O_CLOEXEC);
#else
  const int file = open(path, O_RDONLY);
#endif
  if (file < 0) return VQCC_WEIGHTS_ERROR_FILE;
  void* data = MAP_FAILED;
  size_t bytes = 0;
  vqcc_weights_status status = VQCC_WEIGHTS_ERROR_FILE;
  if (fstat(file, &status_of_file) == 0 && S_ISREG(status_of_file.st_mode) &&
      (uint64_t)status_of_file.st_size <= SIZE_MAX) {
    bytes = (size_t)status_of_file.st_size;
    if (bytes == 0) status = VQCC_WEIGHTS_ERROR_TRUNCATED;
    if (bytes > 0) data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  }
  (void)close(file);
  if (data == MAP_FAILED) return status;
  status = vqcc_weights_check(data, bytes, weights);
  weights->mapped = status == VQCC_WEIGHTS_OK;
  if (status != VQCC_WEIGHTS_OK) (void)munmap(data, bytes);
  return status;
}
#endif

#endif /* VQCC_WEIGHTS_H_ */
