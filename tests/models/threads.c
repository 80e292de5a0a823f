/* Two threads, each with a context and a model of its own, that launch all linear layers, also by the other's: under
 * ThreadSanitizer.
 */
#include "small.embedded.h"

#include "threads.h"

static small_handle models[kThreads];

static int launch_all(const small_handle* model) {
  small_linear_args args;
  const char* reason = NULL;
  int wrong = 0;
  memset(&args, 0, sizeof args);
  args.codes = args.books = args.scales = args.x = args.y = args.workspace = 0x10000;
  args.m = 1;
  for (int32_t layer = 0; layer < SMALL_NUMBER_OF_LAYERS; ++layer) {
    const small_layer_facts* facts = small_layer_info(layer);
    if (facts->n == 0) continue;
    wrong += small_supports_linear(layer, &args, &reason) != SMALL_OK;
    wrong += small_launch_linear(model, layer, &args, &args) != SMALL_OK;
    wrong += (int64_t)small_linear_workspace_bytes(layer, &args) > facts->workspace_bytes;
  }
  return wrong;
}

static void* work(void* number) {
  const int own = *(const int*)number;
  current = own;
  failures[own] += small_load_embedded(&models[own], &driver) != SMALL_OK;
  pthread_barrier_wait(&loaded);
  for (int i = 0; i < kRounds; ++i) {
    small_handle copy = models[i % kThreads]; /* a handle is plain data */
    failures[own] += launch_all(&models[i % kThreads]);
    failures[own] += launch_all(&copy);
  }
  pthread_barrier_wait(&loaded);
  small_unload(&models[own]);
  return NULL;
}

int main(void) {
  int linear = 0;
  for (int32_t layer = 0; layer < SMALL_NUMBER_OF_LAYERS; ++layer) linear += small_layer_info(layer)->n != 0;
  device_major = 9;
  device_sm_count = 132;
  return run_threads(work, kThreads * kRounds * linear);
}
