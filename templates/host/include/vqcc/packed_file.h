/* What readers of packed files (weights.h, books.h) share: a safetensors file of which nothing is believed before it
 * was checked, whose metadata `vqcc.packed` describes each of its items by name (docs/packed-layout.md).
 *
 * C99 and C++17. Nothing here allocates, prints, exits or keeps state. What is here is the readers' own: programs use
 * theirs.
 */
#ifndef VQCC_PACKED_FILE_H_
#define VQCC_PACKED_FILE_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "description.h"
#include "json.h"

/* Statuses of all readers, so that one number means the same to each; a reader has those that it can give. */
typedef enum vqcc_packed_status {
  VQCC_PACKED_OK = 0,
  VQCC_PACKED_ERROR_NULL_POINTER = 1, /* a required pointer is null, or the file is not open */
  VQCC_PACKED_ERROR_FILE = 2,         /* it cannot be opened or mapped, or is no file: errno says why */
  VQCC_PACKED_ERROR_TRUNCATED = 3,    /* it ends before its header does */
  VQCC_PACKED_ERROR_HEADER_BYTES = 4, /* a header of more bytes than are allowed */
  VQCC_PACKED_ERROR_JSON = 5,         /* the header, or `vqcc.packed` in it, is not JSON in UTF-8 */
  VQCC_PACKED_ERROR_NESTING = 6,      /* it is nested too deep */
  VQCC_PACKED_ERROR_DUPLICATE = 7,    /* a key stands twice in it */
  VQCC_PACKED_ERROR_ENTRY = 8,        /* an entry lacks type, shape or offsets, or has others than there are */
  VQCC_PACKED_ERROR_DTYPE = 9,        /* an element type that is not known */
  VQCC_PACKED_ERROR_EXTENT = 10,      /* offsets that are not as far apart as type and shape need */
  VQCC_PACKED_ERROR_PLACES = 11,      /* arrays overlap, leave bytes out, or end past the file's end */
  VQCC_PACKED_ERROR_NOT_PACKED = 12,  /* there is no `vqcc.packed`, or it is no object */
  VQCC_PACKED_ERROR_DESCRIPTION = 13, /* an item's description is not one that the reader knows */
  VQCC_PACKED_ERROR_IDENTITY = 14,    /* its layout_id is not that of what is said beside it */
  VQCC_PACKED_ERROR_ARRAY = 15,       /* an array is missing, or not of the type and shape that these give it */
  VQCC_PACKED_ERROR_CODES = 16,       /* codes in buckets would lead a kernel past their end */
  VQCC_PACKED_ERROR_NAME = 17,        /* no item of this name, or none that follows */
  VQCC_PACKED_ERROR_LAYOUT = 18,      /* the item was packed for another layout than the library reads */
  VQCC_PACKED_ERROR_BYTES = 19,       /* its arrays have other sizes than the library's */
  VQCC_PACKED_ERROR_KIND = 20         /* the file is of the other kind: books for weights.h, weights for books.h */
} vqcc_packed_status;

/* Texts of the statuses that say the same of every file. */
static inline const char* vqcc_packed_status_string(vqcc_packed_status status) {
  switch (status) {
    case VQCC_PACKED_OK: return "ok";
    case VQCC_PACKED_ERROR_NULL_POINTER: return "a required pointer is null, or the file is not open";
    case VQCC_PACKED_ERROR_FILE: return "the file cannot be read";
    case VQCC_PACKED_ERROR_TRUNCATED: return "the file ends before its header does";
    case VQCC_PACKED_ERROR_HEADER_BYTES: return "the header is too long";
    case VQCC_PACKED_ERROR_JSON: return "the header is not JSON";
    case VQCC_PACKED_ERROR_NESTING: return "the header is nested too deep";
    case VQCC_PACKED_ERROR_DUPLICATE: return "a key stands twice in the header";
    case VQCC_PACKED_ERROR_ENTRY: return "an entry of the header is malformed";
    case VQCC_PACKED_ERROR_DTYPE: return "an element type is not known";
    case VQCC_PACKED_ERROR_EXTENT: return "shape and size of an array disagree";
    case VQCC_PACKED_ERROR_PLACES: return "arrays overlap, leave bytes out or end past the file's end";
    case VQCC_PACKED_ERROR_ARRAY: return "an array is missing, or has another type or shape than it should";
    default: return "unknown status";
  }
}

