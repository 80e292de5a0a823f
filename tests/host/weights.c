/* Drives vqcc/weights.h for test_weights.py.
 *
 * Serves requests from standard input: a letter, the length of what follows as 8 little-endian bytes, and that.
 *   c BYTES   checks a file, which later requests are about: status, where, count; then a line for each tensor
 *   o PATH    the same, of a file that is mapped; it is closed again
 *   f TEXT    finds a tensor: layout id (- for none), bytes of codes, bytes of books and name, a line each
 * Answers are lines of text; the last one is a dot. With arguments, FILE SEED ROUNDS, it checks so many damaged copies of
 * a file instead, and prints how many of them were refused.
 */
#include "vqcc/weights.h"
#include "vqcc/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      printf("weights.c:%d: %s\n.\n", __LINE__, #condition);                \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

/* Of just this size, so that the sanitizers see each byte that is read past it. */
static uint8_t* allocated(size_t bytes) {
  uint8_t* data = (uint8_t*)malloc(bytes);
  CHECK(data != NULL || bytes == 0);
  return data;
}

static void print_array(const vqcc_weights* weights, const vqcc_weights_array* array) {
  if (array->data == NULL) {
    CHECK(array->bytes == 0);
    printf(" -");
    return;
  }
  const size_t begin = (size_t)((const uint8_t*)array->data - weights->data);
  CHECK(begin <= weights->bytes && array->bytes <= weights->bytes - begin);
  printf(" %zu:%zu", begin, array->bytes);
}

/* What is found of a tensor, its name in hexadecimal. */
static void print_weight(const vqcc_weights* weights, const vqcc_weight* weight) {
  const size_t length = vqcc_weights_name(weights, weight, NULL, 0);
  char* name = (char*)allocated(length + 1);
  CHECK(vqcc_weights_name(weights, weight, name, length + 1) == length && strlen(name) == length);
  printf("name=");
  for (size_t i = 0; i < length; ++i) printf("%02x", (unsigned)(uint8_t)name[i]);
  printf(" %" PRId64 " %" PRId64 " %s %d", weight->n, weight->k, weight->layout_id, (int)weight->by_frequency);
  print_array(weights, &weight->codes);
  print_array(weights, &weight->books);
  print_array(weights, &weight->stage_scales);
  print_array(weights, &weight->scales);
  printf("\n");
  free(name);
}

static int same_array(const vqcc_weights_array* one, const vqcc_weights_array* other) {
  return one->data == other->data && one->bytes == other->bytes;
}

/* Whether a tensor is found by its name, as it is found by going through the file. */
static void check_find(const vqcc_weights* weights, const vqcc_weight* weight) {
  const size_t length = vqcc_weights_name(weights, weight, NULL, 0);
  char* name = (char*)allocated(length + 1);
  vqcc_weight found, following = *weight;
  (void)vqcc_weights_name(weights, weight, name, length + 1);
  CHECK(vqcc_weights_find(weights, name, weight->layout_id, (int64_t)weight->codes.bytes,
                          (int64_t)weight->books.bytes, &found) == VQCC_WEIGHTS_OK);
  CHECK(found.n == weight->n && found.k == weight->k && found.by_frequency == weight->by_frequency);
  CHECK(strcmp(found.layout_id, weight->layout_id) == 0 && found.name == weight->name);
  CHECK(same_array(&found.codes, &weight->codes) && same_array(&found.books, &weight->books));
  CHECK(same_array(&found.stage_scales, &weight->stage_scales) && same_array(&found.scales, &weight->scales));
  CHECK(vqcc_weights_next(weights, &found) == vqcc_weights_next(weights, &following));
  CHECK(found.name == following.name);
  free(name);
}

