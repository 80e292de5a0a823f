/* Two threads, each with a context and a handle of its own, that also launch by the other's: under ThreadSanitizer.
 *
 * The driver is a stand-in that keeps the current context by thread, as CUDA does, and counts launches of each.
 */
#include "expected.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { kThreads = 2, kRounds = 500 };

static _Thread_local int current; /* context */
static atomic_int launches[kThreads], modules;
static char module_tokens[kThreads], function_tokens[kThreads][64];

static int load_data(void** module, const void* image) {
  *module = &module_tokens[current];
  atomic_fetch_add(&modules, 1);
  return image == NULL;
}
static int unload_module(void* module) {
  atomic_fetch_add(&modules, -1);
  return module == NULL;
}
static int get_function(void** function, void* module, const char* name) {
  const int context = (int)((char*)module - module_tokens);
  *function = &function_tokens[context][strlen(name) % 64];
  return context != current;
}
static int set_attribute(void* function, int attribute, int value) { return function == NULL || attribute < 8 || value < 0; }
static int launch_kernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                         unsigned shared, void* stream, void** parameters, void** extra) {
  const int context = (int)(((char*)function - function_tokens[0]) / 64);
  atomic_fetch_add(&launches[context], 1);
  return gx * gy * gz * bx * by * bz == 0 || shared > 1u << 20 || stream == NULL || *parameters == NULL || extra != NULL;
}
static int get_device(int* device) {
  *device = current;
  return 0;
}
static int get_attribute(int* value, int attribute, int device) {
  const LIB(gpu_facts)* facts = LIB(gpu_info)(0);
  *value = attribute == 75 ? facts->major : attribute == 76 ? facts->minor : facts->sm_count;
  return device != current;
}

static LIB(handle) handles[kThreads];
static pthread_barrier_t loaded;
static int failures[kThreads];

static void* work(void* number) {
  const int own = *(const int*)number;
  const vqcc_driver driver = {load_data, unload_module, get_function, set_attribute, launch_kernel,
                              NULL,      get_device,    get_attribute};
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
  pthread_t threads[kThreads];
  int numbers[kThreads], i;
  pthread_barrier_init(&loaded, NULL, kThreads);
  for (i = 0; i < kThreads; ++i) {
    numbers[i] = i;
    pthread_create(&threads[i], NULL, work, &numbers[i]);
  }
  for (i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  for (i = 0; i < kThreads; ++i) {
    if (failures[i] != 0 || launches[i] != kThreads * kRounds) printf("%d: %d, %d\n", i, failures[i], launches[i]);
  }
  return modules != 0;
}
