/* Packed codebooks of a KV cache, as `vqcc pack --keys --values` writes them, read where they lie
 * (docs/packed-layout.md): an engine needs no Python.
 *
 * C99 and C++17. Nothing here allocates, prints, exits or keeps state. Files are mapped by POSIX functions: with
 * VQCC_BOOKS_NO_FILES defined there are none of these, and a file that is in memory is given to vqcc_books_check.
 *
 *   const vqcc_books_sizes sizes = {P_KEY_BOOKS_BYTES, P_VALUE_BOOKS_BYTES, P_APPEND_KEY_BOOKS_BYTES,
 *                                   P_APPEND_VALUE_BOOKS_BYTES, P_BOOK_FACTS_BYTES};
 *   vqcc_books books;
 *   vqcc_layer_books layer;
 *   vqcc_books_status status = vqcc_books_open("books.safetensors", &books);
 *   if (status == VQCC_BOOKS_OK) status = vqcc_books_find(&books, "layers.0.keys", P_LAYOUT_ID, &sizes, &layer);
 *   ... copy layer.key_books, layer.value_books and the others to the device ...
 *   vqcc_books_close(&books);
 *
 * A file is checked in full before anything of it is given out, and nothing outside of it is ever read, whatever its
 * bytes are. What is refused is at least what vqcc refuses. Time is a few passes over the header; one made for it can
 * take time quadratic in its length, which VQCC_BOOKS_MOST_HEADER_BYTES bounds.
 */
#ifndef VQCC_BOOKS_H_
#define VQCC_BOOKS_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "book_description.h"
#include "json.h"
#include "packed_file.h"
#ifndef VQCC_BOOKS_NO_FILES
#include "mapped_file.h"
#endif

#ifndef VQCC_BOOKS_MOST_HEADER_BYTES
#define VQCC_BOOKS_MOST_HEADER_BYTES 100000000 /* the format's own limit */
#endif

/* What they mean is in packed_file.h. */
typedef enum vqcc_books_status {
  VQCC_BOOKS_OK = VQCC_PACKED_OK,
  VQCC_BOOKS_ERROR_NULL_POINTER = VQCC_PACKED_ERROR_NULL_POINTER,
  VQCC_BOOKS_ERROR_FILE = VQCC_PACKED_ERROR_FILE,
  VQCC_BOOKS_ERROR_TRUNCATED = VQCC_PACKED_ERROR_TRUNCATED,
  VQCC_BOOKS_ERROR_HEADER_BYTES = VQCC_PACKED_ERROR_HEADER_BYTES,
  VQCC_BOOKS_ERROR_JSON = VQCC_PACKED_ERROR_JSON,
  VQCC_BOOKS_ERROR_NESTING = VQCC_PACKED_ERROR_NESTING,
  VQCC_BOOKS_ERROR_DUPLICATE = VQCC_PACKED_ERROR_DUPLICATE,
  VQCC_BOOKS_ERROR_ENTRY = VQCC_PACKED_ERROR_ENTRY,
  VQCC_BOOKS_ERROR_DTYPE = VQCC_PACKED_ERROR_DTYPE,
  VQCC_BOOKS_ERROR_EXTENT = VQCC_PACKED_ERROR_EXTENT,
  VQCC_BOOKS_ERROR_PLACES = VQCC_PACKED_ERROR_PLACES,
  VQCC_BOOKS_ERROR_NOT_PACKED = VQCC_PACKED_ERROR_NOT_PACKED,
  VQCC_BOOKS_ERROR_DESCRIPTION = VQCC_PACKED_ERROR_DESCRIPTION,
  VQCC_BOOKS_ERROR_IDENTITY = VQCC_PACKED_ERROR_IDENTITY,
  VQCC_BOOKS_ERROR_ARRAY = VQCC_PACKED_ERROR_ARRAY,
  VQCC_BOOKS_ERROR_NAME = VQCC_PACKED_ERROR_NAME,
  VQCC_BOOKS_ERROR_LAYOUT = VQCC_PACKED_ERROR_LAYOUT,
  VQCC_BOOKS_ERROR_BYTES = VQCC_PACKED_ERROR_BYTES,
  VQCC_BOOKS_ERROR_KIND = VQCC_PACKED_ERROR_KIND
} vqcc_books_status;

static inline const char* vqcc_books_status_string(vqcc_books_status status) {
  switch (status) {
    case VQCC_BOOKS_ERROR_NOT_PACKED: return "the file holds no packed books";
    case VQCC_BOOKS_ERROR_DESCRIPTION: return "a layer's books are described in a way that is not known";
    case VQCC_BOOKS_ERROR_IDENTITY: return "a layer's layout id is not that of its algorithms, layout and rotation";
    case VQCC_BOOKS_ERROR_NAME: return "the file has no such layer";
    case VQCC_BOOKS_ERROR_LAYOUT: return "the books were packed for another layout";
    case VQCC_BOOKS_ERROR_BYTES: return "books have another size than the library's";
    case VQCC_BOOKS_ERROR_KIND: return "the file holds packed weights, which vqcc/weights.h reads";
    default: return vqcc_packed_status_string((vqcc_packed_status)status);
  }
}

