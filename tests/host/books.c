/* Drives vqcc/books.h for test_books.py. To find a layer: layout id, and the five sizes of arrays in the order of
 * vqcc_books_sizes, blanks between them; a dash in place of either is for none. */
#include "vqcc/books.h"
#include "vqcc/books.h"

#include <inttypes.h>

#include "reader.h"

enum { ARRAYS = 6 };

static vqcc_books books; /* of the file that was checked last */

static char* name_of(const vqcc_books* file, const vqcc_layer_books* layer) {
  const size_t length = vqcc_books_name(file, layer, NULL, 0);
  char* name = (char*)allocated(length + 1);
  CHECK(vqcc_books_name(file, layer, name, length + 1) == length && strlen(name) == length);
  return name;
}

static void arrays_of(const vqcc_layer_books* layer, vqcc_books_array arrays[ARRAYS]) {
  arrays[0] = layer->key_books;
  arrays[1] = layer->value_books;
  arrays[2] = layer->append_key_books;
  arrays[3] = layer->append_value_books;
  arrays[4] = layer->book_facts;
  arrays[5] = layer->rotations;
}

static void print_layer(const vqcc_books* file, const vqcc_layer_books* layer) {
  vqcc_books_array arrays[ARRAYS];
  char* name = name_of(file, layer);
  print_name(name);
  printf(" %" PRId64 " %" PRId64 " %s %d", layer->kv_heads, layer->head_dim, layer->layout_id, (int)layer->by_rows);
  arrays_of(layer, arrays);
  for (int i = 0; i < ARRAYS; ++i) print_array(file->data, file->bytes, arrays[i].data, arrays[i].bytes);
  printf("\n");
  free(name);
}

/* Whether a layer is found by its name, as it is found by going through the file. */
static void check_find(const vqcc_books* file, const vqcc_layer_books* layer) {
  const vqcc_books_sizes sizes = {(int64_t)layer->key_books.bytes, (int64_t)layer->value_books.bytes,
                                  (int64_t)layer->append_key_books.bytes, (int64_t)layer->append_value_books.bytes,
                                  (int64_t)layer->book_facts.bytes};
  char* name = name_of(file, layer);
  vqcc_layer_books found, following = *layer;
  vqcc_books_array one[ARRAYS], other[ARRAYS];
  CHECK(vqcc_books_find(file, name, layer->layout_id, &sizes, &found) == VQCC_BOOKS_OK);
  CHECK(found.kv_heads == layer->kv_heads && found.head_dim == layer->head_dim && found.by_rows == layer->by_rows);
  CHECK(strcmp(found.layout_id, layer->layout_id) == 0 && found.name == layer->name);
  arrays_of(&found, one);
  arrays_of(layer, other);
  for (int i = 0; i < ARRAYS; ++i) CHECK(one[i].data == other[i].data && one[i].bytes == other[i].bytes);
  CHECK(vqcc_books_next(file, &found) == vqcc_books_next(file, &following));
  CHECK(found.name == following.name);
  free(name);
}

static void print_file(vqcc_books_status status, const vqcc_books* file) {
  vqcc_layer_books layer;
  printf("%d %zu %zu\n", (int)status, file->where, file->count);
  if (status != VQCC_BOOKS_OK) {
    CHECK(file->data == NULL && file->bytes == 0 && file->count == 0 && !file->mapped);
    CHECK(vqcc_books_find(file, "w", NULL, NULL, &layer) == VQCC_BOOKS_ERROR_NULL_POINTER);
    memset(&layer, 0, sizeof layer);
    CHECK(vqcc_books_next(file, &layer) == VQCC_BOOKS_ERROR_NULL_POINTER);
    return;
  }
  memset(&layer, 0, sizeof layer);
  for (size_t i = 0; i < file->count; ++i) {
    CHECK(vqcc_books_next(file, &layer) == VQCC_BOOKS_OK);
    print_layer(file, &layer);
    check_find(file, &layer);
  }
  CHECK(vqcc_books_next(file, &layer) == VQCC_BOOKS_ERROR_NAME);
}

