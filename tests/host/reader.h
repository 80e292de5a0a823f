/* What the programs that drive readers of packed files have in common: each defines the functions that are declared here,
 * over its reader, and calls `run`.
 *
 * Serves requests from standard input: a letter, the length of what follows as 8 little-endian bytes, and that.
 *   c BYTES   checks a file, which later requests are about: status, where, count; then a line for each item
 *   o PATH    the same, of a file that is mapped; it is closed again
 *   f TEXT    finds an item: what the library is, a line each, and the name
 * Answers are lines of text; the last one is a dot. With arguments, FILE SEED ROUNDS, it checks so many damaged copies of
 * a file instead, and prints how many of them were refused.
 */
#ifndef READER_H_
#define READER_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      printf("%s:%d: %s\n.\n", __FILE__, __LINE__, #condition);              \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

/* Requests c, o and f. */
static void answer_check(const void* data, size_t bytes);
static void answer_open(const char* path);
static void answer_find(char* text);

/* Reads all of a file, and says whether it was accepted. */
static int read_all(const uint8_t* data, size_t bytes);

/* Goes on in the file that `read_all` accepted, of which a byte has changed since. */
static void read_on(void);

/* Of just this size, so that the sanitizers see each byte that is read past it. */
static uint8_t* allocated(size_t bytes) {
  uint8_t* data = (uint8_t*)malloc(bytes);
  CHECK(data != NULL || bytes == 0);
  return data;
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

static int within(const uint8_t* data, size_t bytes, const void* array, size_t array_bytes) {
  const uint8_t* begin = (const uint8_t*)array;
  return begin >= data && array_bytes <= bytes && (size_t)(begin - data) <= bytes - array_bytes;
}

/* The place of an array in a file, or a dash if there is none. */
static void print_array(const uint8_t* data, size_t bytes, const void* array, size_t array_bytes) {
  if (array == NULL) {
    CHECK(array_bytes == 0);
    printf(" -");
    return;
  }
  CHECK(within(data, bytes, array, array_bytes));
  printf(" %zu:%zu", (size_t)((const uint8_t*)array - data), array_bytes);
}

/* In hexadecimal: there may be anything in it. */
static void print_name(const char* name) {
  printf("name=");
  for (; *name != '\0'; ++name) printf("%02x", (unsigned)(uint8_t)*name);
}

static void serve(void) {
  uint8_t head[9];
  uint8_t* data = NULL;
  while (fread(head, 1, sizeof head, stdin) == sizeof head) {
    uint64_t length = 0;
    for (int i = 0; i < 8; ++i) length |= (uint64_t)head[1 + i] << 8 * i;
    const size_t bytes = (size_t)length;
    uint8_t* request = allocated(head[0] == 'c' ? bytes : bytes + 1);
    CHECK(fread(request, 1, bytes, stdin) == bytes);
    if (head[0] == 'c') {
      free(data);
      data = request;
      answer_check(data == NULL ? head : data, bytes);
    } else {
      request[bytes] = 0;
      if (head[0] == 'f') answer_find((char*)request);
      if (head[0] == 'o') answer_open((const char*)request);
      free(request);
    }
    printf(".\n");
    (void)fflush(stdout);
  }
  free(data);
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
    memcpy(data, copy, left);
    if (read_all(data, left)) {
      /* A file that changes under its readers' hands gives wrong answers, but takes none of them outside of it. */
      data[8 + below(head < left ? head - 8 : left - 8)] = (uint8_t)below(256);
      read_on();
    } else {
      ++refused;
    }
    free(data);
  }
  printf("%ld\n", refused);
  free(copy);
  free(file);
}

/* Each status up to `last` has a text of its own, but for those that the reader lacks. */
static void check_texts(const char* (*text_of)(int status), int last, int lacking) {
  for (int status = 0; status <= last + 1; ++status) {
    const char* text = text_of(status);
    CHECK((strcmp(text, "unknown status") == 0) == (status > last || status == lacking));
    for (int other = 0; other < status && status != lacking && status <= last; ++other) {
      CHECK(strcmp(text, text_of(other)) != 0);
    }
  }
}

static void run(int count, char** arguments) {
  if (count == 4) {
    fuzz(arguments[1], strtoull(arguments[2], NULL, 10), strtol(arguments[3], NULL, 10));
  } else {
    serve();
  }
}

#endif /* READER_H_ */