/* The bytes stay the caller's and must not change. */
typedef struct vqcc_packed_file {
  const uint8_t* data;
  size_t bytes;
  size_t where; /* after an error: the byte of the file where it was found */
  size_t header_end;
  size_t packed, packed_end; /* the text of `vqcc.packed` */
  size_t entries;            /* what follows the metadata: entries of arrays, mostly all of them */
} vqcc_packed_file;

/* An array as it lies in the file, at any alignment; null and 0 if there is none. */
typedef struct vqcc_packed_array {
  const void* data;
  size_t bytes;
} vqcc_packed_array;

/* An entry of the header; offsets are from the first byte behind the header. */
typedef struct vqcc_packed_entry {
  char dtype[5];
  int axes;
  uint64_t shape[32];
  uint64_t begin, end;
} vqcc_packed_entry;

static inline vqcc_packed_status vqcc_packed_fail(size_t* where, size_t at, vqcc_packed_status status) {
  *where = at;
  return status;
}

static inline vqcc_json vqcc_packed_header(const vqcc_packed_file* file) {
  const vqcc_json header = {file->data, 8, file->header_end, 0};
  return header;
}

/* What the file says of its items: an object by name, itself the contents of a string. */
static inline vqcc_json vqcc_packed_descriptions(const vqcc_packed_file* file) {
  const vqcc_json packed = {file->data, file->packed, file->packed_end, 1};
  return packed;
}

static inline vqcc_packed_status vqcc_packed_read_entry(const vqcc_packed_file* file, vqcc_json value,
                                                        vqcc_packed_entry* entry) {
  static const struct {
    char name[5];
    uint8_t bytes;
  } types[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"U16", 2}, {"I16", 2}, {"U32", 4}, {"I32", 4},
               {"U64", 8},  {"I64", 8}, {"F16", 2}, {"BF16", 2}, {"F32", 4}, {"F64", 8}};
  vqcc_json dtype, shape, offsets;
  uint64_t places[2], bytes = 0;
  if (!vqcc_json_string_field(value, "dtype", &dtype) || !vqcc_json_field(value, "shape", &shape) ||
      !vqcc_json_field(value, "data_offsets", &offsets) || vqcc_json_naturals(offsets, places, 2) != 2) {
    return VQCC_PACKED_ERROR_ENTRY;
  }
  entry->axes = vqcc_json_naturals(shape, entry->shape, 32);
  if (entry->axes < 0) return VQCC_PACKED_ERROR_ENTRY;
  for (size_t i = 0; i < sizeof types / sizeof types[0] && bytes == 0; ++i) {
    if (!vqcc_json_is(dtype, types[i].name)) continue;
    memcpy(entry->dtype, types[i].name, sizeof types[i].name);
    bytes = types[i].bytes;
  }
  if (bytes == 0) return VQCC_PACKED_ERROR_DTYPE;
  for (int i = 0; i < entry->axes; ++i) bytes = vqcc_product(bytes, entry->shape[i]);
  entry->begin = places[0];
  entry->end = places[1];
  if (entry->begin > entry->end || entry->end - entry->begin != bytes) return VQCC_PACKED_ERROR_EXTENT;
  if (entry->end > file->bytes - file->header_end) return VQCC_PACKED_ERROR_PLACES;
  return VQCC_PACKED_OK;
}

/* Whether arrays follow one another from the header's end to the file's, each of them, whatever their entries' order:
 * each pass over the header goes on from byte `reached`, and collects the next arrays that it cannot place yet. Empty
 * arrays, which could lie anywhere and hold nothing, are refused. */