static void answer_check(const void* data, size_t bytes) {
  print_file(vqcc_books_check(data, bytes, &books), &books);
}

static void answer_open(const char* path) {
#ifndef VQCC_BOOKS_NO_FILES
  vqcc_books mapped;
  print_file(vqcc_books_open(path, &mapped), &mapped);
  vqcc_books_close(&mapped);
  vqcc_books_close(&mapped);
  CHECK(mapped.data == NULL && !mapped.mapped);
#else
  (void)path;
#endif
}

static void answer_find(char* text) {
  const char* layout_id = line_of(&text);
  char* numbers = line_of(&text);
  const int sized = strcmp(numbers, "-") != 0;
  int64_t each[5] = {0};
  for (int i = 0; i < 5 && sized; ++i) each[i] = strtoll(numbers, &numbers, 10);
  const vqcc_books_sizes sizes = {each[0], each[1], each[2], each[3], each[4]};
  vqcc_layer_books layer;
  const vqcc_books_status status = vqcc_books_find(&books, text, strcmp(layout_id, "-") == 0 ? NULL : layout_id,
                                                   sized ? &sizes : NULL, &layer);
  printf("%d %zu\n", (int)status, layer.where);
  if (status == VQCC_BOOKS_OK) print_layer(&books, &layer);
  if (status != VQCC_BOOKS_OK) CHECK(layer.key_books.data == NULL && layer.kv_heads == 0);
}

static int read_all(const uint8_t* data, size_t bytes) {
  vqcc_layer_books layer;
  if (vqcc_books_check(data, bytes, &books) != VQCC_BOOKS_OK) return 0;
  CHECK(books.data == data);
  memset(&layer, 0, sizeof layer);
  for (size_t i = 0; i < books.count; ++i) {
    CHECK(vqcc_books_next(&books, &layer) == VQCC_BOOKS_OK);
    check_find(&books, &layer);
  }
  return 1;
}

static void read_on(void) {
  vqcc_layer_books layer;
  vqcc_books_array arrays[ARRAYS];
  memset(&layer, 0, sizeof layer);
  for (size_t i = 0; i < books.count && vqcc_books_next(&books, &layer) == VQCC_BOOKS_OK; ++i) {
    arrays_of(&layer, arrays);
    for (int j = 0; j < ARRAYS; ++j) {
      CHECK(arrays[j].data == NULL || within(books.data, books.bytes, arrays[j].data, arrays[j].bytes));
    }
  }
}

static const char* text_of(int status) { return vqcc_books_status_string((vqcc_books_status)status); }

/* No pointer that is needed may be null; statuses have texts. */
static void check_null_pointers(void) {
  vqcc_books none;
  vqcc_layer_books layer;
  memset(&none, 0, sizeof none);
  memset(&layer, 0, sizeof layer);
  CHECK(vqcc_books_check(NULL, 0, &none) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_check("", 0, NULL) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_find(NULL, "w", NULL, NULL, &layer) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_find(&none, "w", NULL, NULL, NULL) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_find(&none, NULL, NULL, NULL, &layer) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_next(NULL, &layer) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_next(&none, NULL) == VQCC_BOOKS_ERROR_NULL_POINTER);
#ifndef VQCC_BOOKS_NO_FILES
  CHECK(vqcc_books_open(NULL, &none) == VQCC_BOOKS_ERROR_NULL_POINTER);
  CHECK(vqcc_books_open("", NULL) == VQCC_BOOKS_ERROR_NULL_POINTER);
  vqcc_books_close(NULL);
  vqcc_books_close(&none);
#endif
  check_texts(text_of, VQCC_BOOKS_ERROR_KIND, VQCC_PACKED_ERROR_CODES);
}

int main(int count, char** arguments) {
  check_null_pointers();
  run(count, arguments);
  return 0;
}