static void print_file(vqcc_weights_status status, const vqcc_weights* weights) {
  vqcc_weight weight;
  printf("%d %zu %zu\n", (int)status, weights->where, weights->count);
  if (status != VQCC_WEIGHTS_OK) {
    CHECK(weights->data == NULL && weights->bytes == 0 && weights->count == 0 && !weights->mapped);
    CHECK(vqcc_weights_find(weights, "w", NULL, 0, 0, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
    memset(&weight, 0, sizeof weight);
    CHECK(vqcc_weights_next(weights, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
    return;
  }
  memset(&weight, 0, sizeof weight);
  for (size_t i = 0; i < weights->count; ++i) {
    CHECK(vqcc_weights_next(weights, &weight) == VQCC_WEIGHTS_OK);
    print_weight(weights, &weight);
    if (i % (1 + weights->count / 16) == 0) check_find(weights, &weight); /* some of many */
  }
  CHECK(vqcc_weights_next(weights, &weight) == VQCC_WEIGHTS_ERROR_NAME);
}

/* The next line of a request, ended by a 0 instead. */
static char* line_of(char** text) {
  char* line = *text;
  char* end = strchr(line, '\n');
  CHECK(end != NULL);
  *end = '\0';
  *text = end + 1;
  return line;
}

static void find(const vqcc_weights* weights, char* text) {
  const char* layout_id = line_of(&text);
  const int64_t codes = strtoll(line_of(&text), NULL, 10);
  const int64_t books = strtoll(line_of(&text), NULL, 10);
  vqcc_weight weight;
  const vqcc_weights_status status =
      vqcc_weights_find(weights, text, strcmp(layout_id, "-") == 0 ? NULL : layout_id, codes, books, &weight);
  printf("%d %zu\n", (int)status, weight.where);
  if (status == VQCC_WEIGHTS_OK) print_weight(weights, &weight);
  if (status != VQCC_WEIGHTS_OK) CHECK(weight.codes.data == NULL && weight.n == 0);
}

static void serve(void) {
  uint8_t head[9];
  uint8_t* data = NULL;
  vqcc_weights weights, mapped;
  memset(&weights, 0, sizeof weights);
  while (fread(head, 1, sizeof head, stdin) == sizeof head) {
    uint64_t length = 0;
    for (int i = 0; i < 8; ++i) length |= (uint64_t)head[1 + i] << 8 * i;
    const size_t bytes = (size_t)length;
    uint8_t* request = allocated(head[0] == 'c' ? bytes : bytes + 1);
    CHECK(fread(request, 1, bytes, stdin) == bytes);
    if (head[0] == 'c') {
      free(data);
      data = request;
      print_file(vqcc_weights_check(data == NULL ? head : data, bytes, &weights), &weights);
    } else {
      request[bytes] = 0;
      if (head[0] == 'f') find(&weights, (char*)request);
#ifndef VQCC_WEIGHTS_NO_FILES
      if (head[0] == 'o') {
        print_file(vqcc_weights_open((const char*)request, &mapped), &mapped);
        vqcc_weights_close(&mapped);
        vqcc_weights_close(&mapped);
        CHECK(mapped.data == NULL && !mapped.mapped);
      }
#else
      (void)mapped;
#endif
      free(request);
    }
    printf(".\n");
    (void)fflush(stdout);
  }
  free(data);
}

/* No pointer that is needed may be null. */
static void check_null_pointers(void) {
  vqcc_weights weights;
  vqcc_weight weight;
  memset(&weights, 0, sizeof weights);
  memset(&weight, 0, sizeof weight);
  CHECK(vqcc_weights_check(NULL, 0, &weights) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_check("", 0, NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_find(NULL, "w", NULL, 0, 0, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_find(&weights, "w", NULL, 0, 0, NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_find(&weights, NULL, NULL, 0, 0, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_next(NULL, &weight) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_next(&weights, NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
#ifndef VQCC_WEIGHTS_NO_FILES
  CHECK(vqcc_weights_open(NULL, &weights) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  CHECK(vqcc_weights_open("", NULL) == VQCC_WEIGHTS_ERROR_NULL_POINTER);
  vqcc_weights_close(NULL);
  vqcc_weights_close(&weights);
#endif
  for (int status = 0; status <= VQCC_WEIGHTS_ERROR_BYTES + 1; ++status) {
    const char* text = vqcc_weights_status_string((vqcc_weights_status)status);
    CHECK((strcmp(text, "unknown status") == 0) == (status > VQCC_WEIGHTS_ERROR_BYTES));
    for (int other = 0; other < status; ++other) {
      CHECK(strcmp(text, vqcc_weights_status_string((vqcc_weights_status)other)) != 0);
    }
  }
}

static uint64_t random_state;

static size_t below(size_t bound) { /* xorshift64* */
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return (size_t)(random_state * UINT64_C(0x2545f4914f6cdd1d) >> 16) % bound;
}

/* Damages a copy of a file, sometimes beyond recognition, most often in its header, of `head` bytes. */
static size_t damage(uint8_t* copy, const uint8_t* file, size_t bytes, size_t head) {
  static const char marks[] = "{}[]:,\"\\u0019eE.-+ \t\ntrue false null dD8";
  size_t left = bytes;
  memcpy(copy, file, bytes);
  if (below(8) == 0) {
    left = below(64);
    for (size_t i = 0; i < left; ++i) copy[i] = (uint8_t)below(256);
    return left;
  }
  for (size_t changes = 1 + below(4); changes > 0 && left > 16; --changes) {
    const size_t at = below(below(8) == 0 || left < head ? left : head), other = below(left < head ? left : head);
    const size_t most = left - (at > other ? at : other), run = 1 + below(most < 24 ? most : 24);
    switch (below(6)) {
      case 0: copy[at] = (uint8_t)below(256); break;
      case 1:
      case 2: copy[at] = (uint8_t)marks[below(sizeof marks - 1)]; break;
      case 3: memmove(copy + at, copy + other, run); break; /* parts stand twice */
      case 4: copy[at] = (uint8_t)(copy[at] ^ 1 << below(8)); break;
      default:
        memmove(copy + at, copy + at + run, left - at - run);
        left -= run;
        if (below(2) == 0 && at >= 8) {
          uint64_t length = 0;
          for (int i = 0; i < 8; ++i) length |= (uint64_t)copy[i] << 8 * i;
          length -= run;
          for (int i = 0; i < 8; ++i) copy[i] = (uint8_t)(length >> 8 * i & 0xff);
        }
    }
  }
  return below(6) == 0 ? below(left + 1) : left;
}

static void fuzz(const char* path, uint64_t seed, long rounds) {
  FILE* input = fopen(path, "rb");
  CHECK(input != NULL && fseek(input, 0, SEEK_END) == 0);
  const size_t bytes = (size_t)ftell(input);
  uint8_t* file = allocated(bytes);
  uint8_t* copy = allocated(bytes);
  long refused = 0;
  size_t head = 8;
  rewind(input);
  CHECK(fread(file, 1, bytes, input) == bytes && fclose(input) == 0);
  head += (size_t)file[0] | (size_t)file[1] << 8 | (size_t)file[2] << 16;
  random_state = seed * 2 + 1;
  for (long round = 0; round < rounds; ++round) {
    const size_t left = damage(copy, file, bytes, head);
    uint8_t* data = allocated(left + (left == 0));
    vqcc_weights weights;
    vqcc_weight weight;
    memcpy(data, copy, left);
    const vqcc_weights_status status = vqcc_weights_check(data, left, &weights);
    refused += status != VQCC_WEIGHTS_OK;
    CHECK(status != VQCC_WEIGHTS_OK || weights.data == data);
    if (status == VQCC_WEIGHTS_OK) {
      memset(&weight, 0, sizeof weight);
      for (size_t i = 0; i < weights.count; ++i) {
        CHECK(vqcc_weights_next(&weights, &weight) == VQCC_WEIGHTS_OK);
        check_find(&weights, &weight);
      }
      /* A file that changes under its readers' hands gives wrong answers, but takes none of them outside of it. */
      data[8 + below(head < left ? head - 8 : left - 8)] = (uint8_t)below(256);
      memset(&weight, 0, sizeof weight);
      for (size_t i = 0; i < weights.count && vqcc_weights_next(&weights, &weight) == VQCC_WEIGHTS_OK; ++i) {
        const uint8_t* codes = (const uint8_t*)weight.codes.data;
        CHECK(codes >= data && weight.codes.bytes <= left - (size_t)(codes - data));
      }
    }
    free(data);
  }
  printf("%ld\n", refused);
  free(copy);
  free(file);
}

int main(int count, char** arguments) {
  check_null_pointers();
  if (count == 4) {
    fuzz(arguments[1], strtoull(arguments[2], NULL, 10), strtol(arguments[3], NULL, 10));
  } else {
    serve();
  }
  return 0;
}