/* A file whose header has been checked. Plain data, which no function but open, check and close changes: any number of
 * threads may look things up in it. The bytes stay the caller's, or those of the mapping, and must not change. */
typedef struct vqcc_books {
  const uint8_t* data;
  size_t bytes;
  size_t count; /* layers that it holds books of */
  size_t where; /* after an error: the byte of the file where it was found */
  vqcc_packed_file file;
  int mapped;
} vqcc_books;

typedef vqcc_packed_array vqcc_books_array;

/* Sizes of a library's arrays, from its header; 0 where it reads none. */
typedef struct vqcc_books_sizes {
  int64_t key_books, value_books;               /* P_KEY_BOOKS_BYTES, P_VALUE_BOOKS_BYTES */
  int64_t append_key_books, append_value_books; /* P_APPEND_KEY_BOOKS_BYTES, P_APPEND_VALUE_BOOKS_BYTES */
  int64_t book_facts;                           /* P_BOOK_FACTS_BYTES */
} vqcc_books_sizes;

/* The books of a layer's cache. Arrays have the names of the fields of `args` that they are for; those of `append_args`
 * are behind `append_`. */
typedef struct vqcc_layer_books {
  int64_t kv_heads, head_dim;
  vqcc_books_array key_books, value_books, append_key_books, append_value_books;
  vqcc_books_array book_facts; /* if kernels that attend look entries up by rows */
  vqcc_books_array rotations;  /* if keys are rotated once they are decoded */
  char layout_id[13];
  int32_t by_rows;
  size_t where; /* as that of vqcc_books */
  size_t name;  /* places in the file: its name, what follows its description, entries of its arrays */
  size_t next;
  size_t entries[VQCC_BOOK_ARRAYS];
} vqcc_layer_books;

static inline vqcc_books_status vqcc_books_fail(size_t* where, size_t at, vqcc_books_status status) {
  *where = at;
  return status;
}

/* Reads a layer: `name` is behind the opening quote of its key in `vqcc.packed`, `described` the value. */
static inline vqcc_books_status vqcc_books_read(const vqcc_books* books, vqcc_json name, vqcc_json described,
                                                vqcc_layer_books* layer) {
  static const char endings[VQCC_BOOK_ARRAYS][20] = {".key_books",          ".value_books", ".append_key_books",
                                                     ".append_value_books", ".book_facts",  ".rotations"};
  vqcc_packed_array* const arrays[VQCC_BOOK_ARRAYS] = {&layer->key_books,        &layer->value_books,
                                                       &layer->append_key_books, &layer->append_value_books,
                                                       &layer->book_facts,       &layer->rotations};
  vqcc_book_description description;
  layer->where = described.at;
  vqcc_packed_status status = vqcc_packed_described(vqcc_book_description_read(described, &description));
  if (status != VQCC_PACKED_OK) return (vqcc_books_status)status;
  layer->kv_heads = (int64_t)description.kv_heads;
  layer->head_dim = (int64_t)description.head_dim;
  layer->by_rows = description.by_rows;
  memcpy(layer->layout_id, description.layout_id, sizeof layer->layout_id);
  layer->name = name.at;
  for (int i = 0; i < VQCC_BOOK_ARRAYS && status == VQCC_PACKED_OK; ++i) {
    status = vqcc_packed_read_array(&books->file, name, endings[i], &description.forms[i], &layer->entries[i],
                                    arrays[i], &layer->where);
  }
  return (vqcc_books_status)status;
}

/* Reads every layer. */
static inline vqcc_books_status vqcc_books_check_layers(vqcc_books* books) {
  vqcc_json packed = vqcc_packed_descriptions(&books->file), name, described;
  vqcc_layer_books layer;
  memset(&layer, 0, sizeof layer);
  for (; vqcc_json_member(&packed, &name, &described); ++books->count) {
    if (!vqcc_packed_is_name(name)) return vqcc_books_fail(&books->where, name.at, VQCC_BOOKS_ERROR_DESCRIPTION);
    vqcc_books_status status = vqcc_books_read(books, name, described, &layer);
    vqcc_json shape; /* what only weights have */
    if (status == VQCC_BOOKS_ERROR_DESCRIPTION && vqcc_json_field(described, "shape", &shape)) {
      status = VQCC_BOOKS_ERROR_KIND;
    }
    if (status != VQCC_BOOKS_OK) return vqcc_books_fail(&books->where, layer.where, status);
  }
  return VQCC_BOOKS_OK;
}

/* Checks a file that is in memory, where it stays until its books are no longer used. On failure `books` holds nothing
 * but `where`. */
