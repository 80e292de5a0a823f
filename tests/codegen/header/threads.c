/* Two threads, each with a context and a handle of its own, that also launch by the other's: under ThreadSanitizer. */
#include "expected.h"

#include "threads.h"

static LIB(handle) handles[kThreads];

static void* work(void* number) {
  const int own = *(const int*)number;
  const void* cubins[GPUS];
  LIB(args) args;
  int i;
  for (i = 0; i < GPUS; ++i) cubins[i] = "a cubin";
  current = own;
  memset(&args, 0, sizeof args);
  args.codes = args.books = args.scales = args.stage_scales = args.x = args.y = args.workspace = 0x10000;
  args.m = 1;
  failures[own] += LIB(load_for_device)(&handles[own], &driver, cubins) != CONST(OK);
  pthread_barrier_wait(&loaded);
  for (i = 0; i < kRounds; ++i) {
    const char* reason = NULL;
    LIB(handle) copy = handles[i % kThreads]; /* a handle is plain data */
    failures[own] += LIB(supports)(&args, &reason) != CONST(OK);
    failures[own] += LIB(launch)(&handles[i % kThreads], &args, &args) != CONST(OK);
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
