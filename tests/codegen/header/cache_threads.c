/* Two threads, each with a context and a handle of its own, that attend and append, also by the other's: under
 * ThreadSanitizer.
 */
#include "expected.h"

#include "threads.h"

static LIB(handle) handles[kThreads];

static const int32_t lengths[2] = {40, 1};
static const int32_t pages[4] = {0, 1, 2, 3};
static const LIB(host_view) host = {lengths, PAGED ? pages : NULL, 4};

static LIB(args) attending(void) {
  LIB(args) args;
  memset(&args, 0, sizeof args);
  args.queries = args.pages = args.key_books = args.value_books = args.book_facts = args.rotations = 0x1000;
  args.lengths = args.page_table = args.key_window = args.value_window = args.outputs = args.workspace = 0x1000;
  args.out_head_stride = CONST(HEAD_DIM);
  args.out_token_stride = args.out_head_stride * CONST(Q_HEADS);
  args.out_sequence_stride = args.out_token_stride;
  args.batch = 2;
  args.query_tokens = 1;
  args.page_table_stride = 2;
  args.page_blocks = 4;
  args.softmax_scale = args.softcap = 1.0f;
  args.host = &host;
  return args;
}

static LIB(append_args) appending(void) {
  LIB(append_args) args;
  memset(&args, 0, sizeof args);
  args.keys = args.values = args.pages = args.key_books = args.value_books = args.lengths = 0x1000;
  args.page_table = args.key_window = args.value_window = 0x1000;
  args.batch = 2;
  args.new_tokens = 1;
  args.page_table_stride = 2;
  args.page_blocks = 4;
  args.host = &host;
  return args;
}

static void* work(void* number) {
  const int own = *(const int*)number;
  const void* cubins[1] = {"a cubin"};
  LIB(args) args = attending();
  LIB(append_args) append = appending();
  int i;
  current = own;
  failures[own] += LIB(load_for_device)(&handles[own], &driver, cubins) != CONST(OK);
  pthread_barrier_wait(&loaded);
  for (i = 0; i < kRounds; ++i) {
    const char* reason = NULL;
    LIB(handle) copy = handles[i % kThreads]; /* a handle is plain data */
    failures[own] += LIB(supports)(&args, &reason) != CONST(OK);
    failures[own] += LIB(supports_append)(&append, &reason) != CONST(OK);
    failures[own] += LIB(append)(&handles[i % kThreads], &append, &args) != CONST(OK);
    failures[own] += LIB(launch)(&copy, &args, &args) != CONST(OK);
    failures[own] += LIB(workspace_bytes)(&args) > (size_t)CONST(WORKSPACE_BYTES);
  }
  pthread_barrier_wait(&loaded);
  LIB(unload)(&handles[own]);
  return NULL;
}

int main(void) {
  const LIB(gpu_facts)* facts = LIB(gpu_info)(0);
  device_major = facts->major;
  device_minor = facts->minor;
  device_sm_count = facts->sm_count;
  return run_threads(work, kThreads * kRounds);
}