static inline vqcc_books_status vqcc_books_check(const void* data, size_t bytes, vqcc_books* books) {
  if (books == NULL) return VQCC_BOOKS_ERROR_NULL_POINTER;
  memset(books, 0, sizeof *books);
  vqcc_books_status status =
      (vqcc_books_status)vqcc_packed_check(data, bytes, VQCC_BOOKS_MOST_HEADER_BYTES, &books->file);
  books->data = books->file.data;
  books->bytes = books->file.bytes;
  books->where = books->file.where;
  if (status == VQCC_BOOKS_OK) status = vqcc_books_check_layers(books);
  if (status == VQCC_BOOKS_OK) return status;
  const size_t where = books->where;
  memset(books, 0, sizeof *books);
  return vqcc_books_fail(&books->where, where, status);
}

static inline int vqcc_books_have_sizes(const vqcc_layer_books* layer, const vqcc_books_sizes* sizes) {
  return (uint64_t)sizes->key_books == layer->key_books.bytes &&
         (uint64_t)sizes->value_books == layer->value_books.bytes &&
         (uint64_t)sizes->append_key_books == layer->append_key_books.bytes &&
         (uint64_t)sizes->append_value_books == layer->append_value_books.bytes &&
         (uint64_t)sizes->book_facts == layer->book_facts.bytes;
}

/* Finds a layer's books by their name, UTF-8, for a library: pass its P_LAYOUT_ID and the sizes of its arrays. Neither
 * is checked if it is null. On failure `layer` holds nothing but `where`. */
static inline vqcc_books_status vqcc_books_find(const vqcc_books* books, const char* name, const char* layout_id,
                                                const vqcc_books_sizes* sizes, vqcc_layer_books* layer) {
  if (layer == NULL) return VQCC_BOOKS_ERROR_NULL_POINTER;
  memset(layer, 0, sizeof *layer);
  if (books == NULL || books->data == NULL || name == NULL) return VQCC_BOOKS_ERROR_NULL_POINTER;
  vqcc_json key, described;
  vqcc_books_status status = VQCC_BOOKS_ERROR_NAME;
  layer->where = books->file.packed;
  if (vqcc_packed_find(&books->file, name, &key, &described, &layer->next)) {
    status = vqcc_books_read(books, key, described, layer);
  }
  if (status == VQCC_BOOKS_OK && layout_id != NULL && strcmp(layer->layout_id, layout_id) != 0) {
    status = VQCC_BOOKS_ERROR_LAYOUT;
  }
  if (status == VQCC_BOOKS_OK && sizes != NULL && !vqcc_books_have_sizes(layer, sizes)) {
    status = VQCC_BOOKS_ERROR_BYTES;
  }
  if (status == VQCC_BOOKS_OK) return status;
  const size_t where = layer->where;
  memset(layer, 0, sizeof *layer);
  return vqcc_books_fail(&layer->where, where, status);
}

/* Goes from a layer to the one that follows it in the file; from a zeroed `layer` to the first. There are
 * books->count. */
static inline vqcc_books_status vqcc_books_next(const vqcc_books* books, vqcc_layer_books* layer) {
  if (books == NULL || books->data == NULL || layer == NULL) return VQCC_BOOKS_ERROR_NULL_POINTER;
  vqcc_json name, described;
  if (!vqcc_packed_next(&books->file, &layer->next, &name, &described)) return VQCC_BOOKS_ERROR_NAME;
  return vqcc_books_read(books, name, described, layer);
}

/* Copies a layer's name, UTF-8, with a 0 behind it, cut if it needs more than `capacity` bytes. Returns its length. */
static inline size_t vqcc_books_name(const vqcc_books* books, const vqcc_layer_books* layer, char* name,
                                     size_t capacity) {
  return vqcc_packed_name(&books->file, layer->name, name, capacity);
}

#ifndef VQCC_BOOKS_NO_FILES
/* Releases the mapping, and with it all that was found in it. Twice is harmless. */
static inline void vqcc_books_close(vqcc_books* books) {
  if (books == NULL) return;
  if (books->mapped) vqcc_unmap_file(books->data, books->bytes);
  memset(books, 0, sizeof *books);
}

/* Maps a file, to be read only, and checks it. On failure nothing stays open, and `books` holds nothing but `where`.
 * Who makes a mapped file shorter makes its readers fail: replace files, as vqcc does, instead of writing into them. */
static inline vqcc_books_status vqcc_books_open(const char* path, vqcc_books* books) {
  const void* data;
  size_t bytes;
  if (books == NULL) return VQCC_BOOKS_ERROR_NULL_POINTER;
  memset(books, 0, sizeof *books);
  if (path == NULL) return VQCC_BOOKS_ERROR_NULL_POINTER;
  const vqcc_packed_status mapped = vqcc_map_file(path, &data, &bytes);
  if (mapped != VQCC_PACKED_OK) return (vqcc_books_status)mapped;
  const vqcc_books_status status = vqcc_books_check(data, bytes, books);
  books->mapped = status == VQCC_BOOKS_OK;
  if (status != VQCC_BOOKS_OK) vqcc_unmap_file(data, bytes);
  return status;
}
#endif

#endif /* VQCC_BOOKS_H_ */
