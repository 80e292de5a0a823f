/* Drives vqcc/weights.h for test_weights.py. To find a tensor: layout id (- for none), bytes of codes, bytes of books. */
#include "vqcc/weights.h"
#include "vqcc/weights.h"

#include <inttypes.h>

#include "reader.h"

static vqcc_weights weights; /* of the file that was checked last */

static char* name_of(const vqcc_weights* file, const vqcc_weight* weight) {
  const size_t length = vqcc_weights_name(file, weight, NULL, 0);
  char* name = (char*)allocated(length + 1);
  CHECK(vqcc_weights_name(file, weight, name, length + 1) == length && strlen(name) == length);
  return name;
}

static void print_weight(const vqcc_weights* file, const vqcc_weight* weight) {
  const vqcc_weights_array arrays[] = {weight->codes, weight->books, weight->stage_scales, weight->scales};
  char* name = name_of(file, weight);
  print_name(name);
  printf(" %" PRId64 " %" PRId64 " %s %d", weight->n, weight->k, weight->layout_id, (int)weight->by_frequency);
  for (int i = 0; i < 4; ++i) print_array(file->data, file->bytes, arrays[i].data, arrays[i].bytes);
  printf("\n");
  free(name);
}

static int same_array(const vqcc_weights_array* one, const vqcc_weights_array* other) {
  return one->data == other->data && one->bytes == other->bytes;
}

/* Whether a tensor is found by its name, as it is found by going through the file. */
static void check_find(const vqcc_weights* file, const vqcc_weight* weight) {
  char* name = name_of(file, weight);
  vqcc_weight found, following = *weight;
  CHECK(vqcc_weights_find(file, name, weight->layout_id, (int64_t)weight->codes.bytes,
                          (int64_t)weight->books.bytes, &found) == VQCC_WEIGHTS_OK);
  CHECK(found.n == weight->n && found.k == weight->k && found.by_frequency == weight->by_frequency);
  CHECK(strcmp(found.layout_id, weight->layout_id) == 0 && found.name == weight->name);
  CHECK(same_array(&found.codes, &weight->codes) && same_array(&found.books, &weight->books));
  CHECK(same_array(&found.stage_scales, &weight->stage_scales) && same_array(&found.scales, &weight->scales));
  CHECK(vqcc_weights_next(file, &found) == vqcc_weights_next(file, &following));
  CHECK(found.name == following.name);
  free(name);
}

static void print_file(vqcc_weights_status status, const vqcc_weights* file) {
  vqcc_weight weight;
  printf("%d %zu %zu\n", (int)status, file->where, file->count);
  if (status != VQCC_WEIGHTS_OK) {
    CHECK(file->data == NULL && file->bytes == 0 && file->count == 0 && !file->mapped);
    CHECK(vqcc_weights_find(file, "w", NULL, 0, 0, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
    memset(&weight, 0, sizeof weight);
    CHECK(vqcc_weights_next(file, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
    return;
  }
  memset(&weight, 0, sizeof weight);
  for (size_t i = 0; i < file->count; ++i) {
    CHECK(vqcc_weights_next(file, &weight) == VQCC_WEIGHTS_OK);
    print_weight(file, &weight);
    if (i % (1 + file->count / 16) == 0) check_find(file, &weight); /* some of many */
  }
  CHECK(vqcc_weights_next(file, &weight) == VQCC_WEIGHTS_ERROR_NAME);
}

static void answer_check(const void* data, size_t bytes) {
  print_file(vqcc_weights_check(data, bytes, &weights), &weights);
}

static void answer_open(const char* path) {
#ifndef VQCC_WEIGHTS_NO_FILES
  vqcc_weights mapped;
  print_file(vqcc_weights_open(path, &mapped), &mapped);
  vqcc_weights_close(&mapped);
  vqcc_weights_close(&mapped);
  CHECK(mapped.data == NULL && !mapped.mapped);
#else
  (void)path;
#endif
}

static void answer_find(char* text) {
  const char* layout_id = line_of(&text);
  const int64_t codes = strtoll(line_of(&text), NULL, 10);
  const int64_t books = strtoll(line_of(&text), NULL, 10);
  vqcc_weight weight;
  const vqcc_weights_status status =
      vqcc_weights_find(&weights, text, strcmp(layout_id, "-") == 0 ? NULL : layout_id, codes, books, &weight);
  printf("%d %zu\n", (int)status, weight.where);
  if (status == VQCC_WEIGHTS_OK) print_weight(&weights, &weight);
  if (status != VQCC_WEIGHTS_OK) CHECK(weight.codes.data == NULL && weight.n == 0);
}

static int read_all(const uint8_t* data, size_t bytes) {
  vqcc_weight weight;
  if (vqcc_weights_check(data, bytes, &weights) != VQCC_WEIGHTS_OK) return 0;
  CHECK(weights.data == data);
  memset(&weight, 0, sizeof weight);
  for (size_t i = 0; i < weights.count; ++i) {
    CHECK(vqcc_weights_next(&weights, &weight) == VQCC_WEIGHTS_OK);
    check_find(&weights, &weight);
  }
  return 1;
}

static void read_on(void) {
  vqcc_weight weight;
  memset(&weight, 0, sizeof weight);
  for (size_t i = 0; i < weights.count && vqcc_weights_next(&weights, &weight) == VQCC_WEIGHTS_OK; ++i) {
    CHECK(within(weights.data, weights.bytes, weight.codes.data, weight.codes.bytes));
  }
}

static const char* text_of(int status) { return vqcc_weights_status_string((vqcc_weights_status)status); }

/* No pointer that is needed may be null; statuses have texts. */
static void check_null_pointers(void) {
  vqcc_weights none;
  vqcc_weight weight;
  memset(&none, 0, sizeof none);
  memset(&weight, 0, sizeof weight);
  CHECK(vqcc_weights_check(NULL, 0, &none) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_check("", 0, NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_find(NULL, "w", NULL, 0, 0, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_find(&none, "w", NULL, 0, 0, NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_find(&none, NULL, NULL, 0, 0, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_next(NULL, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_next(&none, NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
#ifndef VQCC_WEIGHTS_NO_FILES
  CHECK(vqcc_weights_open(NULL, &none) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_open("", NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  vqcc_weights_close(NULL);
  vqcc_weights_close(&none);
#endif
  check_texts(text_of, VQCC_WEIGHTS_ERROR_KIND, -1);
}

int main(int count, char** arguments) {
  check_null_pointers();
  run(count, arguments);
  return 0;
}
