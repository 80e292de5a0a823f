/* Drives every path of the header of a library of attention with a driver that records its calls.
 *
 * expected.h, written by the test, includes the header twice, and says what it must do: its names by LIB and CONST, KERNELS,
 * PAGED, WINDOWED, ROTATED and the table `expected`. The library serves batches of 2 and 4, float16.
 */
#include "expected.h"

#include <stdio.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                     \
  do {                                                       \
    if (!(condition)) {                                      \
      printf("cache_program.c:%d: %s\n", __LINE__, #condition); \
      ++failures;                                            \
    }                                                        \
  } while (0)

enum { kMostParameters = 32 };
static struct {
  int lookups, launches, overlapping;
  int fail_launch;
  const char* names[16];
  void* function;
  unsigned grid, block, shared_bytes;
  uint64_t words[kMostParameters];
} calls;

static char module_token;
static char function_tokens[16];

static int load_data(void** module, const void* image) {
  (void)image;
  *module = &module_token;
  return 0;
}
static int unload_module(void* module) {
  CHECK(module == &module_token);
  return 0;
}
static int get_function(void** function, void* module, const char* name) {
  CHECK(module == &module_token);
  calls.names[calls.lookups] = name;
  *function = &function_tokens[calls.lookups++];
  return 0;
}
static int set_attribute(void* function, int attribute, int value) {
  CHECK(function != NULL && (attribute == 8 || attribute == 9) && value > 0);
  return 0;
}

/* Every parameter is of 4 or 8 bytes; sizes come from the test. */
static void record(void* function, unsigned grid, unsigned block, unsigned shared_bytes, void** parameters) {
  const unsigned char* sizes = function == &function_tokens[0] || function == &function_tokens[1] ? attend_sizes : append_sizes;
  calls.function = function;
  calls.grid = grid;
  calls.block = block;
  calls.shared_bytes = shared_bytes;
  memset(calls.words, 0, sizeof calls.words);
  for (int i = 0; sizes[i] != 0; ++i) memcpy(&calls.words[i], parameters[i], sizes[i]);
  ++calls.launches;
}
static int launch(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                  unsigned block_z, unsigned shared_bytes, void* stream, void** parameters, void** extra) {
  CHECK(grid_y == 1 && grid_z == 1 && block_y == 1 && block_z == 1 && extra == NULL && stream == &calls);
  record(function, grid_x, block_x, shared_bytes, parameters);
  return calls.fail_launch;
}
static int launch_ex(const vqcc_launch_config* config, void* function, void** parameters, void** extra) {
  CHECK(config->attribute_count == 1 && config->attributes[0].id == 6 && extra == NULL && config->stream == &calls);
  record(function, config->grid_x, config->block_x, config->shared_bytes, parameters);
  ++calls.overlapping;
  return calls.fail_launch;
}

static const int32_t lengths[4] = {100, 0, 1, 64};
static const int32_t pages[16] = {0, 1, 2, 3, -7, -7, -7, -7, 9, -7, -7, -7, 7, 8, -7, -7};
static LIB(host_view) host = {lengths, PAGED ? pages : NULL, PAGED ? 10 : 4};

static LIB(args) sound(void) {
  LIB(args) args;
  memset(&args, 0, sizeof args);
  args.queries = 0x1002;
  args.pages = 0x2010;
  args.key_books = 0x3010;
  args.value_books = 0x4010;
  args.book_facts = 0x5004;
  args.rotations = 0x6008;
  args.lengths = 0x7004;
  args.page_table = 0x8004;
  args.key_window = 0x9010;
  args.value_window = 0xa010;
  args.outputs = 0xb002;
  args.log_sums = 0xc004;
  args.workspace = 0xd000;
  args.q_sequence_stride = 11;
  args.q_token_stride = 12;
  args.q_head_stride = 13;
  args.out_sequence_stride = 4096;
  args.out_token_stride = 2048;
  args.out_head_stride = 128;
  args.batch = 4;
  args.query_tokens = 2;
  args.page_table_stride = 4;
  args.page_blocks = 4;
  args.softmax_scale = 0.5f;
  args.softcap = 2.0f;
  return args;
}

static LIB(append_args) sound_append(void) {
  LIB(append_args) args;
  memset(&args, 0, sizeof args);
  args.keys = 0x1002;
  args.values = 0x2002;
  args.pages = 0x3010;
  args.key_books = 0x4010;
  args.value_books = 0x5010;
  args.lengths = 0x6004;
  args.counts = 0x7004;
  args.page_table = 0x8004;
  args.key_window = 0x9010;
  args.value_window = 0xa010;
  args.key_sequence_stride = 21;
  args.key_token_stride = 22;
  args.key_head_stride = 23;
  args.value_sequence_stride = 24;
  args.value_token_stride = 25;
  args.value_head_stride = 26;
  args.batch = 3;
  args.new_tokens = 5;
  args.page_table_stride = 4;
  args.page_blocks = 4;
  return args;
}

#define REFUSES(change, why)                                                          \
  do {                                                                                \
    LIB(args) args = sound();                                                         \
    const char* reason = NULL;                                                        \
    change;                                                                           \
    CHECK(LIB(supports)(&args, &reason) == (why));                                    \
    CHECK(reason != NULL && strcmp(reason, LIB(status_string)(why)) == 0);            \
    CHECK(LIB(launch)(&handle, &args, &calls) == (why));                              \
  } while (0)

#define REFUSES_APPEND(change, why)                                                   \
  do {                                                                                \
    LIB(append_args) args = sound_append();                                           \
    const char* reason = NULL;                                                        \
    change;                                                                           \
    CHECK(LIB(supports_append)(&args, &reason) == (why));                             \
    CHECK(reason != NULL && strcmp(reason, LIB(status_string)(why)) == 0);            \
    CHECK(LIB(append)(&handle, &args, &calls) == (why));                              \
  } while (0)

static LIB(handle) handle;

static void check_launches(void) {
  LIB(args) args = sound();
  LIB(append_args) append = sound_append();
  for (int32_t batch = 1; batch <= 4; ++batch) {
    const int index = batch > 2;
    args.batch = batch;
    CHECK(LIB(supports)(&args, NULL) == CONST(OK));
    CHECK(LIB(launch)(&handle, &args, &calls) == CONST(OK));
    CHECK(calls.function == &function_tokens[index] && strcmp(calls.names[index], expected[index].name) == 0);
    CHECK(calls.grid == expected[index].grid && calls.block == expected[index].threads);
    CHECK(calls.shared_bytes == expected[index].shared_bytes);
    CHECK(LIB(workspace_bytes)(&args) == expected[index].workspace);
  }
  CHECK(calls.words[0] == args.queries && calls.words[4] == args.book_facts && calls.words[11] == args.log_sums);
  CHECK(calls.words[12] == args.workspace && calls.words[13] == 4 && calls.words[14] == 2);
  CHECK(calls.words[19] == 11 && calls.words[20] == 12 && calls.words[21] == 13 && calls.words[24] == 128);
  CHECK(LIB(append)(&handle, &append, &calls) == CONST(OK));
  CHECK(calls.function == &function_tokens[3] && calls.grid == expected[3].grid);
  CHECK(calls.words[0] == append.keys && calls.words[6] == append.counts && calls.words[10] == 3 && calls.words[11] == 5);
  CHECK(calls.words[14] == 21 && calls.words[19] == 26);
  append.new_tokens = 1;
  append.overlap = args.overlap = 1;
  CHECK(LIB(append)(&handle, &append, &calls) == CONST(OK));
  CHECK(calls.function == &function_tokens[2] && calls.block == expected[2].threads && calls.overlapping == 1);
  CHECK(LIB(launch)(&handle, &args, &calls) == CONST(OK) && calls.overlapping == 2);
  calls.fail_launch = 1;
  CHECK(LIB(launch)(&handle, &args, &calls) == CONST(ERROR_LAUNCH));
  CHECK(LIB(append)(&handle, &append, &calls) == CONST(ERROR_LAUNCH));
  calls.fail_launch = 0;
}

static void check_refusals(void) {
  const int launches = calls.launches;
  CHECK(LIB(supports)(NULL, NULL) == CONST(ERROR_NULL_POINTER));
  CHECK(LIB(supports_append)(NULL, NULL) == CONST(ERROR_NULL_POINTER));
  REFUSES(args.queries = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.pages = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.key_books = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.value_books = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.lengths = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.outputs = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.workspace = 0, CONST(ERROR_NULL_POINTER));
  REFUSES(args.batch = 0, CONST(ERROR_SIZE));
  REFUSES(args.batch = 5, CONST(ERROR_SIZE));
  REFUSES(args.query_tokens = 0, CONST(ERROR_SIZE));
  REFUSES(args.query_tokens = 3, CONST(ERROR_SIZE));
  REFUSES(args.page_table_stride = -1, CONST(ERROR_SIZE));
  REFUSES(args.page_blocks = -1, CONST(ERROR_SIZE));
  REFUSES(args.type = 1, CONST(ERROR_TYPE));
  REFUSES(args.out_head_stride = 127, CONST(ERROR_STRIDE));
  REFUSES(args.out_token_stride = 0, CONST(ERROR_STRIDE));
  REFUSES(args.out_sequence_stride = -1, CONST(ERROR_STRIDE));
  REFUSES(args.out_token_stride = args.out_sequence_stride = 128, CONST(ERROR_STRIDE));
  REFUSES(args.out_token_stride = 1023, CONST(ERROR_STRIDE)); /* eight heads of 128 */
  REFUSES(args.out_sequence_stride = 4095, CONST(ERROR_STRIDE));
  REFUSES(args.out_sequence_stride = INT64_MAX, CONST(ERROR_STRIDE));
  if (CAPPED) {
    REFUSES(args.softcap = 0.0f, CONST(ERROR_SOFTCAP));
    REFUSES(args.softcap = -1.0f, CONST(ERROR_SOFTCAP));
  }
  REFUSES(args.queries += 1, CONST(ERROR_MISALIGNED));
  REFUSES(args.pages += 8, CONST(ERROR_MISALIGNED));
  REFUSES(args.key_books += 8, CONST(ERROR_MISALIGNED));
  REFUSES(args.value_books += 8, CONST(ERROR_MISALIGNED));
  REFUSES(args.book_facts += 2, CONST(ERROR_MISALIGNED));
  REFUSES(args.rotations += 4, CONST(ERROR_MISALIGNED));
  REFUSES(args.lengths += 2, CONST(ERROR_MISALIGNED));
  REFUSES(args.page_table += 2, CONST(ERROR_MISALIGNED));
  REFUSES(args.key_window += 8, CONST(ERROR_MISALIGNED));
  REFUSES(args.value_window += 8, CONST(ERROR_MISALIGNED));
  REFUSES(args.log_sums += 2, CONST(ERROR_MISALIGNED));
  REFUSES(args.workspace += 128, CONST(ERROR_MISALIGNED));
  REFUSES_APPEND(args.keys = 0, CONST(ERROR_NULL_POINTER));
  REFUSES_APPEND(args.values = 0, CONST(ERROR_NULL_POINTER));
  REFUSES_APPEND(args.pages = 0, CONST(ERROR_NULL_POINTER));
  REFUSES_APPEND(args.key_books = 0, CONST(ERROR_NULL_POINTER));
  REFUSES_APPEND(args.value_books = 0, CONST(ERROR_NULL_POINTER));
  REFUSES_APPEND(args.lengths = 0, CONST(ERROR_NULL_POINTER));
  REFUSES_APPEND(args.batch = 0, CONST(ERROR_SIZE));
  REFUSES_APPEND(args.batch = 5, CONST(ERROR_SIZE));
  REFUSES_APPEND(args.new_tokens = 0, CONST(ERROR_SIZE));
  REFUSES_APPEND(args.new_tokens = CONST(MAX_CONTEXT) + 1, CONST(ERROR_SIZE));
  REFUSES_APPEND(args.type = 1, CONST(ERROR_TYPE));
  REFUSES_APPEND(args.keys += 1, CONST(ERROR_MISALIGNED));
  REFUSES_APPEND(args.pages += 8, CONST(ERROR_MISALIGNED));
  REFUSES_APPEND(args.counts += 2, CONST(ERROR_MISALIGNED));
  if (PAGED) {
    REFUSES(args.page_table = 0, CONST(ERROR_NULL_POINTER));
    REFUSES_APPEND(args.page_table = 0, CONST(ERROR_NULL_POINTER));
  }
  if (WINDOWED) {
    REFUSES(args.key_window = 0, CONST(ERROR_NULL_POINTER));
    REFUSES_APPEND(args.value_window = 0, CONST(ERROR_NULL_POINTER));
  }
  if (ROTATED) REFUSES(args.rotations = 0, CONST(ERROR_NULL_POINTER));
  if (FACTS) REFUSES(args.book_facts = 0, CONST(ERROR_NULL_POINTER));
  CHECK(calls.launches == launches);
}

/* Lengths {100, 0, 1, 64}: pages of 32 tokens take 4, 0, 1 and 2, or a sequence's 128 slots hold them. */
static void check_caches(void) {
  LIB(args) checked = sound();
  int32_t long_lengths[4] = {100, 0, 1, 129 + CONST(WINDOW)};
  int32_t negative[4] = {100, -1, 1, 64};
  int32_t past[4] = {100, 0, 1, CONST(MAX_CONTEXT) + 1};
  int32_t wrong[16];
  checked.host = &host;
  CHECK(LIB(supports)(&checked, NULL) == CONST(OK));
  memcpy(wrong, pages, sizeof wrong);
  host.lengths = NULL;
  REFUSES(args.host = &host, CONST(ERROR_NULL_POINTER));
  host.lengths = negative;
  REFUSES(args.host = &host, CONST(ERROR_LENGTH));
  host.lengths = past;
  REFUSES(args.host = &host, CONST(ERROR_LENGTH));
  host.lengths = long_lengths;
  REFUSES(args.host = &host, CONST(ERROR_CAPACITY));
  host.lengths = lengths;
  if (PAGED) {
    wrong[3] = 10;
    host.page_table = wrong;
    REFUSES(args.host = &host, CONST(ERROR_PAGE));
    REFUSES_APPEND(args.host = &host, CONST(ERROR_PAGE));
    wrong[3] = -1;
    REFUSES(args.host = &host, CONST(ERROR_PAGE));
    wrong[3] = 3;
    wrong[1] = -1; /* tokens 32 to 63 of 100: with a sliding window of 33 two queries see those from 66 on */
    checked.host = &host;
    CHECK(LIB(supports)(&checked, NULL) == (SLIDES ? CONST(OK) : CONST(ERROR_PAGE)));
    {
      LIB(append_args) append = sound_append();
      append.host = &host;
      CHECK(LIB(supports_append)(&append, NULL) == CONST(OK)); /* five tokens, the last ones */
    }
    host.page_table = NULL;
    REFUSES(args.host = &host, CONST(ERROR_NULL_POINTER));
    host.page_table = pages;
  } else {
    host.page_count = 3; /* the fourth sequence has no page */
    REFUSES(args.host = &host, CONST(ERROR_PAGE));
    host.page_count = 4;
    REFUSES((args.host = &host, args.page_blocks = 0), CONST(ERROR_CAPACITY));
  }
  { /* heads may lie further apart than tokens, and tokens than sequences */
    LIB(args) turned = sound();
    turned.out_sequence_stride = 128;
    turned.out_token_stride = 4 * 128;
    turned.out_head_stride = 8 * 128;
    CHECK(LIB(supports)(&turned, NULL) == CONST(OK));
  }
  {
    LIB(append_args) append = sound_append();
    append.host = &host;
    CHECK(LIB(supports_append)(&append, NULL) == CONST(OK));
  }
}

int main(void) {
  vqcc_driver driver = {load_data, unload_module, get_function, set_attribute, launch, launch_ex, NULL, NULL};
  LIB(args) args = sound();
  CHECK(CONST(KERNEL_COUNT) == KERNELS && CONST(PAGE_BYTES)(64) == EXPECTED_PAGE_BYTES);
  CHECK(strcmp(CONST(BUILD_ID), "0123456789abcdef") == 0 && strcmp(CONST(LAYOUT_ID), "0123456789ab") == 0);
  CHECK(LIB(launch)(&handle, &args, &calls) == CONST(ERROR_NULL_POINTER)); /* nothing is loaded */
  CHECK(LIB(load)(&handle, &driver, 0, &module_token) == CONST(OK) && calls.lookups == KERNELS);
  check_launches();
  check_refusals();
  check_caches();
  LIB(unload)(&handle);
  CHECK(handle.module == NULL);
  for (int status = 0; status <= CONST(ERROR_SOFTCAP); ++status) CHECK(strcmp(LIB(status_string)((LIB(status))status), "unknown status") != 0);
  if (failures == 0) printf("ok\n");
  return failures != 0;
}