static inline vqcc_packed_status vqcc_packed_check_places(vqcc_packed_file* file) {
  struct {
    uint64_t begin, end;
  } next[256]; /* in order; those with the least offsets past `reached` that the pass has met */
  const int most = (int)(sizeof next / sizeof next[0]);
  const uint64_t all = file->bytes - file->header_end;
  uint64_t reached = 0, arrays = 0, placed = 0;
  for (int pass = 0;; ++pass) {
    const uint64_t placed_before = placed;
    int held = 0;
    vqcc_packed_entry entry;
    vqcc_json header = vqcc_packed_header(file), key, value;
    while (vqcc_json_member(&header, &key, &value)) {
      if (vqcc_json_is(key, "__metadata__")) continue;
      const vqcc_packed_status status = vqcc_packed_read_entry(file, value, &entry);
      if (status != VQCC_PACKED_OK) return vqcc_packed_fail(&file->where, value.at, status);
      if (entry.begin == entry.end) return vqcc_packed_fail(&file->where, value.at, VQCC_PACKED_ERROR_PLACES);
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
    if (placed == arrays && reached == all) return VQCC_PACKED_OK;
    return vqcc_packed_fail(&file->where, file->header_end + (size_t)reached, VQCC_PACKED_ERROR_PLACES);
  }
}

/* Checks the JSON text at `text`, and that nothing but white space follows it. */
static inline vqcc_packed_status vqcc_packed_check_json(vqcc_packed_file* file, vqcc_json text) {
  vqcc_json_error error = vqcc_json_skip(&text, 1);
  if (error == VQCC_JSON_OK && vqcc_json_peek(&text) != VQCC_JSON_END) error = VQCC_JSON_MALFORMED;
  if (error == VQCC_JSON_OK) return VQCC_PACKED_OK;
  return vqcc_packed_fail(&file->where, text.at,
                          error == VQCC_JSON_NESTING     ? VQCC_PACKED_ERROR_NESTING
                          : error == VQCC_JSON_DUPLICATE ? VQCC_PACKED_ERROR_DUPLICATE
                                                         : VQCC_PACKED_ERROR_JSON);
}

/* Finds the header and checks its text: the format has it begin with a brace, and nothing but spaces behind it. */
static inline vqcc_packed_status vqcc_packed_check_header(vqcc_packed_file* file, size_t most) {
  uint64_t length = 0;
  size_t end;
  if (file->bytes < 8) return vqcc_packed_fail(&file->where, file->bytes, VQCC_PACKED_ERROR_TRUNCATED);
  for (int i = 0; i < 8; ++i) length |= (uint64_t)file->data[i] << 8 * i;
  if (length > file->bytes - 8) return vqcc_packed_fail(&file->where, file->bytes, VQCC_PACKED_ERROR_TRUNCATED);
  if (length > most) return vqcc_packed_fail(&file->where, 0, VQCC_PACKED_ERROR_HEADER_BYTES);
  file->header_end = 8 + (size_t)length;
  if (length == 0 || file->data[8] != '{') return vqcc_packed_fail(&file->where, 8, VQCC_PACKED_ERROR_JSON);
  for (end = file->header_end; file->data[end - 1] == ' ';) --end;
  if (file->data[end - 1] != '}') return vqcc_packed_fail(&file->where, end - 1, VQCC_PACKED_ERROR_JSON);
  return vqcc_packed_check_json(file, vqcc_packed_header(file));
}

/* Finds and checks the text of `vqcc.packed`, a string of the metadata like all others. */
static inline vqcc_packed_status vqcc_packed_check_metadata(vqcc_packed_file* file) {
  vqcc_json metadata, key, value;
  if (!vqcc_json_field(vqcc_packed_header(file), "__metadata__", &metadata)) {
    return vqcc_packed_fail(&file->where, 8, VQCC_PACKED_ERROR_NOT_PACKED);
  }
  if (vqcc_json_peek(&metadata) != '{') {
    return vqcc_packed_fail(&file->where, metadata.at, VQCC_PACKED_ERROR_ENTRY);
  }
  file->where = metadata.at;
  value = metadata;
  (void)vqcc_json_skip(&value, 0);
  file->entries = value.at;
  while (vqcc_json_member(&metadata, &key, &value)) {
    if (!vqcc_json_accept(&value, '"')) {
      return vqcc_packed_fail(&file->where, value.at, VQCC_PACKED_ERROR_ENTRY);
    }
    if (!vqcc_json_is(key, "vqcc.packed")) continue;
    file->packed = value.at;
    file->packed_end = metadata.at - 1; /* its closing quote */
  }
  if (file->packed == 0) return VQCC_PACKED_ERROR_NOT_PACKED;
  const vqcc_packed_status status = vqcc_packed_check_json(file, vqcc_packed_descriptions(file));
  if (status != VQCC_PACKED_OK) return status;
  value = vqcc_packed_descriptions(file);
  if (vqcc_json_peek(&value) == '{') return VQCC_PACKED_OK;
  return vqcc_packed_fail(&file->where, value.at, VQCC_PACKED_ERROR_NOT_PACKED);
}

/* Finds NAME and `ending` in the header, first behind `hint`, where it is put for the next time: entries mostly stand
 * in the order of names. */
static inline int vqcc_packed_find_entry(const vqcc_packed_file* file, vqcc_json name, const char* ending,
                                         size_t* hint, vqcc_json* value) {
  const vqcc_json begin = vqcc_packed_header(file);
  const size_t first = *hint > begin.at && *hint < begin.end ? *hint : file->entries;
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

static inline int vqcc_packed_has_form(const vqcc_packed_entry* entry, const vqcc_array_form* form) {
  if (entry->axes != form->axes || strcmp(entry->dtype, form->dtype) != 0) return 0;
  for (int i = 0; i < form->axes; ++i) {
    if (entry->shape[i] != form->shape[i] && form->shape[i] != 0) return 0;
  }
  return 1;
}

/* Whether a name has no character 0 in it, which nobody could ask for. */
static inline int vqcc_packed_is_name(vqcc_json name) {
  int32_t character;
  do character = vqcc_json_in_string(&name);
  while (character > 0);
  return character != 0;
}

/* Checks all of a file but what its descriptions say. `most` bounds the bytes of its header. On failure `file` is to be
 * used for nothing but `where`. */
static inline vqcc_packed_status vqcc_packed_check(const void* data, size_t bytes, size_t most,
                                                   vqcc_packed_file* file) {
  memset(file, 0, sizeof *file);
  if (data == NULL) return VQCC_PACKED_ERROR_NULL_POINTER;
  file->data = (const uint8_t*)data;
  file->bytes = bytes;
  vqcc_packed_status status = vqcc_packed_check_header(file, most);
  if (status == VQCC_PACKED_OK) status = vqcc_packed_check_metadata(file);
  if (status == VQCC_PACKED_OK) status = vqcc_packed_check_places(file);
  return status;
}

/* Finds what the file says of an item, by its name in UTF-8; `next` is then behind it. */
static inline int vqcc_packed_find(const vqcc_packed_file* file, const char* name, vqcc_json* key, vqcc_json* described,
                                   size_t* next) {
  vqcc_json packed = vqcc_packed_descriptions(file);
  int found = 0;
  while (!found && vqcc_json_member(&packed, key, described)) found = vqcc_json_is(*key, name);
  *next = packed.at;
  return found;
}

/* Goes on from `next`, or from the first item if that is 0. */
static inline int vqcc_packed_next(const vqcc_packed_file* file, size_t* next, vqcc_json* name, vqcc_json* described) {
  vqcc_json packed = vqcc_packed_descriptions(file);
  if (*next > packed.at && *next < packed.end) packed.at = *next;
  if (!vqcc_json_member(&packed, name, described)) return 0;
  *next = packed.at;
  return 1;
}

/* Copies the name of an item, whose place in the file is `name`, as vqcc_json_copy does. */
static inline size_t vqcc_packed_name(const vqcc_packed_file* file, size_t name, char* text, size_t capacity) {
  vqcc_json string = vqcc_packed_descriptions(file);
  string.at = name;
  return vqcc_json_copy(string, text, capacity);
}

/* Finds an item's array, NAME and `ending`, which must be of a form; none if the form is none. `hint` is as that of
 * vqcc_packed_find_entry, `where` the entry that is wrong. */
static inline vqcc_packed_status vqcc_packed_read_array(const vqcc_packed_file* file, vqcc_json name,
                                                        const char* ending, const vqcc_array_form* form,
                                                        size_t* hint, vqcc_packed_array* array, size_t* where) {
  vqcc_packed_entry entry;
  vqcc_json value;
  array->data = NULL;
  array->bytes = 0;
  if (form->axes == 0) return VQCC_PACKED_OK;
  if (!vqcc_packed_find_entry(file, name, ending, hint, &value)) return VQCC_PACKED_ERROR_ARRAY;
  if (vqcc_packed_read_entry(file, value, &entry) != VQCC_PACKED_OK || !vqcc_packed_has_form(&entry, form)) {
    return vqcc_packed_fail(where, value.at, VQCC_PACKED_ERROR_ARRAY);
  }
  array->data = file->data + file->header_end + entry.begin;
  array->bytes = (size_t)(entry.end - entry.begin);
  return VQCC_PACKED_OK;
}

static inline vqcc_packed_status vqcc_packed_described(vqcc_description_error error) {
  return error == VQCC_DESCRIPTION_OK         ? VQCC_PACKED_OK
         : error == VQCC_DESCRIPTION_IDENTITY ? VQCC_PACKED_ERROR_IDENTITY
                                              : VQCC_PACKED_ERROR_DESCRIPTION;
}

#endif /* VQCC_PACKED_FILE_H_ */
